"""The system calls of Linux that Python does not wrap.

Each does one call, in whatever thread it is called from, and raises ``OSError`` as Python's own do. Nothing in
here knows of tasks. Offsets and lengths are bytes.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from contextlib import suppress
from typing import Final

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_PATH, _OFFSET = ctypes.c_char_p, ctypes.c_int64
_LIBC.renameat2.argtypes = (ctypes.c_int, _PATH, ctypes.c_int, _PATH, ctypes.c_uint)
_LIBC.sync_file_range.argtypes = (ctypes.c_int, _OFFSET, _OFFSET, ctypes.c_uint)
_LIBC.open_by_handle_at.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
_LIBC.name_to_handle_at.argtypes = (ctypes.c_int, _PATH, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)

_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_RENAME_NOREPLACE: Final = 1
_FICLONERANGE: Final = 0x4020940D

# openat2(2). The newer system calls have the same number on every machine (but one, which is a museum's).
_OPENAT2: Final = 437
NO_MAGICLINKS, NO_SYMLINKS, BENEATH = 0x02, 0x04, 0x08

# How often a walk is begun again because somebody renames folders on its way.
_WALKS: Final = 100

# statfs(2): PROC_SUPER_MAGIC, FUSE_SUPER_MAGIC, MSDOS_SUPER_MAGIC (vfat, too).
_PROC, _FUSE, _FAT = 0x9FA0, 0x65735546, 0x4D44
_STATFS_SIZE: Final = 256

# EXT4_SUPER_MAGIC, BTRFS_SUPER_MAGIC: their f_fsid is made of a uuid on the disk. XFS_SUPER_MAGIC: of the device's
# number, which a reboot may change, but FS_IOC_GETFSUUID (Linux 6.9) tells the uuid.
_NAMED: Final = frozenset({0xEF53, 0x9123683E})
_XFS, _GETFSUUID = 0x58465342, 0x80111500
_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4
_MAX_HANDLE: Final = 128


class _FileHandle(ctypes.Structure):
    _fields_ = (
        ("bytes", ctypes.c_uint),
        ("type", ctypes.c_int),
        ("opaque", ctypes.c_ubyte * _MAX_HANDLE),
    )


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def open_resolved(path: str, flags: int, resolve: int, at: int = _AT_FDCWD) -> int:
    """Open what exists, and walk to it only as ``resolve`` allows: NO_MAGICLINKS, NO_SYMLINKS, BENEATH ``at``.

    Raises:
        OSError: EXDEV for a way out of ``at``, ELOOP for a link that is not followed.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    error: OSError | None = None
    for _ in range(_WALKS):
        fd = int(_LIBC.syscall(_OPENAT2, at, os.fsencode(path), ctypes.byref(how), size))
        if fd >= 0:
            return fd
        error = _last_error()
        if not (error.errno == errno.EAGAIN and resolve & BENEATH):
            break
    assert error is not None
    raise error


def is_of_the_kernel(fd: int) -> bool:
    """It is in /proc, where a name may mean something else to each process that says it."""
    return _kind(fd) == _PROC


def _kind(fd: int) -> int:
    found = ctypes.create_string_buffer(_STATFS_SIZE)
    if _LIBC.fstatfs(fd, found) != 0:
        raise _last_error()
    return ctypes.c_long.from_buffer(found).value & 0xFFFFFFFF


def filesystem(fd: int) -> str | None:
    """What names the filesystem of a folder, or file, also after a reboot; None where there is no such."""
    kind = _kind(fd)
    if kind in _NAMED:
        return f"{kind:x}:{os.fstatvfs(fd).f_fsid:x}"
    if kind == _XFS:
        with suppress(OSError):  # of a file, whose opening might be noticed, it is not asked
            folder = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                length, *uuid = fcntl.ioctl(folder, _GETFSUUID, bytes(17))
            finally:
                os.close(folder)
            return f"{kind:x}:{bytes(uuid[:length]).hex()}"
    return None


