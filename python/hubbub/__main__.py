"""`python -m hubbub` does the same as `hubbub`."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="hubbub")
