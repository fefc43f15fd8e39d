"""The process that daemons are forked from, each behind a filter that makes it ask before it changes the world.

Started as ``python -m tests.proof.gated FD``, with a socket on that descriptor. Each message is a JSON object,
``argv`` of the daemon and ``opens``, and comes with a descriptor for its errors; the answer is its pid, with the
descriptor of its filter (seccomp_unotify(2)). The process itself is not filtered; it ends with the socket.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import socket
import struct
import sys
from typing import Final, NoReturn

from taskd.operations.launch import PR_SET_PDEATHSIG

# Seconds between two tries of what must happen before a task can end; five in other daemons.
PATIENCE: Final = 0.2

MACHINE: Final = "x86_64"
ARCHITECTURE: Final = 0xC000003E
SECCOMP: Final = 317

CHANGES: Final = {
    "write": 1, "pwrite64": 18, "writev": 20, "sendfile": 40, "bind": 49, "clone": 56, "fork": 57, "vfork": 58,
    "execve": 59, "kill": 62, "fsync": 74, "fdatasync": 75, "truncate": 76, "ftruncate": 77, "rename": 82,
    "mkdir": 83, "rmdir": 84, "link": 86, "unlink": 87, "symlink": 88, "chmod": 90, "fchmod": 91, "fchown": 93,
    "mkdirat": 258, "fchownat": 260, "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266,
    "fchmodat": 268, "splice": 275, "sync_file_range": 277, "fallocate": 285, "pwritev": 296, "renameat2": 316,
    "fsetxattr": 190, "fremovexattr": 199, "copy_file_range": 326, "pwritev2": 328, "pidfd_send_signal": 424,
    "clone3": 435,
}  # fmt: skip

# Those that only change something with certain arguments.
OPEN: Final = {"open": (2, 1), "openat": (257, 2)}  # and which argument has the flags
IOCTL, CLONES = 16, (0x40049409, 0x4020940D)
SENDTO: Final = 44

# What makes a descriptor and nothing else; asked for where descriptors are to be short.
DESCRIPTORS: Final = {
    "socket": 41, "accept4": 288, "eventfd2": 290, "epoll_create1": 291, "pipe2": 293, "open_by_handle_at": 304,
    "memfd_create": 319, "pidfd_open": 434,
}  # fmt: skip

NAMES: Final = {
    **{number: name for name, number in (CHANGES | DESCRIPTORS).items()},
    **{number: name for name, (number, _) in OPEN.items()},
    IOCTL: "ioctl",
    SENDTO: "sendto",
}

Instruction = tuple[int, int, int, int]
ALLOW: Final[Instruction] = (0x06, 0, 0, 0x7FFF0000)
ASK: Final[Instruction] = (0x06, 0, 0, 0x7FC00000)


def _load(offset: int) -> Instruction:
    return 0x20, 0, 0, offset


def _unless(value: int, skip: int) -> Instruction:
    """Skip so many where what was loaded is another."""
    return 0x15, 0, skip, value


def _argument(n: int) -> Instruction:
    return _load(16 + 8 * n)


def program(*, opens: bool) -> list[Instruction]:
    """The filter, which asks about ``CHANGES``; with ``opens`` also about all that needs a new descriptor."""
    asked = {**CHANGES, **DESCRIPTORS, **{name: n for name, (n, _) in OPEN.items()}} if opens else CHANGES
    code = [_load(4), (0x15, 1, 0, ARCHITECTURE), ALLOW, _load(0)]
    for number in asked.values():
        code += [_unless(number, 1), ASK]
    for number, flags in OPEN.values():
        code += [_unless(number, 4), _argument(flags), (0x45, 0, 1, os.O_CREAT | os.O_TRUNC), ASK, ALLOW]
    code += [_unless(IOCTL, 6), _argument(1)]
    code += [_unless(CLONES[0], 1), ASK, _unless(CLONES[1], 1), ASK, ALLOW]
    # One byte is how a thread wakes the event loop: no answer is as short.
    code += [_unless(SENDTO, 4), _argument(2), _unless(1, 1), ALLOW, ASK]
    return [*code, ALLOW]


def install(*, opens: bool) -> int:
    """Put this process behind the filter; the descriptor on which its questions come."""
    assert platform.machine() == MACHINE, "the filter knows the numbers of another machine's calls"
    libc = ctypes.CDLL(None, use_errno=True)
    code = program(opens=opens)
    packed = b"".join(struct.pack("=HBBI", *each) for each in code)
    kept = ctypes.create_string_buffer(packed, len(packed))
    filters = ctypes.create_string_buffer(struct.pack("@HxxxxxxQ", len(code), ctypes.addressof(kept)), 16)
    if os.geteuid() != 0:
        libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, without which only root may
    # SECCOMP_FILTER_FLAG_NEW_LISTENER; WAIT_KILLABLE_RECV: only what kills interrupts who waits for an answer.
    listener: int = libc.syscall(SECCOMP, 1, 1 << 3 | 1 << 5, filters)
    if listener < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return listener


def _be_daemon(control: socket.socket, argv: list[str], errors: int, *, opens: bool) -> NoReturn:
    from taskd.server import main

    status = 70
    # Whoever is to answer the gate's questions may be killed; this then goes with the process that it came from.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    try:
        os.dup2(errors, 2)
        os.close(errors)
        listener = install(opens=opens)
        socket.send_fds(control, [str(os.getpid()).encode()], [listener])
        os.close(listener)
        control.close()
        main(argv, standalone_mode=False)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    finally:
        os._exit(status)


def serve(control: socket.socket) -> None:
    """Fork a daemon for each message."""
    # What a daemon imports late, once for all.
    import taskd.runner
    import taskd.server
    from taskd.dialects import table
    from taskd.operations import load

    load()
    table()
    # Thousands of runs wait for a fault that is over already: the next try is made sooner, and is the same.
    vars(taskd.runner)["PATIENCE"] = PATIENCE
    while True:
        message, files, _, _ = socket.recv_fds(control, 65536, 1)
        if not message:
            return
        _reap()
        wanted = json.loads(message)
        if os.fork() == 0:
            _be_daemon(control, wanted["argv"], files[0], opens=wanted["opens"])
        os.close(files[0])


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
