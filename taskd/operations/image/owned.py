"""Files that a task makes: how they come to be, take their place, and are taken away again.

The law, so that nothing of ours stays behind and nothing of a stranger's is touched, whenever the power fails:
first the name is journaled, then the file is created exclusively, then its mark (inode and generation) is
journaled, and only then is a byte written. So a step that knows no mark yet may find an empty file of ours at
that name and nothing else of ours; a step that has the mark removes what bears it, under whatever name.

That a file is not there proves that it is gone only in the folder that it was made in: that may have been moved,
and after a power cut its filesystem may not be mounted yet. So all that is done to a file is done in its folder,
which is open and has its mark (``paths``); and with the rights of the task, but for the files in the workspace,
which are the daemon's own.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from itertools import count

import attrs

from taskd.errors import TargetExists, Unproven
from taskd.model import JSON, Undo
from taskd.operations.image import Image, Target, acl, blaming, kernel, paths, refuse_other_kinds
from taskd.operations.image.paths import FOLDER, folder_of, opened, walk
from taskd.operations.image.work import in_own_thread, in_thread
from taskd.runner import rights
from taskd.runner.operation import Handle

# What names begin with that only a task's file has.
PREFIX = ".taskd-"

# Bytes on disk above which a file is closed behind the task's back.
_BIG = 16 << 20


@attrs.frozen
class Mark:
    """What tells one inode from every other.

    The kernel's file handle names inode and generation and outlives a reboot, which ``dev`` may not, and the
    reuse of an inode number, which is as quick as the next file. ``fs`` names the filesystem, where that has a
    name: the root of any other may have the same inode and generation. Where there are no handles, ``dev`` and
    ``ino`` have to do, and ``fs`` names the mount that they are numbers of.
    """

    dev: int
    ino: int
    handle: str | None = None
    fs: str | None = None

    def same(self, other: Mark | None) -> bool:
        if other is None or self.ino != other.ino or self.elsewhere(other):
            return False
        if self.handle is not None and other.handle is not None:
            return self.handle == other.handle
        return self.dev == other.dev

    def elsewhere(self, other: Mark) -> bool:
        """It is provably on another filesystem, or mount. A filesystem that may have no name has handles."""
        told = None not in (self.fs, other.fs) or (self.handle is None) != (other.handle is None)
        return told and self.fs != other.fs

    def json(self) -> dict[str, JSON]:
        return attrs.asdict(self)


def mark_of(fd: int) -> Mark:
    found = os.fstat(fd)
    handle = kernel.file_handle(fd)
    return Mark(
        found.st_dev, found.st_ino, handle, kernel.mount_name(fd) if handle is None else kernel.filesystem(fd)
    )


def mark_at(path: str) -> Mark | None:
    """The mark of what is at ``path``, links not followed; None for nothing."""
    with ExitStack() as files:
        try:
            return mark_in(*folder_of(path, files))
        except (FileNotFoundError, NotADirectoryError):
            return None


def mark_in(folder: int, name: str) -> Mark | None:
    """``mark_at``, in an open folder."""
    with ExitStack() as files:
        try:
            return mark_of(opened(name, os.O_PATH | os.O_NOFOLLOW, files, folder))
        except FileNotFoundError:
            return None


@attrs.frozen
class Owned:
    """A file that this task made, open for writing; ``home`` is the mark of its folder.

    ``verb`` removes it: "unlink" with the task's rights, "discard" with the daemon's own.
    """

    path: str
    fd: int
    mark: Mark
    home: Mark
    verb: str = "unlink"

    @property
    def undo(self) -> Undo:
        """The step that removes it."""
        return Undo(self.verb, {"path": self.path, "home": self.home.json(), "file": self.mark.json()})

    def removal(self, path: str) -> Undo:
        """The step that removes it from ``path`` in its folder, if it was given that name."""
        return Undo(self.verb, {**self.undo.args, "path": path, "part": os.path.basename(self.path)})

    def remove(self) -> None:
        remove(self.path, self.home, self.mark)

    def image(self, path: str) -> Image:
        """As the target of a transfer whose errors speak of ``path``."""
        return Image(path, self.fd, 0, os.fstat(self.fd))


async def make(handle: Handle, folder: str, name: str, files: ExitStack, *, verb: str = "unlink") -> Owned:
    """A new empty file in ``folder``, called ``name`` or, where that is taken, ``name.1`` …; see ``Owned.verb``.

    Raises:
        OsRefusal: it cannot be made; names ``folder``.
        Unproven: the folder was exchanged for another one.
    """
    hop = in_own_thread if verb == "discard" else in_thread
    for n in count():
        path = os.path.join(folder, f"{name}.{n}" if n else name)
        home = await hop(_vacant, path)
        if home is not None:
            await handle.journal(verb, path=path, home=home.json())
            owned = await hop(_create, path, home, files, verb)
            if owned is not None:
                await handle.journal(verb, **owned.undo.args)
                return owned
    raise AssertionError("unreachable")


def _vacant(path: str) -> Mark | None:
    """The mark of the folder; None if something is at ``path``, so that its name is never journaled."""
    with blaming(os.path.dirname(path)), ExitStack() as files:
        folder, name = folder_of(path, files)
        try:
            os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return mark_of(folder)
        return None


def _create(path: str, home: Mark, files: ExitStack, verb: str) -> Owned | None:
    with blaming(os.path.dirname(path)), ExitStack() as own:
        folder, name = _home(path, home, own)
        try:
            fd = opened(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, files, folder)
        except FileExistsError:
            return None
        return Owned(path, fd, mark_of(fd), home, verb)


def _home(path: str, home: Mark, files: ExitStack) -> tuple[int, str]:
    """``folder_of``, if that is still the folder with the mark ``home``.

    Raises:
        Unproven: it is another one.
    """
    folder, name = folder_of(path, files)
    if not home.same(mark_of(folder)):
        raise Unproven(os.path.dirname(path), "it is no longer the folder that the task began to write to")
    return folder, name


def settle(owned: Owned, owner: tuple[int, int] | None, mode: int, path: str, like: Image | None = None) -> None:
    """Owner, mode, content and name onto the disk, and the access list of ``like``. Errors speak of ``path``.

    Raises:
        Unproven: the folder was exchanged for another one.
    """
    with blaming(path), ExitStack() as files:
        found = os.fstat(owned.fd)
        if owner is not None and owner != (found.st_uid, found.st_gid):
            os.fchown(owned.fd, *owner)
        if like is not None:
            # Before the mode, whose group bits are the mask of a list and may be more than the group is to have.
            acl.carry(like.fd, owned.fd)
        os.fchmod(owned.fd, mode)
        os.fsync(owned.fd)
        folder, _ = _home(owned.path, owned.home, files)
        paths.sync(folder)


def publish(owned: Owned, target: str) -> None:
    """Give it the name ``target`` in its folder, which must be free.

    Raises:
        TargetExists: it is not, any more.
        Unproven: somebody has taken the file, or the folder, away.
    """
    with blaming(target), ExitStack() as files:
        folder, name = _home(owned.path, owned.home, files)
        if not owned.mark.same(mark_in(folder, name)):
            raise Unproven(owned.path, "it is no longer the file that this task made")
        try:
            kernel.rename_new(folder, name, os.path.basename(target))
        except FileExistsError:
            raise TargetExists(target) from None
        paths.sync(folder)


def replacement(owned: Owned, target: Target) -> Undo:
    """The finish step that puts it in the place of the target."""
    return Undo("replace", {"part": owned.path, "target": target.path, "file": owned.mark.json()})


async def replace(part: str, target: str, file: Mapping[str, JSON]) -> None:
    """Verb: rename the part file over the target. Done is done: repeated, it only syncs.

    Raises:
        Unproven: neither the part nor the target is the file that the task made.
        NotAnImage: something that is no regular file has come to be at the target.
        OsRefusal: the rename was refused.
    """
    await in_thread(_replace, part, target, read_mark(file))


def _replace(part: str, target: str, mark: Mark) -> None:
    with blaming(target), ExitStack() as files:
        folder, old = folder_of(part, files)
        new = os.path.basename(target)
        if mark.same(mark_in(folder, old)):
            try:
                found = os.stat(new, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                pass
            else:
                refuse_other_kinds(found, target)
                if stat.S_ISBLK(found.st_mode):
                    raise Unproven(target, "it has become a block device")
            os.rename(old, new, src_dir_fd=folder, dst_dir_fd=folder)
        elif not mark.same(mark_in(folder, new)):
            raise Unproven(target, f"its new content is gone from {part}")
        paths.sync(folder)


async def unlink(
    path: str, home: Mapping[str, JSON], file: Mapping[str, JSON] | None = None, part: str | None = None
) -> None:
    """Verb: remove a file that a task made, and make that durable; whatever else is there stays.

    Without ``file`` the task may have been stopped before it knew the mark: what an exclusive create leaves is
    an empty regular file of our user with no more than mode 0600, and only such a one is removed. ``part`` is the
    name that it had before it was to get this one.

    Raises:
        Unproven: the folder is not there, so whether the file still exists cannot be known; or, on a filesystem
            without handles, whether what is there is the file.
        OsRefusal: it cannot be removed.
    """
    await in_thread(remove, path, read_mark(home), None if file is None else read_mark(file), part)


async def discard(path: str, home: Mapping[str, JSON], file: Mapping[str, JSON] | None = None) -> None:
    """Verb: ``unlink`` in the workspace, where the files are the daemon's own."""
    await in_own_thread(remove, path, read_mark(home), None if file is None else read_mark(file))


