"""Disk images, as files and as block devices: what is at a path, and which ranges of it.

The law of looking: what is opened is what was looked at. What a path leads to is asked what it is first, because
opening the wrong kind of file has effects (a FIFO waits, a watchdog starts); that very file is opened then, and
only what it says is trusted. All functions block and belong into a worker thread (``work.in_thread``).

Next door: ``paths`` and how they are walked, ``ways`` of a copy, ``owned`` files that a task makes, ``preimage``
writing in place, ``transfer`` of bytes, ``work`` in threads, ``device`` telling devices apart, ``acl`` what a mode
does not say, ``kernel`` calls.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import attrs

from taskd.errors import (
    FolderMissing,
    NotAnImage,
    OsRefusal,
    SourceChanged,
    SourceMissing,
    TargetExists,
)
from taskd.operations.image import acl
from taskd.operations.image.paths import folder_of, lstat, real, reopened, walk
from taskd.runner import rights

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFLNK: "a dangling symlink",
}

# (offset, end) in bytes, in order, apart from one another.
Ranges = tuple[tuple[int, int], ...]


@contextmanager
def blaming(path: str) -> Iterator[None]:
    """An ``OSError`` inside becomes the ``OsRefusal`` of ``path``, the name that the caller knows."""
    try:
        yield
    except OSError as error:
        raise OsRefusal.of(OSError(error.errno, error.strerror), path) from error


@attrs.frozen
class Image:
    """An open image: a regular file or a block device of ``size`` bytes when it was opened."""

    path: str
    fd: int
    size: int
    stat: os.stat_result

    @property
    def device(self) -> bool:
        return stat.S_ISBLK(self.stat.st_mode)

    def mode(self) -> int | None:
        """The permission bits, for a file without a list; None for a device, whose bits are those of its node."""
        with blaming(self.path):
            return None if self.device else acl.mode_of(self.fd, self.stat)

    def measure(self) -> int:
        """Its size now."""
        with blaming(self.path):
            return os.lseek(self.fd, 0, os.SEEK_END)

    def sync(self) -> None:
        """What was written to it is on the disk."""
        with blaming(self.path):
            os.fsync(self.fd)

    def unchanged(self) -> None:
        """
        Raises:
            SourceChanged: the size is another now.
        """
        if (size := self.measure()) != self.size:
            raise SourceChanged(self.path, self.size, size)

    @property
    def touched(self) -> bool:
        """It was written to since it was opened, as far as its times tell."""
        return not self.device and os.fstat(self.fd).st_mtime_ns != self.stat.st_mtime_ns


def open_image(path: str, flags: int, files: ExitStack) -> Image:
    """
    Raises:
        NotAnImage: it is something else.
        OSError: it cannot be opened.
    """
    with ExitStack() as own:
        found = walk(path, flags & os.O_NOFOLLOW, own)
        kind = os.fstat(found)
        if stat.S_ISLNK(kind.st_mode):
            raise OSError(errno.ELOOP, "it is a symlink, and is not followed")
        refuse_other_kinds(kind, path)
        fd = reopened(found, flags | os.O_NONBLOCK, files)
    return Image(path, fd, os.lseek(fd, 0, os.SEEK_END), os.fstat(fd))


def open_source(path: str, files: ExitStack) -> Image:
    """
    Raises:
        SourceMissing, NotAnImage, OsRefusal.
    """
    try:
        with blaming(path):
            return open_image(path, os.O_RDONLY, files)
    except OsRefusal as error:
        if error.errno in ("ENOENT", "ENOTDIR"):
            raise SourceMissing(path) from None
        raise


def refuse_other_kinds(found: os.stat_result, path: str) -> None:
    """
    Raises:
        NotAnImage: neither a regular file nor a block device.
    """
    kind = stat.S_IFMT(found.st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFBLK):
        raise NotAnImage(path, _KINDS.get(kind, "something else"))


@attrs.frozen
class Target:
    """What is at the target's path: ``stat`` is None where nothing is.

    ``path`` is the one to act on: of a regular file behind a symlink the file's own, so that the link stays;
    of a device the one given, because a link such as ``/dev/disk/by-id/…`` outlives a renumbering.
    """

    path: str
    stat: os.stat_result | None = None

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path)

    @property
    def device(self) -> bool:
        return self.stat is not None and stat.S_ISBLK(self.stat.st_mode)


def find_target(path: str, *, overwrite: bool) -> Target:
    """Look where to write. Whether what exists may be overwritten is for the caller to say.

    Raises:
        TargetExists: a dangling symlink, and not ``overwrite``.
        FolderMissing, NotAnImage, OsRefusal.
    """
    with blaming(path), ExitStack() as files:
        try:
            folder, name = folder_of(path, files)
        except (FileNotFoundError, NotADirectoryError):
            raise FolderMissing(os.path.dirname(path)) from None
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            _require_writable(folder, os.path.dirname(path))
            return Target(path)
        where = real(path)
        if stat.S_ISLNK(found.st_mode):
            try:
                found = lstat(where)
            except FileNotFoundError:
                if not overwrite:
                    raise TargetExists(path) from None
            else:
                if stat.S_ISLNK(found.st_mode):
                    raise OSError(errno.ELOOP, "it is a symlink, and is not followed")
        refuse_other_kinds(found, path)
        return Target(path if stat.S_ISBLK(found.st_mode) else where, found)


def _require_writable(folder: int, path: str) -> None:
    """A courtesy: known now, and not after the first journaled step.

    Raises:
        OsRefusal: no file can be made in that open folder.
    """
    # Asked of the kernel as if it were done, with what this thread wears (faccessat2(2), AT_EACCESS).
    if not os.access(".", os.W_OK | os.X_OK, dir_fd=folder, effective_ids=True):
        readonly = os.fstatvfs(folder).f_flag & os.ST_RDONLY
        number = errno.EROFS if readonly else errno.EACCES
        raise OsRefusal.of(OSError(number, os.strerror(number)), path)


def require_replaceable(target: Target) -> None:
    """Prove, without an effect, that a rename over the target will be granted after the commit.

    An immutable file, a running program, a mount point and somebody else's file in a sticky folder are what a
    rename does not replace; writing must be allowed too, as if it were written to in place. What replaces it
    must be given its owner, which only an admin's task can do with a file of somebody else's.

    Raises:
        OsRefusal: it cannot be replaced.
    """
    assert target.stat is not None
    with ExitStack() as files:
        with blaming(target.folder):
            folder, _ = folder_of(target.path, files)
            _require_writable(folder, target.folder)
        with blaming(target.path):
            open_image(target.path, os.O_WRONLY | os.O_NOFOLLOW, files)
            if os.fsencode(target.path) in _mount_points():
                raise OSError(errno.EBUSY, "a mount point cannot be replaced")
            above = os.fstat(folder)
            if above.st_mode & stat.S_ISVTX and not _is_one_of(above.st_uid, target.stat.st_uid):
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            if not _may_give(target.stat):
                raise PermissionError(errno.EPERM, "what replaces it could not be given its owner and group")


def _is_one_of(*uids: int) -> bool:
    """This task acts as one of these users, or as root with all that root may."""
    return rights.uid() in uids or (rights.current() is None and os.geteuid() == 0)


def _may_give(found: os.stat_result) -> bool:
    """A file of this task's may be given that owner and group (chown(2))."""
    acting = rights.current()
    if acting is None:
        return True
    return found.st_uid == acting.uid and found.st_gid in (acting.gid, *acting.groups)


def _mount_points() -> Iterator[bytes]:
    with open("/proc/self/mountinfo", "rb") as lines:
        for line in lines:
            yield re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]), line.split()[4])


def merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """In order, without the empty ones, overlapping and adjacent ones made one."""
    result: list[tuple[int, int]] = []
    for start, end in sorted(each for each in ranges if each[0] < each[1]):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return tuple(result)


def clipped(ranges: Ranges, size: int) -> Ranges:
    """What of ``ranges`` lies below ``size``."""
    return tuple((start, min(end, size)) for start, end in ranges if start < size)


def length_of(ranges: Ranges) -> int:
    return sum(end - start for start, end in ranges)
