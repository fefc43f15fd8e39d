"""A file of nothing, whose room on the disk is there for a start when there is no other.

A start has to write before it serves: what it shows goes by revisions, which are set aside first, and SQLite may
have to make the file of its log. On a full disk, without this, nobody could ask what became of a task.

The law: only a start takes of it, a piece at a time, and only where room is what lacks; so that a daemon which is
started again and again on a full disk comes up each time. What a start leaves of a piece is anybody's. It is made
whole again by the first transaction after which there is room.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

# Bytes: of all of it, of a piece, and how much free room is enough for a start. XFS wants almost 200 KiB free to
# make a file; for the transaction itself a piece is more than enough.
SIZE: Final = 1 << 20
PIECE: Final = 64 << 10
ENOUGH: Final = 256 << 10


def keep(database: Path) -> bool:
    """Make the file beside the ``database`` whole, where that leaves as much room again; whether it is. Blocks."""
    try:
        fd = os.open(_beside(database), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            lacks = SIZE - os.fstat(fd).st_size
            if lacks > 0 and _free(fd) > 2 * lacks:
                os.posix_fallocate(fd, 0, SIZE)
                lacks = 0
            return lacks <= 0
        finally:
            os.close(fd)
    except OSError:
        return False


def give_up(database: Path) -> bool:
    """Give a piece of it up, where there is too little room for a start; whether that was done. Blocks."""
    try:
        fd = os.open(_beside(database), os.O_RDWR | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            lacking = size > 0 and _free(fd) < ENOUGH
            if lacking:
                os.ftruncate(fd, max(0, size - PIECE))
            return lacking
        finally:
            os.close(fd)
    except OSError:
        return False


def _beside(database: Path) -> Path:
    return database.with_name("spare")


def _free(fd: int) -> int:
    room = os.fstatvfs(fd)
    return room.f_bavail * room.f_frsize
