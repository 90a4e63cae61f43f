"""JSON: what is sent of a `dict` or `list`, and what received text holds."""

import functools
from collections.abc import Callable
from math import isinf
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import NotJson, wrong_type

if TYPE_CHECKING:
    from json import JSONDecoder, JSONEncoder

__all__ = ["STANDARD", "Json", "as_text"]


class Json:
    """Encodes and decodes with one library."""

    def __init__(self, library: object = None) -> None:
        """Use `library`: a module or object with `dumps` and `loads`; `None` means the standard library's.

        Raises:
            TypeError: It does not have both.
        """
        self._dumps: Callable[[object], object] = _standard_dumps
        self._loads: Callable[[Any], Any] = _standard_loads
        is_standard = isinstance(library, ModuleType) and library.__name__ == "json"
        if library is not None and not is_standard:
            dumps, loads = getattr(library, "dumps", None), getattr(library, "loads", None)
            if not callable(dumps) or not callable(loads):
                raise wrong_type("json", "a module or object with the functions dumps and loads", library)
            self._dumps, self._loads = dumps, loads

    def encode(self, value: object) -> str:
        """Return `value` as JSON text.

        Raises:
            TypeError: It cannot be encoded, or not as UTF-8.
        """
        try:
            text = self._dump(value)
            if isinstance(text, bytes):
                return text.decode()
            if isinstance(text, str):
                if not text.isascii():
                    text.encode()  # Fails if there are lone surrogates, which UTF-8 cannot express.
                return text
        except Exception as error:
            raise TypeError(f"data must be encodable as JSON: {error}") from error
        raise TypeError(f"dumps must return str or bytes, not {type(text).__name__}")

    def _dump(self, value: object) -> object:
        try:
            return self._dumps(value)
        except TypeError:
            # Some libraries, such as orjson, take no subclasses of tuple, such as `Position`.
            if self._dumps is _standard_dumps:
                raise
            return self._dumps(_without_tuples(value))

    def decode(self, data: str | bytes) -> Any:
        """Return the value of JSON text.

        Raises:
            NotJson: It is not JSON.
        """
        try:
            return self._loads(data)
        except Exception as error:
            raise NotJson(f"not JSON: {error}") from error


def _without_tuples(value: object) -> object:
    """Return the same value with lists in the place of tuples."""
    if isinstance(value, dict):
        return {key: _without_tuples(each) for key, each in value.items()}
    return [_without_tuples(each) for each in value] if isinstance(value, (list, tuple)) else value


def as_text(data: Any) -> Any:
    """Return a `dict` or `list` as JSON text, by the standard library; everything else as it is."""
    return STANDARD.encode(data) if isinstance(data, (dict, list)) else data


def _standard_dumps(value: object) -> str:
    return _encoder().encode(value)


def _standard_loads(data: str | bytes) -> Any:
    text = data if isinstance(data, str) else data.decode()
    value = _decoder().decode(text)
    if "\\ud" in text or "\\uD" in text:
        # These escapes may be one half of a pair. No text could then hold what was decoded, so it could not be sent on.
        _encoder().encode(value).encode()
    return value


# Not every server uses JSON, and `import hubbub` should be quick.


@functools.cache
def _encoder() -> "JSONEncoder":
    from json import JSONEncoder

    return JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


@functools.cache
def _decoder() -> "JSONDecoder":
    from json import JSONDecoder

    return JSONDecoder(parse_constant=_refuse, parse_float=_finite)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON (RFC 8259 §6)")


def _finite(text: str) -> float:
    value = float(text)
    if isinf(value):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


STANDARD = Json()
"""The standard library's, with what is sent as compact as possible, and not ASCII-escaped."""
