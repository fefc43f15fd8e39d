"""Writing in place, so that it can be taken back: the old ranges are on the disk before the first new byte.

The law: the pre-image is whole and synced, then one journal step names it, the target and the ranges, then the
target is written. The undo writes back where the target differs, and only to a target that is provably the
one that was saved; to any other it refuses, and the pre-image stays. The target is opened with the rights of the
task, then as later; the pre-image is the daemon's own.

The undo may have to be repeated when the pre-image is gone. On a full disk only its removal gives the store its
room back, so it is removed although the store could not note yet that the target is whole. That it is gone proves
nothing, for an admin in need of room may have removed it; that the target has the digest that was journaled does.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Final

from taskd.errors import Unproven
from taskd.model import JSON
from taskd.operations.image import Image, Ranges, Target, blaming, clipped, device, length_of, open_image
from taskd.operations.image.owned import Mark, Owned, make, mark_of, read_mark, settle
from taskd.operations.image.paths import walk
from taskd.operations.image.transfer import Digest, Piece, Transfer, Writeback, packed, put_changed, put_sparse
from taskd.operations.image.work import Passes, descriptors, in_own_thread, in_thread
from taskd.runner import rights
from taskd.runner.operation import Handle

_PRIVATE: Final = 0o600

# What of the room in the workspace's filesystem only an admin's pre-image takes: the last tenth. A store that
# cannot write is everybody's misfortune.
_SPARED: Final = 10


def open_in_place(target: Target, files: ExitStack) -> Image:
    """Open what is to be written in place.

    Raises:
        OsRefusal: EBUSY if a device is mounted or in exclusive use otherwise.
        Unproven: it was exchanged, or it is a device that nothing would tell from another after a crash.
    """
    with blaming(target.path):
        image = open_image(target.path, _flags(device=target.device), files)
        found = target.stat
        if found is None or (found.st_dev, found.st_ino) != (image.stat.st_dev, image.stat.st_ino):
            raise Unproven(target.path, "it was exchanged while it was opened")
        if rights.current() is not None and image.stat.st_mode & (stat.S_ISUID | stat.S_ISGID):
            # The kernel takes these bits off when it is written to, and the undo could not put them back.
            raise PermissionError(errno.EPERM, "it has a set-user-ID or set-group-ID bit")
        if image.device and not device.recognisable(device.identity(image)):
            raise Unproven(target.path, "nothing about it would be recognised after a crash")
    return image


def _flags(*, device: bool) -> int:
    # On a device O_EXCL asks for sole use: one that is mounted refuses.
    return os.O_RDWR | (os.O_EXCL if device else os.O_NOFOLLOW)


async def save(handle: Handle, target: Image, ranges: Ranges, passes: Passes, files: ExitStack) -> Owned:
    """Save the old ``ranges`` of the target and journal the step that puts them back.

    When this has returned, the target may be written.
    """
    owned = await make(handle, handle.workspace, f"{handle.id}.preimage", files, verb="discard")
    old = clipped(ranges, target.size)
    image = await in_thread(_sized, owned, length_of(old))
    digest = Digest()

    def put(image: Image, data: memoryview, at: int) -> None:
        digest.put(image, data, at)
        _require_room(image.fd, len(data))  # once more: others fill it, too
        put_sparse(image, data, at)

    transfer = Transfer(target, image, packed(old), put=put, sparse=_holes(target), writeback=Writeback(image))
    await passes.run(transfer)
    identity = await in_own_thread(_settle, owned, target)
    saved: JSON = [[start, end - start] for start, end in old]
    await handle.journal(
        "restore",
        preimage=owned.path,
        file=owned.mark.json(),
        target=target.path,
        identity=identity,
        size=target.size,
        ranges=saved,
        digest=digest.text(),
    )
    return owned


def _holes(image: Image) -> tuple[int, ...]:
    return () if image.device else (image.fd,)


def _sized(owned: Owned, size: int) -> Image:
    with blaming(owned.path):
        _require_room(owned.fd, size)
        os.ftruncate(owned.fd, size)
        return owned.image(owned.path)


def _require_room(fd: int, size: int) -> None:
    """
    Raises:
        OSError: ENOSPC, this task may not take so many bytes more.
    """
    if rights.current() is not None:
        room = os.fstatvfs(fd)
        if (room.f_bavail - room.f_blocks // _SPARED) * room.f_frsize < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _settle(owned: Owned, target: Image) -> Mapping[str, JSON]:
    settle(owned, None, _PRIVATE, owned.path)
    return device.identity(target) if target.device else mark_of(target.fd).json()


async def restore(
    *,
    preimage: str,
    file: Mapping[str, JSON],
    target: str,
    identity: Mapping[str, JSON],
    size: int,
    ranges: Sequence[Sequence[int]],
    digest: str | None = None,
) -> None:
    """Verb: write the old ranges back. Repeated, it finds them there and writes nothing; then it needs the
    pre-image no more, but for a journal of earlier days, which has no ``digest``.

    Raises:
        Unproven: the target, or the pre-image, is not provably the one of the task.
        OsRefusal: it could not be read or written; a device in use is EBUSY.
    """
    old = tuple((start, start + length) for start, length in ranges)
    async with descriptors() as files:
        saved = await in_own_thread(_open_preimage, preimage, read_mark(file), length_of(old), files)
        image = await in_thread(_open_again, target, identity, size, files)
        found = Digest()
        if saved is None:
            transfer = Transfer(image, image, packed(old), put=found.put, sparse=_holes(image))
        else:
            pieces = [Piece(each.target, each.source, each.length) for each in packed(old)]
            transfer = Transfer(saved, image, pieces, put=put_changed, writeback=Writeback(image))
        await Passes().run(transfer)
        await in_thread(image.sync)
        if saved is None and found.text() != digest:
            raise Unproven(preimage, f"it is gone, and {target} does not hold what was saved in it")


def _open_preimage(path: str, mark: Mark, size: int, files: ExitStack) -> Image | None:
    with blaming(path):
        try:
            image = open_image(path, os.O_RDONLY | os.O_NOFOLLOW, files)
        except FileNotFoundError:
            return None
        if not mark.same(mark_of(image.fd)) or image.size != size:
            raise Unproven(path, "it is not the pre-image that the task saved")
        return image


def _open_again(path: str, identity: Mapping[str, JSON], size: int, files: ExitStack) -> Image:
    with blaming(path), ExitStack() as own:
        is_device = stat.S_ISBLK(os.fstat(walk(path, 0, own)).st_mode)
        image = open_image(path, _flags(device=is_device), files)
        if image.device:
            proven = "rdev" in identity and device.same_device(identity, device.identity(image))
        else:
            proven = "ino" in identity and read_mark(identity).same(mark_of(image.fd))
        if not proven:
            raise Unproven(path, "it is not provably the one that the task wrote to")
        if not image.device:
            os.ftruncate(image.fd, size)
        # After a writeback that failed, the page cache holds as clean what the disk does not (fsync(2)): what is
        # compared with comes from the disk. What is dirty stays, and is for the sync at the end to answer for.
        os.posix_fadvise(image.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return image
