"""The progress of a run: a bar in a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn


class Meter:
    """Shows on standard error what is done, and how much time is left.

    Steps are weighted by their expected duration; the actual durations correct the estimate for the rest.
    """

    def __init__(self, expected_seconds: float) -> None:
        self.expected = expected_seconds
        self.done = 0.0
        self.started = time.monotonic()
        self.console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self.bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("", total=expected_seconds, left="")

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def begin(self, what: str) -> None:
        """Show what is being done."""
        self.bar.update(self.task, description=what)

    def advance(self, expected_seconds: float) -> None:
        """Record that a step is done that was expected to take that long."""
        self.done += expected_seconds
        self.bar.update(self.task, completed=self.done, left=self.left)

    def say(self, line: str) -> None:
        """Print a line that stays; outside a terminal, with the progress."""
        if self.console.is_terminal:
            self.console.print(line, highlight=False, markup=False)
        else:
            print(f"[{self.done / self.expected:4.0%}, {self.left}] {line}", file=sys.stderr, flush=True)

    @property
    def minutes(self) -> float:
        """Return how long the run has taken so far."""
        return (time.monotonic() - self.started) / 60

    @property
    def left(self) -> str:
        """Return the estimated time left."""
        if not self.done:
            return f"about {self.expected / 60:.0f} min"
        left = self.minutes * (self.expected - self.done) / self.done
        return f"{left:.0f} min left" if left >= 1 else "under a minute left"