def mount_name(fd: int) -> str:
    """What names the mount that a file, or folder, is on until the next reboot, for a filesystem without handles.

    The next mount of FUSE has the device number of the last one, and inodes with the same numbers: the moment at
    which it was connected tells, and of a disk its sequence number. Where the kernel shows neither (overlayfs; or
    fusectl is not mounted), the boot has to do.
    """
    device = os.fstat(fd).st_dev
    major, minor = os.major(device), os.minor(device)
    with open("/proc/sys/kernel/random/boot_id", "rb") as file:
        name = file.read().strip().decode()
    with suppress(OSError):
        name += f":{os.stat(f'/sys/fs/fuse/connections/{major << 20 | minor}').st_ctime_ns}"
    for disk in (".", ".."):  # it may be a partition
        with suppress(OSError), open(f"/sys/dev/block/{major}:{minor}/{disk}/diskseq", "rb") as file:
            name += f":{file.read().strip().decode()}"
    return name


def rename_new(folder: int, old: str, new: str) -> None:
    """Rename in an open folder, never over anything that exists.

    Raises:
        FileExistsError: ``new`` exists, also as a dangling symlink.
    """
    flags = _RENAME_NOREPLACE
    if _LIBC.renameat2(folder, os.fsencode(old), folder, os.fsencode(new), flags) == 0:
        return
    error = _last_error()
    if error.errno not in (errno.EINVAL, errno.ENOSYS):
        raise error
    # A filesystem without the flag (NFS): a hard link is as exclusive. Both names are the same inode until
    # the old one is gone, so an undo by inode finds either.
    os.link(old, new, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    os.unlink(old, dir_fd=folder)


def clone_range(source: int, target: int, at: int, length: int) -> None:
    """Let ``target`` share the blocks of ``source``, at the same offset (a reflink)."""
    fcntl.ioctl(target, _FICLONERANGE, struct.pack("qQQQ", source, at, length, at))


def start_writeback(fd: int, at: int, length: int) -> None:
    """Begin to write dirty pages to the disk, and do not wait."""
    _sync_file_range(fd, at, length, _WRITE)


def await_writeback(fd: int, at: int, length: int) -> None:
    """Wait until the pages of a range are on the disk, as far as the kernel can say so without an fsync."""
    _sync_file_range(fd, at, length, _WAIT_BEFORE | _WRITE | _WAIT_AFTER)


def _sync_file_range(fd: int, at: int, length: int, flags: int) -> None:
    if _LIBC.sync_file_range(fd, at, length, flags) == 0:
        return
    error = _last_error()
    # It only makes the fsync at the end shorter: where a filesystem cannot, that one does it all.
    if error.errno not in (errno.EINVAL, errno.ESPIPE, errno.ENOSYS, errno.EOPNOTSUPP):
        raise error


def file_handle(fd: int) -> str | None:
    """What names an inode of its filesystem for ever, generation included, also after a reboot; None where there
    is no such. FUSE has one, and makes it anew with each mount; vfat with each time that it reads the inode in.

    ``st_dev`` may change with a reboot, and an inode number is given anew; this stays and does not repeat.
    """
    if _kind(fd) in (_FUSE, _FAT):
        return None
    handle, mount = _FileHandle(_MAX_HANDLE), ctypes.c_int()
    pointers = ctypes.byref(handle), ctypes.byref(mount)
    if _LIBC.name_to_handle_at(fd, b"", *pointers, _AT_EMPTY_PATH) != 0:
        return None
    return f"{handle.type:x}:{bytes(handle.opaque[: handle.bytes]).hex()}"


def open_handle(near: int, name: str, flags: int) -> int:
    """Open the inode that ``file_handle`` named, wherever it is now; ``near`` is open on its filesystem.

    Raises:
        OSError: ESTALE where it is gone, EPERM for whoever may not read every folder.
    """
    kind, _, opaque = name.partition(":")
    content = bytes.fromhex(opaque)
    handle = _FileHandle(len(content), int(kind, 16), (ctypes.c_ubyte * _MAX_HANDLE)(*content))
    fd = int(_LIBC.open_by_handle_at(near, ctypes.byref(handle), flags | os.O_CLOEXEC))
    if fd < 0:
        raise _last_error()
    return fd
