"""The one thread that writes to SQLite; concurrent writes share one fsync (law L7).

- All that waits when the thread is free goes into one transaction, in order. Each write stands in a savepoint
  of its own, so that one that is refused (Conflict) does not spoil the others.
- A transaction that fails fails for every write in it, with StoreUnavailable, and its connection is thrown
  away; the next one tries with a fresh connection.
- SQLite hides a transaction whose COMMIT failed. But where only the fsync failed, its frames are whole in the
  write-ahead log, and the next process would find them there. So they are overwritten before the failure is
  told.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from time import perf_counter
from typing import Final, Protocol, TypeVar

import attrs
import trio

from taskd.errors import Conflict, StoreUnavailable
from taskd.store import spare
from taskd.store.schema import connect

T = TypeVar("T")

logger = logging.getLogger("taskd.store")

# At most so many writes share one transaction, so that the first of them need not wait long for the last.
GROUP: Final = 256


class Timed(Protocol):
    """Told of each transaction, in the thread: its seconds, its writes, and whether it failed."""

    def __call__(self, seconds: float, writes: int, /, *, failed: bool) -> None: ...


def untimed(seconds: float, writes: int, /, *, failed: bool) -> None:
    """Nobody is to be told."""


@attrs.define(eq=False)
class Write:
    """A write that waits: what to do in the transaction, whom to wake, and why it failed, if it did."""

    act: Callable[[sqlite3.Connection], None]
    task: trio.lowlevel.Task
    error: Exception | None = None


@attrs.define(eq=False)
class Writer:
    """Owns the thread and the connection that it is given; ``commits`` counts its transactions, ``timed`` hears of
    each.
    """

    _path: Path
    _connection: sqlite3.Connection | None
    commits: int = 0
    _timed: Timed = untimed
    _failing: bool = False
    _spared: bool = False
    _queue: SimpleQueue[Write | None] = attrs.field(factory=SimpleQueue)
    _stopped: bool = False
    _thread: Thread = attrs.field(init=False)
    _token: trio.lowlevel.TrioToken = attrs.field(factory=trio.lowlevel.current_trio_token)

    def start(self) -> None:
        self._thread = Thread(target=self._run, name="taskd store")
        self._thread.start()

    def stop(self) -> None:
        """End the thread when it has done what is queued."""
        self._stopped = True
        self._queue.put(None)

    def join(self) -> None:
        """Wait for the thread's end; its connection is closed. Blocks."""
        self._thread.join()

    async def write(self, act: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``act`` in a transaction; it is on disk when this returns.

        It can be cancelled until it is queued. A cancel that arrives while it is under way is delivered after
        it, at the caller's next checkpoint: ``Cancelled`` out of here says that nothing was written.

        Raises:
            StoreUnavailable: the transaction failed; nothing was written.
            Conflict: a constraint of the schema, or ``act`` itself, refused it.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._stopped:
            raise StoreUnavailable("it is closed")
        results: list[T] = []
        write = Write(lambda connection: results.append(act(connection)), trio.lowlevel.current_task())
        self._queue.put(write)
        # A shield without a scope, so that every write takes the same step.
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        if write.error is not None:
            raise write.error
        return results[0]

    # What follows happens in the thread.

    def _run(self) -> None:
        going = True
        while going:
            taken = self._take()
            group = [write for write in taken if write is not None]
            going = len(group) == len(taken)
            if group:
                self._commit(group)
                if not (self._failing or self._spared):
                    self._spared = spare.keep(self._path)
                # The run is still there: it cannot end while a task waits for its write.
                self._token.run_sync_soon(_wake, group)
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._drop()

    def _take(self) -> Sequence[Write | None]:
        taken = [self._queue.get()]
        with suppress(Empty):
            while len(taken) < GROUP:
                taken.append(self._queue.get_nowait())
        return taken

    def _commit(self, group: Sequence[Write]) -> None:
        in_doubt, began = False, perf_counter()
        try:
            connection = self._connected()
            connection.execute("BEGIN IMMEDIATE")
            for write in group:
                _attempt(connection, write)
            in_doubt = True
            connection.execute("COMMIT")
            self.commits += 1
            self._says(None)
            self._timed(perf_counter() - began, len(group), failed=False)
        except Exception as error:
            self._says(error)
            self._timed(perf_counter() - began, len(group), failed=True)
            # Also for those that met a Conflict: what they conflicted with may be rolled back.
            for write in group:
                write.error = StoreUnavailable(str(error))
            self._drop()
            if in_doubt:
                self._overwrite()

    def _says(self, error: Exception | None) -> None:
        """In the log, once: that it cannot write, and that it can again."""
        if error is not None and not self._failing:
            logger.error(
                "the store cannot write: %s; what is asked for is refused, what is known is answered", error
            )
        elif error is None and self._failing:
            logger.warning("the store can write again")
        self._failing = error is not None

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = connect(self._path)
        return self._connection

    def _overwrite(self) -> None:
        """Put another transaction where the failed one may have left its frames.

        It is enough that this one's frames are written, even if their fsync fails too. Of a device that takes
        not even that, nothing can be promised.
        """
        try:
            self._connected().execute("UPDATE meta SET value = value + 1 WHERE key = 'failed_commits'")
        except sqlite3.Error:
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None


def _attempt(connection: sqlite3.Connection, write: Write) -> None:
    connection.execute("SAVEPOINT one")
    try:
        write.act(connection)
    except Exception as error:
        # A full disk or a bad page is the matter of the whole group; a broken constraint is not.
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.IntegrityError):
            raise
        connection.execute("ROLLBACK TO one")
        write.error = Conflict(str(error)) if isinstance(error, sqlite3.IntegrityError) else error
    connection.execute("RELEASE one")


def _wake(group: Sequence[Write]) -> None:
    for write in group:
        trio.lowlevel.reschedule(write.task)
