"""A plain script that publishes numbered messages to a running Hubbub as fast as it can.

It prints `ready`, waits for a line, and exits when all messages are sent.
"""

import argparse

from hubbub import Publisher

TOPIC = "fan"


def main(port: int, count: int, size: int) -> None:
    """Publish the messages that the load generator expects: 16 hexadecimal digits, then all of ASCII in turn."""
    text = "".join(chr(ord(" ") + position % 95) for position in range(size))[16:]
    with Publisher(port=port) as hub:
        if hub.subscribers(TOPIC) != 1:
            raise SystemExit(f"there should be one subscriber of {TOPIC!r}")
        print("ready", flush=True)
        input()
        for number in range(count):
            hub.publish(TOPIC, f"{number:016x}{text}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--size", type=int, required=True, help="bytes of a message")
    arguments = parser.parse_args()
    main(arguments.port, arguments.messages, arguments.size)
