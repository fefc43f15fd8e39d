"""The process that daemons are forked from, each with a filter that makes it ask before it changes the world.

Started as ``python -m tests.proof.gated FD``, with a socket on that descriptor. For each message, a JSON array of
the daemon's arguments that comes with a descriptor for its errors, it answers with its pid and the filter's
descriptor. It is itself never filtered, does nothing else, and ends with the socket.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import struct
import sys
from typing import Final

AUDIT_ARCH_X86_64: Final = 0xC000003E

# By number on x86_64. ``write`` and ``sendto`` are for files, pipes and sockets alike.
CALLS: Final = {
    "write": 1, "pwrite64": 18, "writev": 20, "pwritev": 296, "pwritev2": 328, "sendfile": 40, "splice": 275,
    "copy_file_range": 326, "ftruncate": 77, "truncate": 76, "fallocate": 285, "fsync": 74, "fdatasync": 75,
    "sync_file_range": 277, "msync": 26, "rename": 82, "renameat": 264, "renameat2": 316, "link": 86, "linkat": 265,
    "unlink": 87, "unlinkat": 263, "mkdir": 83, "mkdirat": 258, "rmdir": 84, "symlink": 88, "symlinkat": 266,
    "chmod": 90, "fchmod": 91, "fchmodat": 268, "fchown": 93, "fchownat": 260, "utimensat": 280, "fsetxattr": 190,
    "kill": 62, "tgkill": 234, "pidfd_send_signal": 424, "clone": 56, "clone3": 435, "vfork": 58, "fork": 57,
    "execve": 59, "bind": 49, "listen": 50,
    # Only where a condition holds.
    "open": 2, "openat": 257, "sendto": 44, "ioctl": 16,
}  # fmt: skip
