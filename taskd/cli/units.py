"""The files that make taskd a systemd unit: which there are, where they go, what is filled in for this machine.

They come with the package (``systemd/`` of a checkout, ``share/taskd/systemd`` of an installation) and are as they
stand for a taskd in /usr/bin. Filled in are where this taskd is, which folders it may write to and, where it is
installed in a home or in /tmp, that it may read there.

The law: what an admin changed is not written over. A unit is changed by drop-ins of the admin's own, the settings
in their file; that one is only made where there is none, and only removed where it is as it was made.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import taskd
from taskd.places import FILE

UNITS: Final = "etc/systemd/system"
DROP_INS: Final = f"{UNITS}/taskd.service.d"
SETTINGS: Final = FILE.lstrip("/")

# Where each file goes, below the prefix.
PLACES: Final = {
    "taskd.service": f"{UNITS}/taskd.service",
    "taskd.socket": f"{UNITS}/taskd.socket",
    "taskd.sysusers": "etc/sysusers.d/taskd.conf",
    "taskd.tmpfiles": "etc/tmpfiles.d/taskd.conf",
    "taskd.toml": SETTINGS,
}

# What is closed unless it is asked for, each by the drop-in of that name.
CLOSED: Final = ("devices", "network")

# Our drop-ins: those, and what is filled in.
FILLED: Final = tuple(f"{DROP_INS}/{name}.conf" for name in (*CLOSED, "roots", "homes"))

# That of the roots, and how a line of it begins.
ROOTS: Final = f"{DROP_INS}/roots.conf"
WRITABLE: Final = ("ReadWritePaths=", "BindPaths=")

# What ProtectHome= and PrivateTmp= hide.
HIDDEN: Final = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")


def shipped() -> Path:
    """The folder with the files as they stand.

    Raises:
        FileNotFoundError: this taskd was installed without them.
    """
    checkout = Path(taskd.__file__).parent.parent / "systemd"
    installed = Path(sysconfig.get_path("data")) / "share/taskd/systemd"
    for folder in (checkout, installed):
        if (folder / "taskd.service").is_file():
            return folder
    raise FileNotFoundError(2, "this taskd was installed without its units", str(installed))


def files(
    program: Sequence[str], roots: Iterable[str], allowed: Iterable[str], before: str = ""
) -> Mapping[str, str]:
    """The content of every file to be written, by its path below the prefix.

    ``program`` is the command that is the daemon, ``roots`` the absolute paths of folders that it may write to
    beside its own, and ``before`` the text of ``ROOTS`` as it is, whose roots stay; ``allowed`` is which of
    ``CLOSED`` are to be opened.
    """
    folder, roots = shipped(), tuple(roots)
    made = {place: (folder / name).read_text() for name, place in PLACES.items()}
    unit = made[PLACES["taskd.service"]]
    line = "ExecStart=/usr/bin/taskd\n"
    assert line in unit
    made[PLACES["taskd.service"]] = unit.replace(line, f"ExecStart={' '.join(map(quoted, program))}\n")
    made |= {f"{DROP_INS}/{name}.conf": (folder / f"{name}.conf").read_text() for name in allowed}
    if roots:
        lines = [line for line in before.splitlines() if line.startswith(WRITABLE)]
        made[ROOTS] = _drop_in("Folders that tasks may write to.", dict.fromkeys([*lines, *map(_writable, roots)]))
    homes = {path for path in _read_from(program) if hidden(path)}
    outermost = sorted(path for path in homes if homes.isdisjoint(map(str, Path(path).parents)))
    if outermost:
        made[f"{DROP_INS}/homes.conf"] = _drop_in(
            "Where taskd is installed.", (f"BindReadOnlyPaths={quoted(path)}" for path in outermost)
        )
    return made


def _drop_in(why: str, lines: Iterable[str]) -> str:
    return "\n".join([f"# Written by taskctl install-units. {why}", "[Service]", *lines, ""])


def _writable(root: str) -> str:
    """A root that is not there is no reason not to start."""
    return f"{'BindPaths' if hidden(root) else 'ReadWritePaths'}={quoted('-' + root)}"


def hidden(path: str) -> bool:
    """The service would not see it: it is in a home, or in a /tmp that is not the service's own."""
    return any(Path(each).is_relative_to(top) for top in HIDDEN for each in (path, os.path.realpath(path)))


def quoted(word: str) -> str:
    """A word of a unit's line: systemd.syntax(7), and no specifier (systemd.unit(5))."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{word}"' if any(char.isspace() for char in word) or '"' in word else word


def program() -> Sequence[str]:
    """The command that is the daemon of this very taskctl."""
    scripts = (Path(sys.argv[0]).resolve().parent, Path(sysconfig.get_path("scripts")))
    for found in (folder / "taskd" for folder in scripts):
        if found.is_file() and os.access(found, os.X_OK):
            return [str(found)]
    return [sys.executable, "-m", "taskd"]


def _read_from(program: Sequence[str]) -> Iterator[str]:
    """The folders that the daemon is read from."""
    yield os.path.dirname(program[0])
    yield str(Path(taskd.__file__).parent.parent)
    for path in (sys.prefix, sys.base_prefix):
        yield path
        yield os.path.realpath(path)
