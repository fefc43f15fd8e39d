"""``digest``: write the SHA-256 of an image beside it, as ``IMAGE.sha256``, a new file.

The digest is written to a part file and published by a hard link, in one step and never over another file.
So until the commit the part file is there whenever the published one is, and proves which of them is ours.
The part file's name holds the task's id, which is unique for ever: what has this name, this task made.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import ClassVar

import attrs

from taskd.errors import BadParams, NotAnImage, OsRefusal, PathRefusal, SourceMissing
from taskd.model import JSON, Undo
from taskd.operations import Handle, Operation, in_thread

# Bytes between two looks for a cancel: some ten milliseconds of work.
CHUNK = 4 * 1024 * 1024


@attrs.define(auto_exc=True)
class DigestExists(PathRefusal):
    """An error of our own: a stable name, and a sentence over the fields."""

    name: ClassVar[str] = "Digest_exists"
    sentence: ClassVar[str] = "{path} exists; remove it first"


@attrs.frozen
class DigestParams:
    """Params of ``digest``."""

    image: str = attrs.field(metadata={"doc": "absolute path of a regular file"})

    @property
    def target(self) -> str:
        return self.image + ".sha256"


def check(params: DigestParams) -> None:
    """Refuse what is known to be impossible, before a task is made. Runs in a thread."""
    if not params.image.startswith("/") or "\0" in params.image:
        raise BadParams("params.image", "must be an absolute path without NUL")
    try:
        mode = os.stat(params.image).st_mode
    except FileNotFoundError:
        raise SourceMissing(params.image) from None
    except OSError as error:
        raise OsRefusal.of(error, params.image) from None
    if not stat.S_ISREG(mode):
        raise NotAnImage(params.image, "no regular file")
    if os.path.lexists(params.target):
        raise DigestExists(params.target)


async def run(params: DigestParams, handle: Handle) -> JSON:
    """The work. A cancel is raised at any await; what was journaled until then is undone."""
    await in_thread(check, params)  # again: the world has moved on
    digest = await _read(params.image, handle)
    folder, name = os.path.split(params.image)
    part = os.path.join(folder, f".taskd-{handle.id}.part")
    await handle.journal("retract", part=part, target=params.target)
    await in_thread(_publish, part, params.target, f"{digest}  {name}\n")
    await handle.commit({"sha256": digest}, finish=[Undo("discard", {"part": part})])
    return None  # committed already; else this would be the result


async def _read(image: str, handle: Handle) -> str:
    digest = hashlib.sha256()
    file = await in_thread(open, image, "rb")

    def read_on() -> int:
        chunk = file.read(CHUNK)
        digest.update(chunk)
        return len(chunk)

    with file:
        done, total = 0, os.fstat(file.fileno()).st_size
        while size := await in_thread(read_on):
            done += size
            handle.progress(done, total)
    return digest.hexdigest()


def _publish(part: str, target: str, content: str) -> None:
    with open(part, "x") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(part, target)
    except FileExistsError:
        raise DigestExists(target) from None
    _sync_folder(part)


async def retract(part: str, target: str) -> None:
    """Undo: remove the published file if it is the part file, then that."""
    await in_thread(_retract, part, target)


def _retract(part: str, target: str) -> None:
    try:
        ours = os.lstat(part)
        if os.path.samestat(ours, os.lstat(target)):
            os.unlink(target)
    except FileNotFoundError:
        pass
    _discard(part)


async def discard(part: str) -> None:
    """Finish: the part file has served."""
    await in_thread(_discard, part)


def _discard(part: str) -> None:
    try:
        os.unlink(part)
    except FileNotFoundError:
        pass
    _sync_folder(part)


def _sync_folder(path: str) -> None:
    """What was made or removed there stays so after a power cut."""
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# Only admins start it, for it says no roles. With others it would have to walk paths as ``image.paths`` does, and
# not as ``open``: through /proc, they would get at what the daemon has open.
OPERATION = Operation(
    name="digest",
    summary="Write the SHA-256 of an image beside it",
    params=DigestParams,
    run=run,
    verbs={"retract": retract, "discard": discard},
    check=check,
    restartable=True,  # undone, it leaves no trace: after a crash it may simply start again
    label=lambda params: f"digest of {os.path.basename(params.image)}",
)
