"""Who is on the other end of a Unix socket, as the kernel tells it: what it was when it connected, for good.

Python's ``getsockopt`` takes 1024 bytes at most and does not tell how many it would have needed; with more than
256 groups it is of no use. So the C library's is called.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from typing import Final

import attrs

_LIBC: Final = ctypes.CDLL(None, use_errno=True)

# socket(7) does not tell of it, nor does Python: Linux 4.13, include/uapi/asm-generic/socket.h.
SO_PEERGROUPS: Final = 59

# Groups that are asked for at first; few have more.
_FEW: Final = 64

_ID: Final = ctypes.sizeof(ctypes.c_uint32)


@attrs.frozen
class Peer:
    """Process id, user id, primary group id, supplementary group ids."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] = frozenset()


def of(fd: int) -> Peer:
    """The peer of the connected Unix socket ``fd`` (SO_PEERCRED, unix(7)). Never blocks.

    A kernel that does not know of a peer's groups tells of none.

    Raises:
        OSError: it is no such socket.
    """
    pid, uid, gid = memoryview(_option(fd, socket.SO_PEERCRED, 3 * _ID)).cast("I")
    try:
        groups = memoryview(_option(fd, SO_PEERGROUPS, _FEW * _ID)).cast("I")
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
        return Peer(pid, uid, gid)
    return Peer(pid, uid, gid, frozenset(groups))


def _option(fd: int, option: int, size: int) -> bytes:
    """A socket option of ``size`` bytes, or of as many as the kernel says that it has."""
    while True:
        buffer, length = ctypes.create_string_buffer(size), ctypes.c_uint32(size)
        if _LIBC.getsockopt(fd, socket.SOL_SOCKET, option, buffer, ctypes.byref(length)) == 0:
            return buffer.raw[: length.value]
        number = ctypes.get_errno()
        if number != errno.ERANGE or length.value <= size:
            raise OSError(number, os.strerror(number))
        size = length.value