def remove(path: str, home: Mark, mark: Mark | None, part: str | None = None) -> None:
    folder, name = os.path.split(path)
    with blaming(path), ExitStack() as files:
        at: int | None = None
        # Also where it may not be looked at: somebody has put a link to another folder in its place.
        with suppress(OSError):
            at = walk(folder, FOLDER, files)
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
            found = mark_of(fd)
            if mark.same(found) if mark is not None else _fresh(os.fstat(fd)):
                os.unlink(name, dir_fd=at)
            elif mark is not None and _doubtful(mark, found, at, part or name):
                raise Unproven(path, "whether it is the file that the task made cannot be told")
        # Also where it was gone: whoever removed it may have been stopped before the sync.
        paths.sync(at)


def _let_go(fd: int) -> None:
    """Close a file that was removed. The last close frees its blocks, a tenth of a second and more for each
    GiB; the removal is durable already, so with a big file nobody waits for that.
    """
    if os.fstat(fd).st_blocks * 512 > _BIG:
        with suppress(RuntimeError):  # how Python says that there is no thread to be had
            threading.Thread(target=os.close, args=(fd,), name="taskd lets go").start()
            return
    os.close(fd)


def _doubtful(mark: Mark, found: Mark, folder: int, part: str) -> bool:
    """Without handles the task's file may have another number by now: what is found is another one for sure only
    where the part still has its own name.
    """
    return None in (mark.handle, found.handle) and not mark.same(mark_in(folder, part))


