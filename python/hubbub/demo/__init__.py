"""The chat that `hubbub demo` runs; use it as a starting point. `chat.py` is its server, `page/` its page."""
