"""The three ways of a copy: a new file, a changed copy of the old one beside it, in place.

Each ends in its commit, and each is safe to be killed between any two system calls: what it made is named in
the journal before it is there, and the target is either not touched before the commit or named with its
pre-image. Right before it, it looks at the world once more.
"""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from typing import Final

import attrs

from taskd.errors import OsRefusal, TargetChanged, TargetExists
from taskd.model import JSON, Undo
from taskd.operations.image import (
    Image,
    Ranges,
    Target,
    acl,
    blaming,
    clipped,
    find_target,
    length_of,
    open_image,
    require_replaceable,
)
from taskd.operations.image.owned import PREFIX, Owned, make, publish, replacement, settle
from taskd.operations.image.paths import lstat, walk
from taskd.operations.image.preimage import open_in_place, save
from taskd.operations.image.transfer import Method, Transfer, Writeback, compare, pieces_of, put, put_sparse
from taskd.operations.image.work import Passes, descriptors, in_thread
from taskd.runner.operation import Handle

# The mode of a file made from a block device.
_PRIVATE: Final = 0o600

# After these answers, what cannot be built beside a file may still be written into it.
_NOT_BESIDE: Final = frozenset({"EACCES", "EPERM", "EROFS", "EBUSY", "ENOSPC", "EDQUOT"})


@attrs.frozen
class Copy:
    """What is to be done: ``ranges`` of the source, in bytes, to the same place in the target.

    ``path`` is the target as the caller named it, for errors.
    """

    handle: Handle
    passes: Passes
    source: Image
    target: Target
    ranges: Ranges
    path: str
    overwrite: bool
    verify: bool

    @property
    def end(self) -> int:
        """How many bytes the target has to hold."""
        return self.ranges[-1][1] if self.ranges else 0

    @property
    def part(self) -> str:
        return f"{PREFIX}{self.handle.id}.part"

    def expect(self, before: int = 0) -> None:
        """What all passes from here on will be: ``before``, the copy, and the verification."""
        passes = 2 if self.verify else 1
        self.passes.total = self.passes.done + before + passes * length_of(self.ranges)


async def anew(copy: Copy, files: ExitStack, *, whole: bool) -> None:
    """A file of the source's size that holds the ranges and nothing else, as a new target or in its place."""
    source, target, handle = copy.source, copy.target, copy.handle
    part = await make(handle, target.folder, copy.part, files)
    image = await in_thread(_sized, part, copy.path, source.size)
    copy.expect()
    transfer = _transfer(copy, image, onto_holes=True, whole=whole)
    await copy.passes.run(transfer)
    await in_thread(_settle, copy, part, target)
    await _verify(copy, image)
    await _last_look(copy)
    if target.stat is None and await _publish(copy, part):
        # It has its name; after the commit nothing is left to do, or to fail.
        await handle.commit(_result(copy, transfer, source.size, "new"))
    else:
        finish = await in_thread(_replacement, copy, part)
        await handle.commit(_result(copy, transfer, source.size, "replace"), [finish])


async def _publish(copy: Copy, part: Owned) -> bool:
    """Give the part the target's name. False if that was taken meanwhile and may be overwritten.

    Raises:
        TargetExists: it was taken meanwhile.
    """
    await copy.handle.journal("unlink", **part.removal(copy.target.path).args)
    try:
        await in_thread(publish, part, copy.target.path)
    except TargetExists:
        if not copy.overwrite:
            raise
        return False
    return True


def _sized(part: Owned, path: str, size: int) -> Image:
    with blaming(path):
        os.ftruncate(part.fd, size)
        return part.image(path)


def _settle(copy: Copy, part: Owned, target: Target) -> None:
    """With the mode of the source, and the owner of the file that it will replace."""
    old, mode = target.stat, copy.source.mode()
    if mode is None:
        mode = _PRIVATE if old is None else _mode_at(target.path)
    settle(part, None if old is None else (old.st_uid, old.st_gid), mode, copy.path)


def _mode_at(path: str) -> int:
    with blaming(path), ExitStack() as files:
        try:
            found = walk(path, os.O_NOFOLLOW, files)
        except FileNotFoundError:
            return _PRIVATE
        # What is open by O_PATH has no attributes of its own.
        return acl.mode_of(f"/proc/self/fd/{found}", os.fstat(found))


def _replacement(copy: Copy, part: Owned) -> Undo:
    """The finish step, if the target can still be replaced; it may have come to be, or gone, meanwhile."""
    target = find_target(copy.path, overwrite=True)
    if target.device or target.folder != os.path.dirname(part.path):
        raise TargetChanged(copy.path)
    if target.stat is not None:
        require_replaceable(target)
        _settle(copy, part, target)
    return replacement(part, target)


