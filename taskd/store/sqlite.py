"""The store on disk: SQLite in WAL mode with ``synchronous=FULL`` (law L7).

``writer`` is the one thread that writes, ``rows`` the SQL, ``schema`` what the file must be. Every verb is a
checkpoint and takes a fixed number of trio's steps. A write is a cancel point only until it is queued: out of
a write, ``Cancelled`` says that nothing was written.

Reads have connections of their own. They see every write that was acknowledged before they began, and go on
when the disk takes no more writes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import attrs
import trio

from taskd.codec import loads, pack
from taskd.errors import StoreError, StoreUnavailable, StoreUnusable
from taskd.model import LogLine, Task, Token
from taskd.states import State
from taskd.store import Forgotten, Query, ignore, rows, spare
from taskd.store.listed import Listed
from taskd.store.schema import open_database
from taskd.store.writer import Timed, Writer, untimed

T = TypeVar("T")
Act = Callable[[sqlite3.Connection], T]


@attrs.define(eq=False)
class SqliteStore:
    """See ``taskd.store.Store``. What names a task (id, seq, owner, operation, request_id) stays as created."""

    _path: Path
    _writer: Writer
    _lookups: sqlite3.Connection
    _readings: sqlite3.Connection
    _file: os.stat_result
    _reading: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))
    _closing: trio.Event = attrs.field(factory=trio.Event)
    _listed: Listed = attrs.field(factory=Listed)

    @classmethod
    async def open(cls, path: Path | str, timed: Timed = untimed) -> SqliteStore:
        """Open the database file at ``path``; it is made (mode 0600) or migrated where needed.

        Its folder exists and is the caller's alone: one store at a time. Close the store in the same trio run;
        one that is forgotten ends its thread with the run. ``timed`` is told of every transaction.

        Raises:
            StoreUnusable: it cannot be written, is no database or not ours, is of a newer schema, or damaged; or
                the system has no thread for it.
        """
        try:
            path = Path(await trio.Path(path).absolute())
            writing, lookups, readings = await trio.to_thread.run_sync(open_database, path)
            store = cls(path, Writer(path, writing, timed=timed), lookups, readings, os.stat(path))
            trio.lowlevel.spawn_system_task(store._end_writer)
            store._writer.start()
        except RuntimeError as error:  # how Python says EAGAIN of a thread
            raise StoreUnusable(f"{path} cannot be used: {error}") from error
        return store

    async def _end_writer(self) -> None:
        try:
            await self._closing.wait()
        finally:
            self._writer.stop()

    async def close(self) -> None:
        """Finish what is queued, fold the log into the database, end the thread; not to be cancelled."""
        with trio.CancelScope(shield=True):
            # The writer's connection goes last: the last one takes the log's files away.
            async with self._reading:
                self._lookups.close()
                self._readings.close()
            self._closing.set()
            await trio.to_thread.run_sync(self._writer.join)

    @property
    def commits(self) -> int:
        """How many transactions were committed since the store was opened."""
        return self._writer.commits

    async def _look(self, act: Act[T]) -> T:
        """Read one row by a unique index, on trio's own thread.

        It costs some ten microseconds, where a thread costs more to reach; and in WAL mode a reader does not
        wait for the writer.
        """
        await trio.lowlevel.checkpoint()
        with _readable():
            return act(self._lookups)

    async def _read(self, act: Act[T]) -> T:
        """Read what may be long, in a worker thread, one at a time."""
        with _readable():
            return await trio.to_thread.run_sync(act, self._readings, limiter=self._reading)

    async def reserve(self, count: int) -> int:
        """The first write of a run is this one: for that, what is spare is given up."""
        while True:
            try:
                return await self._write_in_place(lambda connection: rows.reserve(connection, count))
            except StoreUnavailable:
                if self.commits or not await trio.to_thread.run_sync(spare.give_up, self._path):
                    raise

    async def _write_in_place(self, act: Act[T]) -> T:
        """Write what is promised to last: nothing, where the file is gone and no start would find it."""

        def checked(connection: sqlite3.Connection) -> T:
            if not self._in_place():
                raise StoreUnavailable(f"{self._path} was removed, or something else is in its place")
            return act(connection)

        return await self._writer.write(checked)

    def _in_place(self) -> bool:
        try:
            return os.path.samestat(self._file, os.stat(self._path))
        except OSError:
            return False

    async def create(self, task: Task) -> Task:
        with self._listed.change():
            return await self._write_in_place(lambda connection: rows.create(connection, task))

    async def write(self, task: Task, *, expect: State, log: Sequence[LogLine] = (), keep: int = 0) -> None:
        doc = pack(task)

        def act(connection: sqlite3.Connection) -> None:
            rows.replace(connection, task, doc, expect)
            rows.append(connection, task.id, log, keep)

        await self._writer.write(act)

    async def delete(self, id: str) -> None:
        with self._listed.change():
            await self._writer.write(lambda connection: rows.forget(connection, id))

    async def get(self, id: str) -> Task | None:
        return await self._look(lambda connection: rows.find(connection, id))

    async def requested(self, owner: str, request_id: str) -> Task | None:
        return await self._look(lambda connection: rows.requested(connection, owner, request_id))

    async def list(self, query: Query) -> Sequence[Task]:
        return await self._read(lambda connection: rows.page(connection, query))

    async def ids(self, *, owner: str | None = None, operation: str | None = None) -> Sequence[str]:
        return cast(Sequence[str], loads(await self.ids_text(owner=owner, operation=operation)))

    async def ids_text(self, *, owner: str | None = None, operation: str | None = None) -> bytes:
        changes = self._listed.changes
        text = await self._read(lambda connection: rows.ids(connection, owner, operation))
        self._listed.keep((owner, operation), text, changes)
        return text

    def ids_at_hand(self, *, owner: str | None = None, operation: str | None = None) -> bytes | None:
        return self._listed.get((owner, operation))

    async def owners(self) -> Mapping[str, int]:
        return await self._read(rows.owners)

    async def open_tasks(self) -> Sequence[Task]:
        return await self._read(rows.open_tasks)

    async def append_log(self, id: str, lines: Sequence[LogLine], *, keep: int) -> None:
        await self._writer.write(lambda connection: rows.append(connection, id, lines, keep))

    async def log(self, id: str, start: int, limit: int) -> Sequence[LogLine]:
        return await self._read(lambda connection: rows.log(connection, id, start, limit))

    async def log_end(self, id: str) -> int:
        return await self._look(lambda connection: rows.log_end(connection, id))

    async def prune(self, *, before: float, keep: int, forgotten: Forgotten = ignore) -> int:
        """Many small writes; cancelled in between, it leaves the rest for the next time."""
        total = 0
        for bound in await self._read(lambda connection: rows.bounds(connection, before, keep)):
            write = partial(rows.prune, bound=bound)
            while True:
                with self._listed.change():
                    tasks = await self._writer.write(write)
                if not tasks:
                    break
                total += len(tasks)
                forgotten(tasks)
        return total

    async def tokens(self) -> Sequence[Token]:
        return await self._read(rows.tokens)

    async def add_token(self, token: Token) -> None:
        await self._writer.write(lambda connection: rows.add_token(connection, token))

    async def delete_token(self, id: str) -> bool:
        return await self._writer.write(lambda connection: rows.delete_token(connection, id))


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    # SQLite quotes what it does not understand; RuntimeError is how Python says EAGAIN of a thread.
    except (sqlite3.Error, UnicodeDecodeError, RuntimeError) as error:
        raise StoreError(f"the store cannot read: {error}") from error
