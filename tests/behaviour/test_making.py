"""A server that is made, and does not run yet."""

import inspect
from typing import Any

import pytest

from hubbub import Server, SettingsError


def test_workers_is_a_keyword_that_tools_can_see() -> None:
    workers = inspect.signature(Server).parameters["workers"]
    assert workers.kind is inspect.Parameter.KEYWORD_ONLY
    assert workers.default is None


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ssl_certfile", {"ssl_certfile": __file__, "ssl_keyfile": __file__}),
    ],
)
async def test_a_setting_that_would_do_nothing_is_refused_with_its_value(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as refused:
        async with Server(port=0, **settings):
            pass
    assert str(refused.value).startswith(f"{name}: {settings[name]!r} ")
    assert "allowed is" in str(refused.value)
