"""What `hubbub demo` runs: a chat, made to be copied. `chat.py` is its server, `page/` its page."""
