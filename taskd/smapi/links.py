"""``taskd-smapi --link`` and ``--unlink``: the folder of scripts in which xapi-storage-script looks for a plugin.

Its facts (xapi-project/xen-api, ocaml/xapi-storage-script/main.ml): a plugin is a folder in ``datapath`` or
``volume``; it is asked what it is in the moment that it appears there, and never again. So a new folder is filled
beside its place and then appears whole. Scripts are found in any case, so a file whose name differs in that alone
is one that ours would hide.

Only a link to a ``taskd-smapi`` is ours. Where one name is taken by what is not, nothing is made.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from taskd import __version__
from taskd.errors import TaskdError, Unproven
from taskd.smapi import METHODS, NAMES, PROGRAM

_NAMED: Final = {name.lower(): name for name in NAMES}


def run(args: list[str]) -> int:
    """Do what the command line of ``taskd-smapi`` says; the exit code: 0, 1 where it could not be done."""
    asked = _parser().parse_args(args)
    names = asked.names or list(NAMES)
    try:
        if asked.link is not None:
            # As it was called: a path that an upgrade leaves in place is better than what it leads to now.
            said = link(asked.link, names, Path(os.path.abspath(sys.argv[0])))
        else:
            said = unlink(asked.unlink, names)
    except TaskdError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{PROGRAM}: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    for what, which in said.items():
        print(f"{what}: {' '.join(which)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        PROGRAM,
        description="The scripts of a SMAPIv3 plugin. Called by one of their names it makes that call: "
        "--json, arguments on stdin.",
        allow_abbrev=False,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--link", metavar="DIR", type=Path, help="make the scripts in DIR, which may be new")
    what.add_argument("--unlink", metavar="DIR", type=Path, help="take them away, and DIR if it is empty then")
    what.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parser.add_argument("names", metavar="NAME", nargs="*", type=_name, help=f"of {', '.join(NAMES)}; else all")
    return parser


def _name(text: str) -> str:
    if text.lower() not in METHODS:
        raise argparse.ArgumentTypeError(f"there is no script {text}; there are {', '.join(NAMES)}")
    return _NAMED[text.lower()]


def link(folder: Path, names: Iterable[str], program: Path) -> dict[str, list[str]]:
    """Have a link to ``program`` under each of ``names`` in ``folder``; what was done, with which.

    Repeatable: a link that is there stays, one to another ``taskd-smapi`` is made anew.

    Raises:
        Unproven: a name is taken by what is not ours; nothing was made.
        OSError: the operating system says no; what was made is there.
    """
    if os.path.lexists(folder):
        return _fill(folder, names, program)
    part = folder.absolute().with_name(f".{folder.absolute().name}.part")
    part.mkdir(parents=True, exist_ok=True)
    done = _fill(part, names, program)
    part.rename(folder)
    return done


def _fill(folder: Path, names: Iterable[str], program: Path) -> dict[str, list[str]]:
    found = {name: list(_found(folder, name)) for name in names}
    for there in found.values():
        for path in there:
            if not ours(path):
                raise Unproven(str(path), f"it is no link to {PROGRAM}")
    done: dict[str, list[str]] = {}
    for name, there in found.items():
        for path in there or [folder / name]:
            if not there:
                path.symlink_to(program)
                what = "made"
            elif path.readlink() == program:
                what = "there already"
            else:
                _renew(path, program)
                what = "made anew"
            done.setdefault(what, []).append(path.name)
    return done


def _renew(path: Path, program: Path) -> None:
    """At no moment is there none."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(program)
    new.replace(path)


def unlink(folder: Path, names: Iterable[str]) -> dict[str, list[str]]:
    """Remove our links of these names, and ``folder`` if that leaves it empty; what was done, with which.

    Raises:
        OSError: the operating system says no.
    """
    done: dict[str, list[str]] = {}
    for name in names:
        for path in _found(folder, name):
            if ours(path):
                path.unlink()
            done.setdefault("left, not ours" if os.path.lexists(path) else "removed", []).append(path.name)
    if not any(folder.iterdir()):
        folder.rmdir()
    return done


def _found(folder: Path, name: str) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.name.lower() == name.lower())


def ours(path: Path) -> bool:
    """It is a link to a ``taskd-smapi``, there or not."""
    return path.is_symlink() and path.readlink().name == PROGRAM
