"""Telling block devices apart: is this the device that was written to before the crash?

A number such as 7:0 is reused by the next device that comes along, so it proves nothing. Within one boot the
kernel's disk sequence number does, which grows with every disk and most new media, together with what can be set
anew under it: where a partition or a loop device begins, who connected a network block device, which unit a
storage array shows. After a reboot only a name that the device brings along does: the world-wide id or serial
number of a disk, the uuid of a device mapper volume or an array, the backing file of a loop device. Whoever has
none of these is not recognised.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from typing import Final

from taskd.errors import OsRefusal
from taskd.model import JSON
from taskd.operations.image import Image
from taskd.operations.image.owned import mark_at
from taskd.operations.image.paths import opened
from taskd.runner import rights

_NAMES: Final = ("dm/uuid", "md/uuid", "wwid", "device/wwid", "serial", "device/serial")
_LOOP: Final = ("loop/offset", "loop/sizelimit")

# What is in the folder of an nbd device, the process that connected it, and in that of a zram device only.
_CONNECTED, _ZRAM = "pid", "initstate"

# linux/loop.h: the ioctl, and the bytes of its answer, ``struct loop_info64``.
_LOOP_GET_STATUS64: Final = 0x4C05
_LOOP_INFO64: Final = 232


def identity(image: Image) -> dict[str, JSON]:
    """What tells this device from every other, as a journal keeps it; told alike whoever asks."""
    with rights.own():
        return _identity(image)


def _identity(image: Image) -> dict[str, JSON]:
    rdev = image.stat.st_rdev
    node = _sysfs(rdev)
    partition = _read(node, "partition") is not None
    disk = os.path.dirname(node) if partition else node
    names = _names(disk)
    setup: dict[str, JSON] = {name: text for name in (*_NAMES, *_LOOP, _CONNECTED) if (text := _read(disk, name))}
    if partition:
        setup["start"] = _read(node, "start")
    if names and partition:
        names["start"] = setup["start"]
    return {
        "size": image.size,
        "rdev": rdev,
        "boot": _read("/proc/sys/kernel/random", "boot_id"),
        # One that is set up anew has the sequence number of before.
        "diskseq": None if _read(disk, _ZRAM) else _read(disk, "diskseq"),
        "setup": setup,
        "names": names,
    }


def _names(disk: str) -> dict[str, JSON]:
    """What the disk is known by again after a reboot, under whatever number; empty for by nothing."""
    names: dict[str, JSON] = {name: text for name in _NAMES if (text := _read(disk, name))}
    if backing := _read(disk, "loop/backing_file"):
        mark = mark_at(backing)
        if mark is not None:
            # The handle of the file, where there is one: a path alone may name another file by now.
            names |= {name: _read(disk, name) for name in _LOOP}
            names |= {
                "loop/backing_file": backing,
                "loop/inode": mark.handle or f"{mark.fs}:{mark.dev}:{mark.ino}",
            }
    return names


def recognisable(identity: Mapping[str, JSON]) -> bool:
    """It can be told from another device at all."""
    return bool(identity["diskseq"] or identity["names"])


def same_device(before: Mapping[str, JSON], now: Mapping[str, JSON]) -> bool:
    """They are provably one device, and nobody has changed its size."""
    if before["size"] != now["size"] or not recognisable(before):
        return False
    keys = ("boot", "diskseq", "rdev", "setup")
    # A journal of earlier days knows no setup.
    if before["diskseq"] and all(before.get(key, now[key]) == now[key] for key in keys):
        return True
    return bool(before["names"]) and before["names"] == now["names"]


def overlap(one: int, other: int) -> bool:
    """Two device numbers are the same device, or one is a partition of the other."""
    a, b = _sysfs(one), _sysfs(other)
    return one == other or os.path.dirname(a) == b or os.path.dirname(b) == a


def layers(found: os.stat_result) -> Iterator[str]:
    """What is changed when a file or device is written to, as keys: of a device the disk that it is, or is a
    partition of, and what it is known by again; beneath a loop device what it shows, and so on, down to a file.
    """
    dev, ino, rdev = found.st_dev, found.st_ino, found.st_rdev
    while rdev:
        node = _sysfs(rdev)
        disk = os.path.dirname(node) if _read(node, "partition") is not None else node
        yield f"disk {disk}"
        names: dict[str, JSON] = {}
        with suppress(OSError), rights.own():
            names = _names(disk)
        if names:  # it may come back under another number, and an undo would write to it there
            yield f"known by {sorted(names.items())}"
        shown = _shown(disk)
        if shown is None:
            return
        dev, ino, rdev = shown
    yield f"file {dev}:{ino}"


def _shown(disk: str) -> tuple[int, int, int] | None:
    """Of what a loop device shows, whatever its name is now: filesystem, inode, and number if it is a device."""
    with suppress(OSError), rights.own(), ExitStack() as files:
        if os.path.exists(f"{disk}/loop"):
            fd = opened(f"/dev/{os.path.basename(disk)}", os.O_RDONLY | os.O_NONBLOCK, files)
            dev, ino, rdev = struct.unpack_from("3Q", fcntl.ioctl(fd, _LOOP_GET_STATUS64, bytes(_LOOP_INFO64)))
            return dev, ino, rdev
    return None


def require_writable(image: Image) -> None:
    """Known before the old content is saved, and not after.

    Raises:
        OsRefusal: EROFS, the device is read-only.
    """
    if _read(_sysfs(image.stat.st_rdev), "ro") == "1":
        raise OsRefusal(image.path, "EROFS", "the device is read-only")


def _sysfs(rdev: int) -> str:
    return os.path.realpath(f"/sys/dev/block/{os.major(rdev)}:{os.minor(rdev)}")


def _read(folder: str, name: str) -> str | None:
    try:
        with open(os.path.join(folder, name), encoding="utf-8", errors="surrogateescape") as file:
            return file.read().strip()
    except OSError:
        return None
