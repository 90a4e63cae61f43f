"""The types of handlers: each takes the first of its event's arguments, as many as it declares."""

from collections.abc import Callable
from typing import TypeVar

__all__ = ["Four", "One", "Three", "Two"]

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")

One = Callable[[], object] | Callable[[A], object]
Two = Callable[[], object] | Callable[[A], object] | Callable[[A, B], object]
Three = Callable[[], object] | Callable[[A], object] | Callable[[A, B], object] | Callable[[A, B, C], object]
Four = (
    Callable[[], object]
    | Callable[[A], object]
    | Callable[[A, B], object]
    | Callable[[A, B, C], object]
    | Callable[[A, B, C, D], object]
)
