"""A worker's event loop, in which the reactor does the waiting.

If the reactor's descriptor is one of many in an event loop's selector, each message costs two waits, and the event
loop's own work, before its handler runs. In a worker Hubbub creates the event loop, so there the reactor takes the
place of the selector: it waits for its sockets and, as one more descriptor, for the selector.
"""

import asyncio
import contextvars
import selectors
import warnings
from typing import Any

from ._core import Reactor

__all__ = ["Selector", "new_event_loop"]


class Selector(selectors.DefaultSelector):
    """The selector of an event loop, whose place a reactor can take."""

    def give_way(self, reactor: Reactor, loop: asyncio.AbstractEventLoop, context: contextvars.Context) -> None:
        """Let `reactor` wait instead of this selector, and run its turns in `context`.

        Raises:
            OSError: The kernel refuses to watch the selector.
        """
        reactor.take_over(loop, self.fileno(), super().select, context)
        # The event loop looks `select` up each time.
        self.__dict__["select"] = reactor.select

    def come_back(self) -> None:
        """Return to waiting without the reactor."""
        self.__dict__.pop("select", None)


def new_event_loop() -> tuple[asyncio.AbstractEventLoop, Selector | None]:
    """Create an event loop, and return the selector that can give way to a reactor.

    If the application has chosen event loops itself (`uvloop.install()`), it is one of those, without such a selector.
    """
    if not _application_chooses() and hasattr(Selector, "fileno"):
        selector = Selector()
        return asyncio.SelectorEventLoop(selector), selector
    return asyncio.new_event_loop(), None


def _application_chooses() -> bool:
    """Return whether there is a policy for event loops other than Python's own."""
    with warnings.catch_warnings():
        # Policies are deprecated from Python 3.14 on, but an application may still use one.
        warnings.simplefilter("ignore", DeprecationWarning)
        get_policy: Any = getattr(asyncio, "get_event_loop_policy", None)
        return get_policy is not None and type(get_policy()) is not asyncio.DefaultEventLoopPolicy
