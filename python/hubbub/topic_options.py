"""The options of topics: what is kept of their messages, and how their subscribers get them.

Options belong to a pattern: the name of a topic, or the beginning of names, with a `*` at its end. Of all patterns that
match a topic, the one that was given first counts.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Literal, Self, get_args

from .errors import as_seconds, short_number, wrong_type
from .kinds import short_repr

__all__ = ["SlowConsumer", "TopicOptions", "TopicValues", "check_pattern"]

SlowConsumer = Literal["close", "drop", "latest"]

TopicValues = tuple[str, int, float, bool, bool, str | None, float | None]
"""The options of a pattern in the form in which the core takes them: the fields of `TopicOptions`."""

# As of the name of a topic.
MAX_PATTERN_BYTES = 255
MAX_HISTORY = 2**31 - 1
MIN_SECONDS = 0.001
# A year.
MAX_SECONDS = 365 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class TopicOptions:
    """The options of the topics that match a pattern, checked."""

    pattern: str
    history: int
    """How many messages are kept."""
    seconds: float
    """How long they are kept."""
    presence: bool
    """Whether the server knows who is subscribed, with their `info`."""
    envelope: bool
    """Whether subscribers get messages in an envelope that tells their positions."""
    slow_consumer: SlowConsumer | None
    """What happens if an outbox is full; `None` means what the setting of that name says."""
    ttl: float | None
    """Seconds that a message may wait in an outbox; `None` sets no limit."""

    @classmethod
    def checked(
        cls,
        pattern: object,
        history: object,
        seconds: object,
        presence: object,
        envelope: object,
        slow_consumer: object,
        ttl: object,
    ) -> Self:
        """Check the arguments of `Server.topic_options`.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: A value is out of range, or the pattern is malformed.
        """
        for name, flag in (("presence", presence), ("envelope", envelope)):
            if not isinstance(flag, bool):
                raise wrong_type(name, "a bool", flag)
        return cls(
            check_pattern(pattern),
            _check_history(history),
            _check_seconds("seconds", seconds),
            bool(presence),
            bool(envelope),
            _check_slow_consumer(slow_consumer),
            None if ttl is None else _check_seconds("ttl", ttl, " or None"),
        )

    @property
    def values(self) -> TopicValues:
        """The options in the form in which the core takes them."""
        return astuple(self)

    def covers(self, other: Self) -> bool:
        """Return whether every topic that matches the other pattern matches this one too."""
        if self.pattern.endswith("*"):
            return other.pattern.removesuffix("*").startswith(self.pattern[:-1])
        return other.pattern == self.pattern

    def check_is_reached(self, earlier: "Sequence[TopicOptions]") -> None:
        """Check that these options count for at least one topic.

        Raises:
            ValueError: An earlier pattern is the same, or covers this one.
        """
        for each in earlier:
            if each.pattern == self.pattern:
                raise ValueError(f"pattern {short_repr(self.pattern)} has options already")
            if each.covers(self):
                raise ValueError(
                    f"pattern {short_repr(self.pattern)} would never count: {short_repr(each.pattern)}, whose options "
                    "were given before, matches everything that it matches"
                )


def check_pattern(pattern: object) -> str:
    """Return a pattern of topics.

    Raises:
        TypeError: It is not a `str`.
        ValueError: It is empty or too long, or has a `*` that is not its last character.
    """
    if not isinstance(pattern, str):
        raise wrong_type("pattern", "a str", pattern)
    try:
        length = len(pattern.encode())
    except UnicodeEncodeError:
        raise ValueError("pattern must be text that UTF-8 can express, without lone surrogates") from None
    if not 1 <= length <= MAX_PATTERN_BYTES:
        raise ValueError(f"pattern must have 1 to {MAX_PATTERN_BYTES} bytes of UTF-8, not {length}")
    if "*" in pattern[:-1]:
        raise ValueError(f"pattern must have no * except at its end, unlike {short_repr(pattern)}")
    return pattern


def _check_history(history: object) -> int:
    if not isinstance(history, int) or isinstance(history, bool):
        raise wrong_type("history", "an int", history)
    if not 0 <= history <= MAX_HISTORY:
        raise ValueError(f"history must be 0 to {MAX_HISTORY:,} messages, not {short_number(history)}")
    return int(history)


def _check_seconds(name: str, given: object, otherwise: str = "") -> float:
    try:
        seconds = as_seconds(name, given)
    except TypeError:
        raise wrong_type(name, f"a number of seconds{otherwise}", given) from None
    if not MIN_SECONDS <= seconds <= MAX_SECONDS:
        raise ValueError(f"{name} must be {MIN_SECONDS} to {MAX_SECONDS:,.0f} seconds{otherwise}, not {seconds:g}")
    return seconds


def _check_slow_consumer(given: object) -> SlowConsumer | None:
    if given is None:
        return None
    if not isinstance(given, str):
        raise wrong_type("slow_consumer", "a str or None", given)
    for policy in get_args(SlowConsumer):
        if given == policy:
            return policy  # type: ignore[no-any-return]
    allowed = ", ".join(map(repr, get_args(SlowConsumer)))
    raise ValueError(f"slow_consumer must be one of {allowed}, or None, not {short_repr(given)}")
