"""Disks whose power can be cut: filesystems in image files, which are copied aside while a daemon works on them.

What such a file holds is what has reached the disk. Whatever was only written, and not yet synced, is in the
memory of the kernel and in no image, so a copy of the image is what a power cut at that moment leaves, byte for
byte what the filesystem leaves that is shut down without a flush of its log (``shut_down``, and a test of it).
But one run gives all of its moments, none of them ends it, and disks that are apart stop at the same one.

Nothing may get to the disk by chance, or a sync that is missing would not be missed: ext4 commits every five
seconds, and writes out what is renamed over a file; both are switched off here. The kernel writes what is dirty
for 30 seconds (vm.dirty_expire_centisecs): no run lasts so long.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import attrs

from tests.operations.conftest import let_go, output

# Seconds that a mount may be busy after all that used it was killed.
PATIENCE: Final = 10.0

TOOLS: Final = ("losetup", "mkfs.ext4", "mkfs.xfs")


@attrs.frozen
class Filesystem:
    """How it is made, in a file of ``size`` bytes, and the options that it is mounted with."""

    name: str
    make: Sequence[str]
    size: int
    options: str

    def __str__(self) -> str:
        return self.name


EXT4: Final = Filesystem(
    "ext4",
    ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"),
    32 << 20,
    "loop,commit=600,noauto_da_alloc",
)
# It takes no smaller a file; and those that are mounted together have one uuid, being copies.
XFS: Final = Filesystem("XFS", ("mkfs.xfs", "-q", "-f"), 300 << 20, "loop,nouuid")
# Where no blocks are shared, a copy is written: then its bytes are in memory alone until they are synced.
XFS_UNSHARED: Final = attrs.evolve(XFS, name="XFS without reflink", make=(*XFS.make, "-m", "reflink=0"))

FILESYSTEMS: Final = (EXT4, XFS, XFS_UNSHARED)

# xfs_fs.h: XFS_IOC_GOINGDOWN, which ext4 has as well, and XFS_FSOP_GOING_FLAGS_NOLOGFLUSH.
_SHUTDOWN: Final = 0x8004587D
_NOLOGFLUSH: Final = 2

# Bytes that two disks and the images that are kept of them take at most.
_ROOM: Final = 2 << 30

# In /sys/block/…/stat: how many sectors were written. A flush writes none.
_WRITTEN: Final = 6

_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def missing() -> str | None:
    """Why no disk can be had here; None if it can."""
    if os.geteuid() != 0:
        return "to mount takes root"
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"not here: {', '.join(lacking)}" if lacking else None


@attrs.frozen
class Disk:
    """A filesystem in ``image``, to be mounted on ``folder``."""

    filesystem: Filesystem
    image: Path
    folder: Path

    @contextmanager
    def mounted(self) -> Iterator[None]:
        output("mount", "-o", self.filesystem.options, self.image, self.folder)
        try:
            yield
        finally:
            _unmount(self.folder)
            let_go(self.image)

    @property
    def written(self) -> int:
        """Grows with all that gets to the disk, which is mounted."""
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
        node = next(node for node, folder, *_ in mounts if folder == str(self.folder))
        numbers = Path("/sys/block", Path(node).name, "stat").read_text().split()
        return int(numbers[_WRITTEN])

    def sync(self) -> None:
        """All that was written gets to the disk now (syncfs(2))."""
        with _opened(self.folder) as fd:
            if _LIBC.syncfs(fd) != 0:
                raise OSError(ctypes.get_errno(), "syncfs")

    def shut_down(self) -> None:
        """Nothing gets to the disk any more. It is still to be unmounted."""
        with _opened(self.folder) as fd:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NOLOGFLUSH))


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def disks(filesystem: Filesystem, *names: str) -> Iterator[Sequence[Disk]]:
    """New ones, for each name one; not mounted. With the context they are gone, whatever happens."""
    with tempfile.TemporaryDirectory(prefix="taskd-disks-", dir=_memory()) as folder:
        root = Path(folder)
        full, empty = root / "full", root / "empty"
        with open(full, "wb") as file:
            file.truncate(filesystem.size)
        output(*filesystem.make, full)
        copied(full, empty)
        full.unlink()
        made = []
        with ExitStack() as stack:
            for name in names:
                disk = Disk(filesystem, root / f"{name}.image", root / name)
                copied(empty, disk.image)
                disk.folder.mkdir()
                stack.callback(_let_go, disk)
                made.append(disk)
            yield made


def _memory() -> str | None:
    """A place in memory, if there is room in one: a sync takes no time there, and means the same."""
    place = "/dev/shm"
    return place if os.access(place, os.W_OK) and shutil.disk_usage(place).free > _ROOM else None


def copied(image: Path, to: Path) -> None:
    """The same content into ``to``, which stays the file that it is; zeros become holes."""
    output("cp", "--sparse=always", image, to)


def _unmount(folder: Path) -> None:
    """It is busy for a moment where a process that was killed is not all gone."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            output("umount", folder)
            return
        except subprocess.CalledProcessError:
            if time.monotonic() > end:
                raise
        time.sleep(0.05)


def _let_go(disk: Disk) -> None:
    """What somebody who failed has left mounted."""
    while os.path.ismount(disk.folder):
        with suppress(Exception):
            output("umount", disk.folder)
            continue
        output("umount", "--lazy", disk.folder)
