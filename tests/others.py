"""Being somebody else for a moment: what a daemon sees of other users, from one test process that is root's."""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

NOBODY: Final = pwd.getpwnam("nobody")


@contextmanager
def being(uid: int, gid: int, groups: Sequence[int]) -> Iterator[None]:
    """This process is somebody else meanwhile, who can get back. What connects in the block is that for good."""
    before = os.getgroups(), os.getegid(), os.geteuid()
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(before[2])
        os.setegid(before[1])
        os.setgroups(before[0])


def connected_as_nobody(path: str, uid: int = NOBODY.pw_uid) -> socket.socket:
    """A connection of another user's, of that ``uid``, where we are root; else one of our own."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        if os.geteuid() != 0:
            sock.connect(path)
        else:
            with being(uid, NOBODY.pw_gid, []):
                sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock
