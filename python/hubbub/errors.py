"""Hubbub's own exceptions, and checks of arguments."""

from collections.abc import Iterable
from numbers import Real

__all__ = [
    "BadInput",
    "CannotServe",
    "HubbubError",
    "NotJson",
    "NotRunning",
    "SettingsError",
    "as_seconds",
    "check_ids",
    "check_seconds",
    "short_number",
    "wrong_type",
]


class HubbubError(Exception):
    """The base class of Hubbub's own errors."""


class SettingsError(HubbubError, ValueError):
    """A setting is unknown, of the wrong type or out of range.

    The message names the setting, where the value came from (keyword, option or environment variable), the value
    given, and what is allowed.
    """


class NotRunning(HubbubError, RuntimeError):
    """A call that needs a running server was made before it started, after it ended, or in the master."""


class BadInput(ValueError):
    """What a client sent cannot be decoded. Users catch it as a `ValueError`."""


class NotJson(BadInput):
    """It is not JSON."""


class CannotServe(HubbubError, OSError):
    """The system refused something the server needs.

    For example, the port is in use, the host is unknown, or the control socket belongs to another server. `strerror` is
    one line for people that says what failed, where and why.
    """


def wrong_type(argument: str, wanted: str, given: object) -> TypeError:
    """Return an error that names an argument, what it must be, and the type given."""
    return TypeError(f"{argument} must be {wanted}, not {type(given).__name__}")


def short_number(given: object) -> str:
    """Return a number for an error message, cut if it has very many digits; Python writes some thousands at most."""
    try:
        text = str(given)
    except ValueError:
        return "a number with thousands of digits"
    return text if len(text) <= 100 else text[:97] + "..."


def check_seconds(argument: str, given: object) -> None:
    """Check that an argument is a number of seconds, of any size.

    Raises:
        TypeError: The argument is not a number.
    """
    if not isinstance(given, Real) or isinstance(given, bool):
        raise wrong_type(argument, "a number of seconds", given)


def as_seconds(argument: str, given: object) -> float:
    """Return an argument that is a number of seconds as a `float`.

    Raises:
        TypeError: The argument is not a number.
        ValueError: The argument is too large for a `float`.
    """
    check_seconds(argument, given)
    try:
        return float(given)  # type: ignore[arg-type]
    except OverflowError:
        raise ValueError(f"{argument} must be a number that fits into a float, not {short_number(given)}") from None


def check_ids(exclude: Iterable[int]) -> tuple[int, ...]:
    """Return the ids that a fan-out excludes; the ids themselves are checked when the message is sent.

    Raises:
        TypeError: `exclude` is not an iterable.
    """
    if isinstance(exclude, tuple):
        # The usual case. Asking the abstract class would take a quarter of the time of a publish.
        return exclude
    if not isinstance(exclude, Iterable):
        raise wrong_type("exclude", "an iterable of ids (int)", exclude)
    return tuple(exclude)
