"""Creating a server, without running it."""

import inspect

from hubbub import Server


def test_workers_is_a_keyword_that_tools_can_see() -> None:
    workers = inspect.signature(Server).parameters["workers"]
    assert workers.kind is inspect.Parameter.KEYWORD_ONLY
    assert workers.default is None
