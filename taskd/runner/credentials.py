"""What the kernel grants to one thread: the user and groups that files are reached with, and capabilities.

The law: a thread that cannot take on what it is to wear does not act, and one that cannot get back what it wore
ends the daemon. A pool would hand it on to somebody else's task, and a crash is undone (law L6).

On Linux these belong to a thread. The C library's ``setgroups`` makes a process of them by telling all threads
(nptl(7)); the system call itself does not.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import attrs

from taskd.errors import PermissionDenied

logger = logging.getLogger("taskd.runner")

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.setfsuid.argtypes = _LIBC.setfsgid.argtypes = (ctypes.c_uint32,)
_LIBC.setfsuid.restype = _LIBC.setfsgid.restype = ctypes.c_uint32

# setgroups(2) by machine: the kernel's tables of system calls (arch/*/include, scripts/syscall.tbl).
_SETGROUPS: Final = {"x86_64": 116, "aarch64": 159, "riscv64": 159, "loongarch64": 159, "ppc64le": 81}

# capabilities(7): _LINUX_CAPABILITY_VERSION_3, whose bits are two words of 32.
_VERSION: Final = 0x20080522

# No user and no group: asked for, nothing changes, and what is worn is told (setfsuid(2)).
_NOBODY: Final = 0xFFFFFFFF

# How often it is tried to get back what a thread wore. The kernel may be short of memory for a moment.
_TRIES: Final = 10


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Bits(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


_Capabilities = _Bits * 2


@attrs.frozen
class Credentials:
    """What a thread wears. ``capabilities`` are the effective ones, as two words of bits."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    capabilities: tuple[int, int] = (0, 0)


def worn() -> Credentials:
    """What this thread wears."""
    low, high = _capabilities()
    groups = tuple(sorted(os.getgroups()))
    return Credentials(_LIBC.setfsuid(_NOBODY), _LIBC.setfsgid(_NOBODY), groups, (low.effective, high.effective))


@contextmanager
def wearing(new: Credentials) -> Iterator[Credentials]:
    """Inside, this thread wears ``new``; what it wore before is given, and worn again at the end.

    No process is to be started inside: it would have the daemon's own rights.

    Raises:
        PermissionDenied: it cannot take them on; it is as it was.
    """
    before = worn()
    try:
        try:
            _put_on(new)
        except OSError as error:
            raise PermissionDenied(f"act with the rights of user id {new.uid}: {error.strerror}") from None
        yield before
    finally:
        _get_back(before)


def _put_on(new: Credentials) -> None:
    """
    Raises:
        OSError: it was not all granted; what is worn now is something in between.
    """
    # All that this thread may have, for the change itself; what it is to have comes last.
    _set_capabilities(tuple(bits.permitted for bits in _capabilities()))
    groups = (ctypes.c_uint32 * len(new.groups))(*new.groups)
    _check(_LIBC.syscall(_number(), ctypes.c_long(len(new.groups)), groups))
    # These two tell of no error: what is worn afterwards does.
    _LIBC.setfsgid(new.gid)
    _LIBC.setfsuid(new.uid)
    _set_capabilities(new.capabilities)
    if worn() != new:
        raise PermissionError(1, os.strerror(1))


def _get_back(before: Credentials) -> None:
    for _ in range(_TRIES):
        try:
            return _put_on(before)
        except OSError as error:
            logger.critical("a thread cannot get back its own rights: %s", error)
    os.abort()


def _number() -> int:
    try:
        return _SETGROUPS[platform.machine()]
    except KeyError:
        raise OSError(38, f"nobody has told how on {platform.machine()}") from None


def _capabilities() -> ctypes.Array[_Bits]:
    found = _Capabilities()
    _check(_LIBC.capget(ctypes.byref(_Header(_VERSION, 0)), found))
    return found


def _set_capabilities(effective: tuple[int, ...]) -> None:
    new = _capabilities()
    for bits, word in zip(new, effective, strict=True):
        bits.effective = word
    _check(_LIBC.capset(ctypes.byref(_Header(_VERSION, 0)), new))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
