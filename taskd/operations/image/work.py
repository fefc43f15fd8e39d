"""Doing the blocking work of a task: in worker threads, in short hops, at a pace, with progress.

The law: nothing blocks the event loop, and between two hops, and between two chunks of a hop, a cancel is obeyed.
A hop is never abandoned: who is cancelled waits for its end, a few hundredths of a second, so that no thread
writes behind the back of an undo. Each hop has the rights of the task (``runner.rights``). What a thread opens is
closed by the ``ExitStack`` it was given, however the task ends.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Final, TypeVar

import attrs
import trio

from taskd.operations.image.transfer import Transfer, Writeback
from taskd.runner import rights

T = TypeVar("T")

# One thread of its user's for each task that the runner lets run at once: they never wait for one another. An undo
# runs beside these, and where a disk does not answer nothing bounds how many do: they take none of another's.
_THREADS: Final = 64

# Seconds after which a hop takes no further chunk, and progress is told. To reach a thread and to come back costs
# milliseconds on a busy machine.
_HOP_S: Final = 0.1

# How many bytes may be written and not yet be on the disk: while copying, and when the closing fsync is due.
_BEHIND: Final = 64 << 20
_BEHIND_AT_END: Final = 4 << 20

# With a rate limit: hops so small that this many make a second, but no smaller than a page.
_HOPS_A_SECOND: Final = 10
_PAGE: Final = 4096


async def in_thread(function: Callable[..., T], *args: object) -> T:
    """Call it in a worker thread, with the task's rights; a cancel waits until it has returned."""
    return await rights.in_thread(function, *args, limiter=_limiter())


async def in_own_thread(function: Callable[..., T], *args: object) -> T:
    """``in_thread`` with the daemon's own rights, for what is in its workspace."""
    limiter = _limiter()
    with rights.acting(None):
        return await rights.in_thread(function, *args, limiter=limiter)


def _limiter() -> trio.CapacityLimiter:
    return rights.threads(("copy", rights.uid()), _THREADS)


@asynccontextmanager
async def descriptors() -> AsyncIterator[ExitStack]:
    """A stack for open files, closed in a thread: the last close of a block device writes it out."""
    with ExitStack() as files:
        try:
            yield files
        finally:
            with trio.CancelScope(shield=True):
                await in_thread(files.close)


@attrs.define(eq=False)
class Passes:
    """All passes of one task over its bytes, as one progress: ``done`` of ``total``, holes counted as done.

    ``rate_limit`` is in bytes per second and holds for each pass. A reflink moves no bytes and is not slowed.
    """

    report: Callable[[int, int], None] = lambda done, total: None
    rate_limit: int | None = None
    total: int = 0
    done: int = 0

    async def run(self, transfer: Transfer) -> None:
        """Bring one transfer to its end, all but its fsync. On cancel it stops after the chunk it is in."""
        before = self.done
        due = trio.current_time()
        while transfer.unfinished or _late(transfer):
            moved = await in_thread(_hop, transfer, self._most)
            self.report(before + transfer.passed, self.total)
            if self.rate_limit is not None and moved:
                # A pause that was too long is not made up for by a burst.
                due = max(due, trio.current_time()) + moved / self.rate_limit
                await trio.sleep_until(due)
        self.done = before + transfer.passed

    @property
    def _most(self) -> int | None:
        return None if self.rate_limit is None else max(_PAGE, self.rate_limit // _HOPS_A_SECOND)


def _hop(transfer: Transfer, most: int | None) -> int:
    """Move chunks, and wait for the disk where it is too far behind; with ``most``, one chunk of at most so many
    bytes. Return how many bytes really moved.
    """
    moved, until = 0, time.perf_counter() + _HOP_S
    while True:
        trio.from_thread.check_cancelled()
        if (late := _late(transfer)) is not None:
            late.wait()
        elif transfer.unfinished and (most is None or not moved):
            moved += transfer.advance(most)
        else:
            return moved
        if time.perf_counter() >= until:  # asked last: one that stood still from the first got on all the same
            return moved


def _late(transfer: Transfer) -> Writeback | None:
    """What to wait for before more is written, or before the fsync at the end."""
    written = transfer.writeback
    most = _BEHIND if transfer.unfinished else _BEHIND_AT_END
    return written if written is not None and written.behind > most else None
