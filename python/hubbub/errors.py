"""The errors that Hubbub raises for a caller's mistake; all of them are `HubbubError`."""

__all__ = ["CannotServe", "HubbubError", "NotRunning", "SettingsError"]


class HubbubError(Exception):
    """The base of all errors that are Hubbub's own."""


class SettingsError(HubbubError, ValueError):
    """A setting is unknown, of the wrong type or out of range.

    The message names the setting, where it came from (keyword, option or environment variable), what was
    given and what is allowed.
    """


class NotRunning(HubbubError, RuntimeError):
    """A call that needs a running server was made before it started, after it ended, or in the master."""


class CannotServe(OSError):
    """The system refuses what the server needs: the port is in use, the host unknown, the control socket another's.

    `strerror` is one line for people that tells what, where and why.
    """
