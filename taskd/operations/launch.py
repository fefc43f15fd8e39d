"""The child's side of starting a program: what runs between fork and exec, as a script of its own.

``command`` starts it as ``python -I -S launch.py PARENT GO REPORT ORDER PROGRESS``: the pid of the daemon and
four inherited descriptors. It becomes the program, under the same pid.

The law: it dies with its parent, and it does not act without the go-ahead. The kernel kills it when the
thread that forked it ends (PR_SET_PDEATHSIG); it reads one byte from GO before it does anything, and the end
of that pipe means that it was not wanted. What keeps it from becoming the program it writes to REPORT.

Every start pays for what is imported here (signal costs 3 ms), so it is three modules.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
SIGKILL = 9
SIG_SETMASK = 2
LAST_SIGNAL = 64
PROGRESS = 3


def main(parent: int, go: int, report: int, order: int, progress: int) -> None:
    """Wait for the go-ahead, then become the program of ``order``; returns only when that failed.

    ``order`` is a file: the program's path, its folder, the number of its arguments, they, and its
    environment, separated by NUL. A failure is reported as the step's name and the errno.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    step = "prctl"
    try:
        if libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(SIGKILL)) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
        # A parent that died before the line above sends no signal any more.
        if os.getppid() != parent or not os.read(go, 1):
            return
        path, folder, count, *rest = os.pread(order, os.fstat(order).st_size, 0).split(b"\0")
        argv, env = rest[: int(count)], dict(pair.split(b"=", 1) for pair in rest[int(count) :])
        os.close(go)
        os.close(order)
        step = "chdir"
        os.chdir(folder)
        step = "exec"
        # Python ignores SIGPIPE, and the daemon's parent may have ignored others; a program expects neither.
        libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
        for number in range(1, LAST_SIGNAL + 1):
            libc.signal(number, None)
        libc.sigprocmask(SIG_SETMASK, ctypes.create_string_buffer(128), None)
        if report == PROGRESS:
            report = os.dup(report)
        os.set_inheritable(report, False)
        if progress != PROGRESS:
            os.dup2(progress, PROGRESS)
            os.close(progress)
        os.execve(path, argv, env)
    except OSError as error:
        os.write(report, f"{step} {error.errno}".encode())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
    os._exit(127)
