"""Imports point down only: cli -> server -> master, worker -> settings, events, errors.

Imports for type checking count too: a module that needs a type from above depends on it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "python" / "hubbub"

# From the bottom to the top. A module may import from the layers below its own, not from beside it.
LAYERS = [
    {"hubbub.addresses", "hubbub.client", "hubbub.errors", "hubbub.event_loop", "hubbub.forwarding", "hubbub.memory"},
    {
        "hubbub.asgi.application",
        "hubbub.asgi.ids",
        "hubbub.draining",
        "hubbub.closings",
        "hubbub.handed_over",
        "hubbub.headers",
        "hubbub.jsons",
        "hubbub.logs",
        "hubbub.unix_sockets",
    },
    {
        "hubbub.asgi.lifespan",
        "hubbub.events",
        "hubbub.handler_types",
        "hubbub.history",
        "hubbub.listing",
        "hubbub.kinds",
        "hubbub.requests",
    },
    {"hubbub.broker_url", "hubbub.cluster", "hubbub.presence", "hubbub.responses"},
    {
        "hubbub.control",
        "hubbub.handlers",
        "hubbub.listening",
        "hubbub.metrics",
        "hubbub.program",
        "hubbub.questions",
        "hubbub.sendings",
        "hubbub.settings",
        "hubbub.static",
        "hubbub.systemd",
        "hubbub.tasks",
        "hubbub.terminal",
        "hubbub.threads",
        "hubbub.timers",
        "hubbub.topic_options",
        "hubbub.visitors",
    },
    {
        "hubbub.caller",
        "hubbub.certificates",
        "hubbub.endpoints",
        "hubbub.environment",
        "hubbub.hub",
        "hubbub.watchdog",
    },
    {"hubbub.master", "hubbub.worker"},
    {"hubbub.embedded", "hubbub.publisher", "hubbub.worker_process"},
    {"hubbub.server"},
    {"hubbub.cli", "hubbub.demo", "hubbub.testing"},
]

# The binding has no Python source. It imports modules of the package only at run time, for values.
NATIVE = "hubbub._core"


def module_name(path: Path) -> str:
    """`python/hubbub/demo/__init__.py` is the module `hubbub.demo`."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported_names(source: str, package: str) -> Iterator[str]:
    """All names that a module of `package` imports, dotted and absolute, wherever in it the import stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                parents = package.split(".")
                base = parents[: len(parents) - node.level + 1] + base
            # `from .server import Server` names no module server.Server, but `from . import server` does.
            yield from (".".join([*base, alias.name]) for alias in node.names)


def imports(module: str) -> set[str]:
    """The modules of the package that `module` imports itself."""
    path = SOURCES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for name in imported_names(path.read_text(encoding="utf-8"), package):
        while name and name not in SOURCES and name != NATIVE:
            name = name.rpartition(".")[0]
        if name in SOURCES:
            found.add(name)
    return found


def reached(module: str) -> set[str]:
    """The modules of the package that `module` imports, itself or through others."""
    seen: set[str] = set()
    waiting = imports(module)
    while waiting:
        seen |= waiting
        waiting = {further for each in waiting for further in imports(each)} - seen
    return seen


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import hubbub.server", {"hubbub.server"}),
        ("from hubbub.server import Server", {"hubbub.server.Server"}),
        ("from hubbub import server", {"hubbub.server"}),
        ("from .server import Server", {"hubbub.server.Server"}),
        ("from . import server, events", {"hubbub.server", "hubbub.events"}),
        ("def later():\n    from .server import Server", {"hubbub.server.Server"}),
    ],
)
def test_every_form_of_import_is_seen(source: str, names: set[str]) -> None:
    assert set(imported_names(source, "hubbub")) == names


def test_a_subpackage_can_reach_up() -> None:
    assert set(imported_names("from ..server import Server", "hubbub.demo")) == {"hubbub.server.Server"}


@pytest.mark.parametrize("module", sorted(set.union(*LAYERS) & SOURCES.keys()))
def test_a_module_imports_only_from_the_layers_below(module: str) -> None:
    level = next(index for index, layer in enumerate(LAYERS) if module in layer)
    beside_and_above = set.union(*LAYERS[level:])
    assert reached(module) & beside_and_above == set()


@pytest.mark.parametrize("module", sorted(SOURCES))
def test_no_module_imports_itself_through_others(module: str) -> None:
    assert module not in reached(module)