def _fresh(found: os.stat_result) -> bool:
    mode = found.st_mode
    private = stat.S_ISREG(mode) and not stat.S_IMODE(mode) & ~0o600
    return private and found.st_size == 0 and found.st_nlink == 1 and found.st_uid == rights.uid()


def _moved(folder: str, home: Mark, files: ExitStack) -> int | None:
    """The folder is another or none: the one that it was, wherever it is now; None if it was removed.

    Raises:
        Unproven: it cannot be told whether it was moved or removed.
    """
    near, anchor = _nearest(folder, files)
    if os.fstat(anchor).st_dev != home.dev or home.elsewhere(mark_of(anchor)):
        raise Unproven(near, "the filesystem that the task wrote to is not mounted here")
    if home.handle is None:
        raise Unproven(folder, "it is no longer the folder that the task wrote to")
    try:
        # To open by a handle is root's alone. What is done in the folder then is again as the task may.
        with rights.own():
            mount = paths.reopened(anchor, os.O_RDONLY | os.O_DIRECTORY, files)
            return paths.closed_by(files, kernel.open_handle(mount, home.handle, FOLDER))
    except OSError as error:
        if error.errno == errno.ESTALE:
            return None
        raise Unproven(folder, "whether it was moved or removed cannot be told") from None


def _nearest(folder: str, files: ExitStack) -> tuple[str, int]:
    """The innermost folder on the way to ``folder`` that is there, and open.

    Raises:
        Unproven: there is none.
    """
    near = folder
    while True:
        try:
            return near, walk(near, FOLDER, files)
        except OSError:
            if near == "/":
                raise Unproven(folder, "nothing on the way to it is there") from None
            near = os.path.dirname(near)


def read_mark(args: Mapping[str, JSON]) -> Mark:
    """A mark as it was journaled."""
    dev, ino, handle, fs = args["dev"], args["ino"], args.get("handle"), args.get("fs")
    if (
        isinstance(dev, int)
        and isinstance(ino, int)
        and isinstance(handle, str | None)
        and isinstance(fs, str | None)
    ):
        return Mark(dev, ino, handle, fs)
    raise Unproven("journal", "it names no file")
