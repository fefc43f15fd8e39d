"""Who may import whom: the table of design.md section 3, walked over every import of the package.

Arrows point down only. A room is a module or a package; a package's own files may import one another.
"""

from __future__ import annotations

import ast
import statistics
from pathlib import Path

import pytest

import taskd

PACKAGE = Path(taskd.__file__).parent

EVERYTHING = {
    "errors", "states", "model", "codec", "store", "registry", "runner", "operations", "access", "service",
    "dialects", "rpc", "web", "wire", "connection", "places", "config", "systemd", "listener", "reload", "peer",
    "clock", "logs", "metrics", "server", "client", "asking", "cli", "smapi",
}  # fmt: skip

# `taskd.__version__` may be imported by everybody; the tests are not part of the house.
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "states": {"errors"},
    "model": {"errors", "states"},
    "codec": {"model", "states", "errors"},
    "store": {"model", "states", "errors", "codec"},
    "registry": {"model", "states", "errors"},
    # The lines that an operation logs are about its task, and only who runs it knows which that is.
    "runner": {"model", "states", "errors", "registry", "store", "logs"},
    "operations": {"model", "errors", "runner"},
    "access": {"model", "errors"},
    "service": {
        "errors", "states", "model", "codec", "store", "registry", "runner", "operations", "access", "metrics",
    },
    "dialects": {"states", "model", "errors", "codec", "service", "operations"},
    # XML has a type for dates where JSON has a string: `model.DateTime` tells them apart.
    "rpc": {"errors", "model"},
    # Calls are counted where they are told apart, and every answer to one passes by here.
    "web": {"wire", "rpc", "dialects", "service", "model", "errors", "metrics"},
    "wire": {"errors"},
    "connection": {"wire", "rpc", "web", "dialects", "service", "model", "errors", "metrics"},
    # What is where by default, for those who start too often to pay for all the settings.
    "places": set(),
    "config": {"places", "errors"},
    "systemd": {"errors"},
    # Where connections come in is systemd's socket or our own; nothing above needs to know which.
    "listener": {"systemd", "errors"},
    # How lines are told to the journal is systemd's word.
    "logs": {"systemd"},
    # Numbers about our nouns. Registry and store count nothing themselves: they are given whom to tell.
    "metrics": {"model", "states", "errors"},
    "reload": {"config", "systemd", "errors"},
    # The kernel's word on who is on a socket, before anything of ours has to do with it.
    "peer": set(),
    # It says that the machine's clock was set; times themselves are the model's.
    "clock": set(),
    "server": EVERYTHING - {"server", "client", "asking", "cli", "smapi"},
    "client": {"wire", "model", "states", "codec", "errors"},
    # The least that asks a daemon, for programs that start for every call; a refusal is read as a client does.
    "asking": {"client", "model", "errors"},
    "cli": {"client", "asking", "model", "states", "errors", "places", "config"},
    # The script that a toolstack starts for every call: of these, all but `places` and `asking` is imported
    # where a call has failed.
    "smapi": {"client", "asking", "model", "errors", "places"},
    "__init__": set(),
    "__main__": {"server"},
}  # fmt: skip

LONGEST = 400
MEDIAN = 150


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """The rooms that a module imports from, late imports included."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            rooms |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("taskd.")}
        elif isinstance(node, ast.ImportFrom) and node.module == "taskd":
            rooms |= {alias.name for alias in node.names} - {"__version__"}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("taskd."):
            assert node.module is not None
            rooms.add(node.module.split(".")[1])
    return rooms - {room_of(path)}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_what_the_table_allows(path: Path) -> None:
    assert imported_rooms(path) <= ROOMS[room_of(path)]


def test_no_file_imports_by_a_relative_name() -> None:
    """The walk above would not see it."""
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.level), path


@pytest.mark.parametrize(
    "room", ["wire", "rpc", "codec", "errors", "states", "model", "access", "config", "peer", "logs", "metrics"]
)
def test_what_needs_no_event_loop_knows_none(room: str) -> None:
    """``rpc`` runs batches in a nursery; everything else here is plain."""
    for path in modules():
        if room_of(path) == room and room != "rpc":
            assert "import trio" not in path.read_text(), path


def test_no_module_is_too_long_to_read() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in modules()}

    assert {path: length for path, length in lengths.items() if length > LONGEST} == {}
    assert statistics.median(lengths.values()) < MEDIAN


def test_the_top_level_is_as_designed() -> None:
    designed = {
        "setup.cfg", "pyproject.toml", "taskd", "tests", "examples", "systemd", "README.rst", "LICENSE",
        ".gitignore", ".ci", ".git",
    }  # fmt: skip
    ignored = {
        ".venv",
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
        ".hypothesis",
        "taskd.egg-info",
        "build",
    }

    found = {path.name for path in PACKAGE.parent.iterdir()} - ignored

    assert found <= designed
