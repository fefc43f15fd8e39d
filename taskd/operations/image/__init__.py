"""Disk images, as files and as block devices: what is at a path, and which ranges of it.

The law of looking: what is opened is what was looked at. A path is asked what it is first, because opening the
wrong kind of file has effects (a FIFO waits, a watchdog starts); the open file is then asked again, and only
what that one says is trusted. All functions block and belong into a worker thread (``work.in_thread``).

Next door: ``ways`` of a copy, ``owned`` files that a task makes, ``preimage`` writing in place, ``transfer`` of
bytes, ``work`` in threads, ``device`` telling devices apart, ``kernel`` calls.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import attrs

from taskd.errors import (
    FolderMissing,
    NotAnImage,
    OsRefusal,
    SourceChanged,
    SourceMissing,
    TargetExists,
)

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


def opened(path: str, flags: int, files: ExitStack) -> int:
    """A descriptor that ``files`` closes."""
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY, 0o600)
    files.callback(_close, fd)
    return fd


def _close(fd: int) -> None:
    # What close could still report, the fsync before it has reported already.
    with suppress(OSError):
        os.close(fd)


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

    @property
    def mode(self) -> int | None:
        """The permission bits; None for a device, whose bits are those of its node."""
        return None if self.device else self.stat.st_mode & 0o777

    def measure(self) -> int:
        """Its size now."""
        with blaming(self.path):
            return os.lseek(self.fd, 0, os.SEEK_END)

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
    """Open what ``os.stat`` was asked about before.

    Raises:
        NotAnImage: it has turned into something else.
        OSError: it cannot be opened.
    """
    fd = opened(path, flags | os.O_NONBLOCK, files)
    found = os.fstat(fd)
    refuse_other_kinds(found, path)
    return Image(path, fd, os.lseek(fd, 0, os.SEEK_END), found)


def open_source(path: str, files: ExitStack) -> Image:
    """
    Raises:
        SourceMissing, NotAnImage, OsRefusal.
    """
    try:
        with blaming(path):
            refuse_other_kinds(os.stat(path), path)
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
    with blaming(path):
        try:
            found = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return _absent(path)
        if stat.S_ISLNK(found.st_mode):
            try:
                found = os.stat(path)
            except FileNotFoundError:
                if not overwrite:
                    raise TargetExists(path) from None
        refuse_other_kinds(found, path)
        return Target(path if stat.S_ISBLK(found.st_mode) else os.path.realpath(path), found)


def _absent(path: str) -> Target:
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        raise FolderMissing(folder)
    require_writable(folder)
    return Target(path)


def require_writable(folder: str) -> None:
    """
    Raises:
        OsRefusal: no file can be made in that folder.
    """
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        readonly = os.statvfs(folder).f_flag & os.ST_RDONLY
        number = errno.EROFS if readonly else errno.EACCES
        raise OsRefusal.of(OSError(number, os.strerror(number)), folder)


def require_replaceable(target: Target) -> None:
    """Prove, without an effect, that a rename over the target will be granted after the commit.

    An immutable file, a running program, a mount point and somebody else's file in a sticky folder are what a
    rename does not replace; writing must be allowed too, as if it were written to in place.

    Raises:
        OsRefusal: it cannot be replaced.
    """
    assert target.stat is not None
    require_writable(target.folder)
    with blaming(target.path):
        os.close(os.open(target.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
        if os.fsencode(target.path) in _mount_points():
            raise OSError(errno.EBUSY, "a mount point cannot be replaced")
        folder, euid = os.stat(target.folder), os.geteuid()
        if folder.st_mode & stat.S_ISVTX and euid not in (0, folder.st_uid, target.stat.st_uid):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


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
