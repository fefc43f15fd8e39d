"""What a program writes to a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator, Mapping, Sequence

from tests.process import PATIENCE


def pieces(argv: Sequence[str], env: Mapping[str, str], columns: int, limit_s: float = PATIENCE) -> Iterator[str]:
    """What the program writes to a terminal of so many columns, piece by piece, to its end; it is killed after
    ``limit_s`` seconds."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(argv, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    limit = threading.Timer(limit_s, process.kill)
    limit.start()
    try:
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # EIO: nobody has the other end open any more
                break
            if not piece:
                break
            yield piece.decode(errors="replace")
        process.wait(PATIENCE)
    finally:
        limit.cancel()
        process.kill()
        process.wait()
        os.close(ours)
