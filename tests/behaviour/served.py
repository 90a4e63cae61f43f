"""The program that serves a test's application in processes of its own: `served.py DIRECTORY`.

The directory contains `application`, the pickled application with its settings, and the socket `test`. The process
sends the application's notes and the answers to the test's requests to that socket, and receives the requests on a
socket of its own in the directory.
"""

import inspect
import os
import pickle
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from application import Job, Note, new_server

from hubbub import NotRunning

MAX_DATAGRAM = 1024 * 1024


def main(directory: Path) -> None:
    """Serve; the master runs this, and so does each worker."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    channel.bind(str(directory / str(os.getpid())))
    channel.connect(str(directory / "test"))

    def tell(*message: Any) -> None:
        channel.send(pickle.dumps(message))

    application, settings = pickle.loads((directory / "application").read_bytes())
    note = Note(lambda values: tell("note", values))
    server = new_server(note, settings)
    application(server, note)

    def do_what_the_test_asks_for() -> None:
        while True:
            number, job = pickle.loads(channel.recv(MAX_DATAGRAM))

            async def answer(number: int = number, job: Job = job) -> None:
                try:
                    result = job(server, note)
                    if inspect.isawaitable(result):
                        result = await result
                except Exception as error:
                    tell("error", number, error)
                else:
                    tell("result", number, result)

            try:
                server.after(0, answer)
            except NotRunning as error:
                tell("error", number, error)

    threading.Thread(target=do_what_the_test_asks_for, daemon=True).start()
    tell("here")
    server.start()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
