"""Does what a new user does: installs a wheel into an empty environment, runs `hubbub demo`, and uses the chat.

`python new_user.py hubbub-….whl` needs only the Python that runs it, so it can try a wheel anywhere. The PATH contains
only the new environment: no compiler, and no cargo.
"""

import asyncio
import json
import re
import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path
from typing import Any

PATIENCE = 60  # seconds
KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # the one of RFC 6455 §1.3, with its answer
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def main(wheel: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary).resolve()
        programs = home / "environment" / "bin"
        venv.create(programs.parent, with_pip=True)
        run(programs, "python", "-m", "pip", "install", "--quiet", "--only-binary", ":all:", wheel.resolve())
        version = run(programs, "hubbub", "--version")
        assert version == f"hubbub {wheel.name.split('-')[1]}\n", version
        client = Path(run(programs, "python", "-c", "import hubbub; print(hubbub.client_path())").strip())
        assert client.is_relative_to(programs.parent), client
        asyncio.run(try_demo(programs, client.read_bytes()))
    print(f"{wheel.name} works in an empty environment of Python {sys.version.split()[0]}")


def run(programs: Path, name: str, *arguments: str | Path) -> str:
    """Return the output of one of the environment's programs."""
    command = (programs / name, *arguments)
    environment = {"PATH": str(programs)}
    return subprocess.run(command, env=environment, cwd=programs, stdout=subprocess.PIPE, text=True, check=True).stdout


async def try_demo(programs: Path, client: bytes) -> None:
    """Run the chat, load its page, join, say something, and end it with SIGTERM."""
    demo = await asyncio.create_subprocess_exec(
        programs / "hubbub",
        *("demo", "--port", "0", "--workers", "2"),
        env={"PATH": str(programs)},
        cwd=programs,
        stdout=asyncio.subprocess.PIPE,
    )
    assert demo.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            printed = (await demo.stdout.readline()).decode()
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", printed)
            assert found, f"the demo printed {printed!r} instead of its address"
            page = await asyncio.to_thread(load, found[0])
            assert b"<html" in page
            assert await asyncio.to_thread(load, f"{found[0]}hubbub.js") == client
            await talk(int(found[1]))
    finally:
        if demo.returncode is None:
            demo.terminate()
        status = await demo.wait()
    assert status == 0, f"the demo ended with status {status}"


def load(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=PATIENCE) as response:
        content: bytes = response.read()
        return content


async def talk(port: int) -> None:
    """Join a room, say something, and receive it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    assert head.startswith("HTTP/1.1 101 "), head
    assert ACCEPT in head, head
    writer.write(text_frame({"type": "join", "room": "kitchen", "name": "Ada", "back": False, "since": None}))
    writer.write(text_frame({"type": "say", "id": "1", "text": "tea is ready"}))
    while "offset" not in (envelope := await read_message(reader)):
        pass
    said = envelope["data"]
    assert (said["name"], said["text"]) == ("Ada", "tea is ready"), said
    writer.close()


def text_frame(content: object) -> bytes:
    """A message of at most 125 bytes as a client sends it: masked, here with zeros (RFC 6455 §5.2)."""
    payload = json.dumps(content).encode()
    return bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload


async def read_message(reader: asyncio.StreamReader) -> dict[str, Any]:
    """A text message of less than 64 KiB, as the chat's are."""
    opcode, length = await reader.readexactly(2)
    assert opcode == 0x81, opcode
    if length == 126:
        length = int.from_bytes(await reader.readexactly(2))
    message: dict[str, Any] = json.loads(await reader.readexactly(length))
    return message


if __name__ == "__main__":
    main(Path(sys.argv[1]))
