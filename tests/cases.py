"""The operations that the sweeps hold to the promise: for each, how its world is made and photographed.

A new operation is a row in ``CASES``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from taskd.model import JSON, Caller, Undo
from taskd.operations import Handle, Operation, command, copy
from tests.bench import ROOT, user

Photo = Mapping[str, tuple[str, int, bytes]]

CHUNK = 64 * 1024


def photograph(folder: Path) -> Photo:
    """Everything below ``folder``: kind, permissions and content of each path."""
    photo: dict[str, tuple[str, int, bytes]] = {}
    for path in sorted(folder.rglob("*")):
        stat = path.lstat()
        kind = "link" if path.is_symlink() else "folder" if path.is_dir() else "file"
        content = os.readlink(path).encode() if kind == "link" else b""
        if kind == "file":
            content = path.read_bytes()
        photo[str(path.relative_to(folder))] = (kind, stat.st_mode & 0o7777, content)
    return photo


@attrs.frozen
class Case:
    """An operation, and ``prepare``, which fills an empty folder and says the params for it."""

    name: str
    operation: Operation
    prepare: Callable[[Path], Mapping[str, JSON]]
    caller: Caller = ROOT

    def __str__(self) -> str:
        return self.name


# A toy whose world is easy to see through: a folder with a file in it, built aside and published by its finish.


@attrs.frozen
class BuildParams:
    folder: str


async def _build(params: BuildParams, handle: Handle) -> JSON:
    aside, inside = f"{params.folder}/{handle.id}", f"{params.folder}/{handle.id}/inside"
    await handle.journal("rmdir", path=aside)
    os.mkdir(aside)
    await handle.journal("unlink", path=inside)
    Path(inside).write_bytes(b"new")
    handle.progress(1, 2, "steps")
    await handle.log("built")
    finish = [Undo("publish", {"aside": aside, "target": f"{params.folder}/built"})]
    await handle.commit({"built": True}, finish)
    return None


async def _rmdir(path: str) -> None:
    if os.path.isdir(path):
        os.rmdir(path)


async def _unlink(path: str) -> None:
    Path(path).unlink(missing_ok=True)


async def _publish(aside: str, target: str) -> None:
    if os.path.isdir(aside):
        os.rename(aside, target)


BUILD = Operation(
    name="build",
    summary="Build a folder aside and publish it",
    params=BuildParams,
    run=_build,
    verbs={"rmdir": _rmdir, "unlink": _unlink, "publish": _publish},
)


def _nothing(folder: Path) -> Mapping[str, JSON]:
    return {"folder": str(folder)}


def _image(path: Path, seed: int, blocks: int = 3) -> str:
    path.write_bytes(b"".join(bytes([seed + i]) * CHUNK for i in range(blocks)) + b"tail")
    path.chmod(0o640)
    return str(path)


def _copy_new(folder: Path) -> Mapping[str, JSON]:
    return {"source": _image(folder / "source", 1), "target": str(folder / "target"), "verify": True}


def _copy_over(folder: Path) -> Mapping[str, JSON]:
    source, target = _image(folder / "source", 1), _image(folder / "target", 100, 5)
    return {"source": source, "target": target, "overwrite": True}


def _copy_blocks(folder: Path) -> Mapping[str, JSON]:
    blocks = {"blocksize": CHUNK, "ranges": [[0, 1], [2, 1]]}
    return {**_copy_over(folder), "blocks": blocks}


def _copy_blocks_in_place(folder: Path) -> Mapping[str, JSON]:
    """A second name for the target forbids to replace it: its blocks are saved and written in place."""
    params = _copy_blocks(folder)
    os.link(folder / "target", folder / "second name")
    return params


# One of whom the tables of this machine know nothing.
USER = user("60001", 60001)


def _copy_by_a_user(folder: Path) -> Mapping[str, JSON]:
    """Only its pre-image, in the workspace, is the daemon's."""
    params = _copy_blocks_in_place(folder)
    for path in (folder, *folder.iterdir()):
        os.chown(path, USER.uid or 0, USER.gid or 0)
    return params


SCRIPT = "echo begun; echo new > made; echo 'progress 0.5' >&3; mv made target; echo done"


def _command(folder: Path) -> Mapping[str, JSON]:
    return {
        "argv": ["/bin/sh", "-c", SCRIPT],
        "undo_argv": ["/bin/rm", "-f", "made", "target"],
        "cwd": str(folder),
    }


CASES = (
    Case("build", BUILD, _nothing),
    Case("copy to a new file", copy.OPERATION, _copy_new),
    Case("copy over a file", copy.OPERATION, _copy_over),
    Case("copy blocks aside", copy.OPERATION, _copy_blocks),
    Case("copy blocks in place", copy.OPERATION, _copy_blocks_in_place),
    Case("copy blocks in place by a user", copy.OPERATION, _copy_by_a_user, USER),
    Case("command with an undo", command.OPERATION, _command),
)


def empty(folder: Path) -> Path:
    """``folder``, new and empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
