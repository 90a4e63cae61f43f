"""Pushes a text to the open pages of `app.py`, from a program that is no part of the server.

python push.py "tea is ready"                to all pages
python push.py "yours is green" --fd 123     to one of them
"""

import argparse
import sys

from hubbub import Publisher

parser = argparse.ArgumentParser(description="Push a text to the open pages of app.py.")
parser.add_argument("text")
parser.add_argument("--fd", type=int, help="the one connection to push to; otherwise all that want news")
parser.add_argument("--port", type=int, default=9501, help="the port of the server (9501)")
arguments = parser.parse_args()

with Publisher(port=arguments.port) as hub:
    if arguments.fd is None:
        hub.publish("news", arguments.text)
        print(f"sent to {hub.subscribers('news')} pages")
    elif hub.push(arguments.fd, arguments.text):
        print("sent")
    else:
        sys.exit(f"there is no open connection {arguments.fd}")
