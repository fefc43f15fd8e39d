"""Files that a task makes: how they come to be, take their place, and are taken away again.

The law, so that nothing of ours stays behind and nothing of a stranger's is touched, whenever the power fails:
first the name is journaled, then the file is created exclusively, then its mark (inode and generation) is
journaled, and only then is a byte written. So a step that knows no mark yet may find an empty file of ours at
that name and nothing else of ours; a step that has the mark removes what bears it, under whatever name.

That a file is not there proves that it is gone only in the folder that it was made in: that may have been moved,
and after a power cut its filesystem may not be mounted yet.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from itertools import count

import attrs

from taskd.errors import TargetExists, Unproven
from taskd.model import JSON, Undo
from taskd.operations.image import Image, Target, blaming, kernel, opened, refuse_other_kinds
from taskd.operations.image.work import in_thread
from taskd.runner.operation import Handle

_FOLDER = os.O_RDONLY | os.O_DIRECTORY

# Bytes on disk above which a file is closed behind the task's back.
_BIG = 16 << 20


@attrs.frozen
class Mark:
    """What tells one inode from every other.

    The kernel's file handle names inode and generation and outlives a reboot, which ``dev`` may not, and the
    reuse of an inode number, which is as quick as the next file. Where a filesystem has none, ``dev`` and
    ``ino`` have to do.
    """

    dev: int
    ino: int
    handle: str | None = None

    def same(self, other: Mark | None) -> bool:
        if other is None or self.ino != other.ino:
            return False
        if self.handle is not None and other.handle is not None:
            return self.handle == other.handle
        return self.dev == other.dev

    def json(self) -> dict[str, JSON]:
        return attrs.asdict(self)


def mark_of(fd: int) -> Mark:
    found = os.fstat(fd)
    return Mark(found.st_dev, found.st_ino, kernel.file_handle(fd))


def mark_at(path: str) -> Mark | None:
    """The mark of what is at ``path``, links not followed; None for nothing."""
    with ExitStack() as files:
        try:
            return mark_of(opened(path, os.O_PATH | os.O_NOFOLLOW, files))
        except (FileNotFoundError, NotADirectoryError):
            return None


@attrs.frozen
class Owned:
    """A file that this task made, open for writing; ``home`` is the mark of its folder."""

    path: str
    fd: int
    mark: Mark
    home: Mark

    @property
    def undo(self) -> Undo:
        """The step that removes it."""
        return self.removal(self.path)

    def removal(self, path: str) -> Undo:
        """The step that removes it from ``path``, if it is there."""
        return Undo("unlink", {"path": path, "home": self.home.json(), "file": self.mark.json()})

    def remove(self) -> None:
        remove(self.path, self.home, self.mark)

    def image(self, path: str) -> Image:
        """As the target of a transfer whose errors speak of ``path``."""
        return Image(path, self.fd, 0, os.fstat(self.fd))


async def make(handle: Handle, folder: str, name: str, files: ExitStack) -> Owned:
    """A new empty file in ``folder``, called ``name`` or, where that is taken, ``name.1`` …

    Raises:
        OsRefusal: it cannot be made; names ``folder``.
    """
    for n in count():
        path = os.path.join(folder, f"{name}.{n}" if n else name)
        home = await in_thread(_vacant, path)
        if home is not None:
            await handle.journal("unlink", path=path, home=home.json())
            owned = await in_thread(_create, path, home, files)
            if owned is not None:
                await handle.journal("unlink", **owned.undo.args)
                return owned
    raise AssertionError("unreachable")


def _vacant(path: str) -> Mark | None:
    """The mark of the folder; None if something is at ``path``, so that its name is never journaled."""
    folder = os.path.dirname(path)
    with blaming(folder), ExitStack() as files:
        return None if os.path.lexists(path) else mark_of(opened(folder, _FOLDER, files))


def _create(path: str, home: Mark, files: ExitStack) -> Owned | None:
    with blaming(os.path.dirname(path)):
        try:
            fd = opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, files)
        except FileExistsError:
            return None
        return Owned(path, fd, mark_of(fd), home)


def settle(owned: Owned, owner: tuple[int, int] | None, mode: int, path: str) -> None:
    """Owner, mode, content and name onto the disk. Errors speak of ``path``."""
    with blaming(path):
        found = os.fstat(owned.fd)
        if owner is not None and owner != (found.st_uid, found.st_gid):
            os.fchown(owned.fd, *owner)
        os.fchmod(owned.fd, mode)
        os.fsync(owned.fd)
        sync_folder(os.path.dirname(owned.path))


def sync_folder(folder: str) -> None:
    with ExitStack() as files:
        _sync(opened(folder, _FOLDER, files))


def _sync(folder: int) -> None:
    try:
        os.fsync(folder)
    except OSError as error:
        # A folder of the kernel's own (/proc, /sys): nothing in it is on a disk.
        if error.errno != errno.EINVAL:
            raise


def publish(owned: Owned, target: str) -> None:
    """Give it the name ``target``, which must be free.

    Raises:
        TargetExists: it is not, any more.
        Unproven: somebody has taken the file away.
    """
    with blaming(target):
        if not owned.mark.same(mark_at(owned.path)):
            raise Unproven(owned.path, "it is no longer the file that this task made")
        try:
            kernel.rename_new(owned.path, target)
        except FileExistsError:
            raise TargetExists(target) from None
        sync_folder(os.path.dirname(target))


def replacement(owned: Owned, target: Target) -> Undo:
    """The finish step that puts it in the place of the target."""
    return Undo("replace", {"part": owned.path, "target": target.path, "file": owned.mark.json()})


async def replace(part: str, target: str, file: Mapping[str, JSON]) -> None:
    """Verb: rename the part file over the target. Done is done: repeated, it only syncs.

    Raises:
        Unproven: neither the part nor the target is the file that the task made.
        NotAnImage: something that is no regular file has come to be at the target.
        OSError: the rename was refused.
    """
    await in_thread(_replace, part, target, read_mark(file))


def _replace(part: str, target: str, mark: Mark) -> None:
    if mark.same(mark_at(part)):
        try:
            found = os.lstat(target)
        except FileNotFoundError:
            pass
        else:
            refuse_other_kinds(found, target)
            if stat.S_ISBLK(found.st_mode):
                raise Unproven(target, "it has become a block device")
        os.rename(part, target)
    elif not mark.same(mark_at(target)):
        raise Unproven(target, f"its new content is gone from {part}")
    sync_folder(os.path.dirname(target))


async def unlink(path: str, home: Mapping[str, JSON], file: Mapping[str, JSON] | None = None) -> None:
    """Verb: remove a file that a task made, and make that durable; whatever else is there stays.

    Without ``file`` the task may have been stopped before it knew the mark: what an exclusive create leaves is
    an empty regular file of our user with no more than mode 0600, and only such a one is removed.

    Raises:
        Unproven: the folder is not there, so whether the file still exists cannot be known.
    """
    await in_thread(remove, path, read_mark(home), None if file is None else read_mark(file))


def remove(path: str, home: Mark, mark: Mark | None) -> None:
    folder, name = os.path.split(path)
    with ExitStack() as files:
        try:
            at = opened(folder, _FOLDER, files)
        except (FileNotFoundError, NotADirectoryError):
            at = None
        if at is None or not home.same(mark_of(at)):
            at = _moved(folder, home, files)
        if at is None:
            return
        try:
            fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
        except FileNotFoundError:
            pass
        else:
            files.callback(_let_go, fd)
            if mark.same(mark_of(fd)) if mark is not None else _fresh(os.fstat(fd)):
                os.unlink(name, dir_fd=at)
        # Also where it was gone: whoever removed it may have been stopped before the sync.
        _sync(at)


def _let_go(fd: int) -> None:
    """Close a file that was removed. The last close frees its blocks, a tenth of a second and more for each
    GiB; the removal is durable already, so with a big file nobody waits for that.
    """
    if os.fstat(fd).st_blocks * 512 > _BIG:
        threading.Thread(target=os.close, args=(fd,), name="taskd lets go").start()
    else:
        os.close(fd)


def _fresh(found: os.stat_result) -> bool:
    mode = found.st_mode
    private = stat.S_ISREG(mode) and not stat.S_IMODE(mode) & ~0o600
    return private and found.st_size == 0 and found.st_nlink == 1 and found.st_uid == os.geteuid()


def _moved(folder: str, home: Mark, files: ExitStack) -> int | None:
    """The folder is another or none: the one that it was, wherever it is now; None if it was removed.

    Raises:
        Unproven: it cannot be told whether it was moved or removed.
    """
    near = folder
    while not os.path.isdir(near):
        near = os.path.dirname(near)
    if os.stat(near).st_dev != home.dev:
        raise Unproven(near, "the filesystem that the task wrote to is not mounted here")
    if home.handle is None:
        raise Unproven(folder, "it is no longer the folder that the task wrote to")
    try:
        fd = kernel.open_handle(opened(near, _FOLDER, files), home.handle, _FOLDER)
    except OSError as error:
        if error.errno == errno.ESTALE:
            return None
        raise Unproven(folder, "whether it was moved or removed cannot be told") from None
    files.callback(os.close, fd)
    return fd


def read_mark(args: Mapping[str, JSON]) -> Mark:
    """A mark as it was journaled."""
    dev, ino, handle = args["dev"], args["ino"], args.get("handle")
    if isinstance(dev, int) and isinstance(ino, int) and isinstance(handle, str | None):
        return Mark(dev, ino, handle)
    raise Unproven("journal", "it names no file")
