"""Imports in the Rust crates point down only, between the engine's folders and between the files of a crate.

A file of the reactor and its parent, which has the fields, may import each other. Tests may import anything.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CRATES = {"wire": ROOT / "crates/wire", "engine": ROOT / "crates/engine", "binding": ROOT / "crates/python"}

# The engine's folders, and its files beside them, from the bottom to the top.
LAYERS = [
    {"endpoints", "redis_address", "system"},
    {"registry", "tls"},
    {"topics"},
    {"settings"},
    {"connection", "language"},
    {"broker"},
    {"hub", "reactor"},
]

Module = tuple[str, ...]

USE = re.compile(r"^\s*(?:pub(?:\([a-z ]+\))? )?use ([^;]+);", re.MULTILINE)
INLINE = re.compile(r"(?<![\w:])(?:crate|super)(?:::\w+)+")
TESTS = re.compile(r"#\[cfg\(test\)\]\s*mod tests\b.*", re.DOTALL)


def module_of(path: Path, source: Path) -> Module:
    """`src/hub/mod.rs` is the module `hub`, `src/hub/peer.rs` is `hub::peer`, and `src/lib.rs` has no name."""
    parts = path.relative_to(source).with_suffix("").parts
    return () if parts == ("lib",) else parts[:-1] if parts[-1] == "mod" else parts


def expanded(tree: str) -> Iterator[str]:
    """All paths of a `use`: `a::{b, c::{self, d}}` are `a::b`, `a::c::self` and `a::c::d`."""
    prefix, brace, rest = tree.partition("{")
    if not brace:
        yield tree.split(" as ")[0].strip()
        return
    depth, item = 0, ""
    for character in rest[: rest.rindex("}")] + ",":
        if character == "," and depth == 0:
            if item.strip():
                yield from (prefix.strip() + path for path in expanded(item.strip()))
            item = ""
            continue
        depth += (character == "{") - (character == "}")
        item += character


def paths(source: str) -> Iterator[str]:
    """All paths that a file names, in a `use` and in its code."""
    code = TESTS.sub("", re.sub(r"//.*", "", source))
    for match in USE.finditer(code):
        yield from expanded(" ".join(match[1].split()))
    yield from INLINE.findall(USE.sub("", code))


def target(module: Module, path: str, modules: set[Module]) -> Module | None:
    """Return the module of the crate that a path leads into; `None` if there is none, or it is the file itself."""
    parts = [part for part in path.split("::") if part != "self"]
    if parts[:1] == ["crate"]:
        absolute = parts[1:]
    else:
        ups = next((number for number, part in enumerate(parts) if part != "super"), len(parts))
        # A path without a prefix begins at a child, or at another crate.
        absolute = [*module[: len(module) - ups], *parts[ups:]]
    while absolute and tuple(absolute) not in modules:
        absolute.pop()
    found = tuple(absolute)
    return found if found and found != module else None


def arrows(crate: Path) -> dict[Module, set[Module]]:
    """Which files of a crate import which."""
    source = crate / "src"
    code = (path for path in source.rglob("*.rs") if "tests" not in path.relative_to(source).with_suffix("").parts)
    files = {module_of(path, source): path for path in code}
    modules = set(files)
    return {
        module: {
            found
            for path in paths(file.read_text(encoding="utf-8"))
            if (found := target(module, path, modules)) is not None
        }
        for module, file in files.items()
    }


def circle(edges: dict[Module, set[Module]]) -> list[str]:
    """Return one cycle, from a module back to itself; an empty list if there is none."""
    done: set[Module] = set()

    def search(module: Module, way: list[Module]) -> list[Module]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module not in done:
            for found in sorted(edges[module]):
                if result := search(found, [*way, module]):
                    return result
            done.add(module)
        return []

    for module in sorted(edges):
        if result := search(module, []):
            return ["::".join(each) or "lib" for each in result]
    return []


ENGINE = arrows(CRATES["engine"])


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("use crate::hub::peer::Peer;", {"crate::hub::peer::Peer"}),
        ("pub(crate) use super::peer::{Cut, Peer as P};", {"super::peer::Cut", "super::peer::Peer"}),
        ("use crate::{\n    hub::{self, peer},\n    tls,\n};", {"crate::hub::self", "crate::hub::peer", "crate::tls"}),
        ("fn f() { crate::tls::session::is_tls(b) }", {"crate::tls::session::is_tls"}),
        ("use a::B; // use crate::c::D;", {"a::B"}),
        ("use a::B;\n#[cfg(test)]\nmod tests {\n    use crate::c::D;\n}", {"a::B"}),
    ],
)
def test_every_form_of_import_is_seen(source: str, found: set[str]) -> None:
    assert set(paths(source)) == found


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("crate::hub::peer::Peer", ("hub", "peer")),
        ("super::peer::Peer", ("hub", "peer")),
        ("super::Hub", ("hub",)),
        ("crate::hub::thread::Routing", None),
        ("std::io", None),
        ("child::Value", ("hub", "thread", "child")),
    ],
)
def test_a_path_leads_to_its_module(path: str, found: Module | None) -> None:
    modules = {("hub",), ("hub", "peer"), ("hub", "thread"), ("hub", "thread", "child")}
    assert target(("hub", "thread"), path, modules) == found


def test_a_circle_is_found() -> None:
    assert circle({("a",): {("b",)}, ("b",): {("c",)}, ("c",): {("b",)}}) == ["b", "c", "b"]
    assert circle({("a",): {("b",), ("c",)}, ("b",): {("c",)}, ("c",): set()}) == []


def test_every_folder_of_the_engine_has_its_layer() -> None:
    assert {module[0] for module in ENGINE if module} == set.union(*LAYERS)


@pytest.mark.parametrize("folder", sorted(set.union(*LAYERS)))
def test_a_folder_of_the_engine_imports_only_from_the_layers_below(folder: str) -> None:
    level = next(index for index, layer in enumerate(LAYERS) if folder in layer)
    below: set[str] = set().union(*LAYERS[:level])
    imported = {found[0] for module, all_found in ENGINE.items() if module[:1] == (folder,) for found in all_found}
    assert imported - {folder} <= below


@pytest.mark.parametrize("crate", sorted(CRATES))
def test_no_file_of_a_crate_imports_itself_through_others(crate: str) -> None:
    edges = arrows(CRATES[crate])
    if crate == "engine":
        children = {module for module in edges if module[:1] == ("reactor",) and len(module) > 1}
        edges = {
            module: found - ({("reactor",)} if module in children else children if module == ("reactor",) else set())
            for module, found in edges.items()
        }
    assert circle(edges) == []
