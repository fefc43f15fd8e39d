"""A gate on every system call by which a daemon changes the world: each is counted, over all of its threads and
all that it starts, and may be let through, refused with an error, or be the daemon's last.

The kernel asks us (seccomp_unotify(2)): the caller waits in the call, and nothing of it has happened, until we
have answered. That is the exact "kill it at the N-th call". ``strace --inject=…:when=N`` counts per thread, so
that of two threads only the faster one's N-th call is ever met; and it stops the world at every call, not only
at those that are asked for.

Daemons are forked from one process that has imported them (``nursery``): starting Python takes ten times as long
as all that a scenario does.
"""

from __future__ import annotations

import array
import atexit
import ctypes
import errno
import fcntl
import json
import os
import platform
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import attrs

from taskd import client
from tests.process import PATIENCE
from tests.proof import gated

ANSWER_GOES_ON: Final = 1

# struct seccomp_notif: id, pid, flags, {nr, arch, instruction pointer, args[6]}.
NOTICE: Final = struct.Struct("=QIIiIQ6Q")
# struct seccomp_notif_resp: id, val, error, flags.
ANSWER: Final = struct.Struct("=QqiI")

RECEIVE: Final = 0xC0502100
SEND: Final = 0xC0182101

# Which of a call's arguments is a descriptor, and which a path.
NAMED: Final = {"openat": 1, "renameat2": 1, "renameat": 1, "rename": 0, "unlinkat": 1, "unlink": 0, "mkdir": 0,
                "mkdirat": 1, "linkat": 1, "link": 0, "rmdir": 0, "open": 0, "execve": 0, "symlinkat": 2, "symlink": 1,
                "chmod": 0, "fchmodat": 1, "fchownat": 1}  # fmt: skip
WITHOUT_A_FILE: Final = frozenset({"clone", "clone3", "vfork", "fork", "kill", "tgkill", "pidfd_send_signal", "socket",
                                   "pipe2", "epoll_create1", "memfd_create", "pidfd_open", "eventfd2"})  # fmt: skip


@attrs.frozen
class Call:
    """A system call that somebody waits in: its number in the count, its name, on which file, by whom."""

    n: int
    name: str
    file: str
    pid: int

    def __str__(self) -> str:
        return f"{self.n}. {self.name} {self.file}".rstrip()