async def aside(copy: Copy) -> bool:
    """The ranges into a copy of the target that replaces it; its owner and mode stay.

    False if that cannot be; then nothing was changed and nothing is left.
    """
    target = copy.target
    assert target.stat is not None
    part: Owned | None = None
    reason = f"it has {target.stat.st_nlink} hard links"
    try:
        if target.stat.st_nlink == 1:
            await in_thread(require_replaceable, target)
            async with descriptors() as files:
                part = await make(copy.handle, target.folder, copy.part, files)
                await _build(copy, part, files)
                return True
    except OsRefusal as refusal:
        if refusal.path == copy.source.path or refusal.errno not in _NOT_BESIDE:
            raise
        reason = str(refusal)
    if part is not None:
        await in_thread(part.remove)
    await copy.handle.log(f"{copy.path} is written in place: {reason}")
    return False


async def _build(copy: Copy, part: Owned, files: ExitStack) -> None:
    old = await in_thread(_open_old, copy, files)
    image = await in_thread(_sized, part, copy.path, old.size)
    copy.expect(before=old.size)
    writeback = Writeback(image)
    pieces = pieces_of(((0, old.size),)) if old.size else ()
    clone = Transfer(old, image, pieces, Method.REFLINK, sparse=(old.fd,), writeback=writeback)
    await in_thread(_begin_within_room, clone, copy)
    await copy.passes.run(clone)
    transfer = _transfer(copy, image, onto_holes=False)
    await copy.passes.run(transfer)
    owner = (old.stat.st_uid, old.stat.st_gid)
    await in_thread(settle, part, owner, old.stat.st_mode & 0o7777, copy.path, old)
    await _verify(copy, image)
    await _last_look(copy)
    finish = await in_thread(_merged_replacement, copy, part, old)
    await copy.handle.commit(_result(copy, transfer, max(old.size, copy.end), "replace"), [finish])


def _open_old(copy: Copy, files: ExitStack) -> Image:
    with blaming(copy.path):
        return open_image(copy.target.path, os.O_RDONLY | os.O_NOFOLLOW, files)


def _begin_within_room(clone: Transfer, copy: Copy) -> None:
    """Do the first chunk, which tells whether the filesystem shares blocks; where not, ask for room for all."""
    if clone.unfinished:
        clone.advance()
    if clone.used is not Method.REFLINK:
        room = os.fstatvfs(clone.target.fd)
        if room.f_bavail * room.f_frsize < clone.source.stat.st_blocks * 512 + length_of(copy.ranges):
            raise OsRefusal.of(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), copy.path)


def _merged_replacement(copy: Copy, part: Owned, old: Image) -> Undo:
    """The finish step, unless somebody wrote to the target since it was cloned: that would be lost."""
    try:
        now = lstat(copy.target.path)
    except FileNotFoundError:
        raise TargetChanged(copy.path) from None
    if not os.path.samestat(now, old.stat) or old.touched or now.st_size != old.size:
        raise TargetChanged(copy.path)
    require_replaceable(copy.target)
    return replacement(part, copy.target)


async def in_place(copy: Copy, files: ExitStack) -> None:
    """Into the target itself, behind a pre-image of its old ranges in the workspace."""
    image = await in_thread(open_in_place, copy.target, files)
    copy.expect(before=length_of(clipped(copy.ranges, image.size)))
    saved = await save(copy.handle, image, copy.ranges, copy.passes, files)
    transfer = _transfer(copy, image, onto_holes=False)
    await copy.passes.run(transfer)
    await in_thread(image.sync)
    await _verify(copy, image)
    await _last_look(copy)
    size = await in_thread(image.measure)
    await copy.handle.commit(_result(copy, transfer, size, "in_place"), [saved.undo])


def _transfer(copy: Copy, image: Image, *, onto_holes: bool, whole: bool = False) -> Transfer:
    source = copy.source
    transfer = Transfer(source, image, pieces_of(copy.ranges), writeback=Writeback(image))
    if not (source.device or image.device):
        transfer.method = Method.REFLINK if whole else Method.KERNEL
    if onto_holes:
        transfer.sparse = (source.fd,)
        # A device has no holes to tell of; what of it is zeros need not be written.
        transfer.put = put_sparse if source.device else put
    return transfer


async def _verify(copy: Copy, image: Image) -> None:
    if copy.verify:
        await in_thread(os.posix_fadvise, image.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        transfer = Transfer(copy.source, image, pieces_of(copy.ranges), put=compare)
        transfer.sparse = (copy.source.fd, image.fd)
        await copy.passes.run(transfer)


async def _last_look(copy: Copy) -> None:
    """
    Raises:
        SourceChanged: its size is not what it was.
    """
    if await in_thread(_is_touched, copy.source):
        await copy.handle.log(f"{copy.source.path} was written to while it was copied")


def _is_touched(source: Image) -> bool:
    source.unchanged()
    return source.touched


def _result(copy: Copy, transfer: Transfer, size: int, way: str) -> JSON:
    """``bytes``: the size of the target; ``source_bytes``: how many of the source it was to hold, holes
    included; ``copied``: how many really moved.
    """
    return {
        "bytes": size,
        "source_bytes": length_of(copy.ranges),
        "copied": transfer.copied,
        "method": transfer.used.value,
        "way": way,
    }
