"""The client on trio: as many calls in flight as there are tasks that call, and watches beside them.

A call that is cancelled disturbs no other, and the daemon goes on with what was asked.

>>> import trio
>>> from taskd import client
>>> async def main():
...     async with client.open(path) as daemon:
...         copy = {"source": f"{folder}/disk.img", "target": f"{folder}/copied on trio.img"}
...         async with daemon.running("copy", copy) as task, daemon.watch(task.id) as events:
...             async for event in events:
...                 match event:
...                     case client.Snapshot(record=record) | client.Changed(record=record) if record.ended:
...                         print(record.state, f"{record.progress.fraction:.0%}")
...                         break
>>> trio.run(main)
completed 100%
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, TypeVar

import attrs
import trio

from taskd.client import patience, verbs
from taskd.client.conversation import Call, Notification
from taskd.client.event import Standing, named
from taskd.client.on_trio import connection
from taskd.client.on_trio.connection import Connection
from taskd.client.on_trio.watch import Watch
from taskd.client.patience import RETRY, Patience
from taskd.client.record import Record, Running
from taskd.errors import NoDaemon, TaskdError
from taskd.model import JSON

P = ParamSpec("P")
T = TypeVar("T")


def _said(verb: Callable[P, Call[T]]) -> Callable[Concatenate[Daemon, P], Awaitable[T]]:
    """A verb as a method: make the call, wait for its reply."""

    async def method(self: Daemon, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.ask(verb(*args, **kwargs))

    update_wrapper(method, verb)
    return method


def _beside(
    verb: Callable[P, Call[Record]],
) -> Callable[Concatenate[Daemon, P], AbstractAsyncContextManager[Running]]:
    """A verb that starts a task, as a block of code beside it."""

    def running(self: Daemon, /, *args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[Running]:
        """Start an operation as ``start`` does, for as long as the block is: its end waits for the task's.

        Whoever leaves the block by an exception, or is cancelled, cancels the task, and goes on when that has
        really ended, however long it takes; where the daemon cannot be asked, a note on the exception says so.
        ``Running.record`` is the end then.

        Raises:
            ValueError: ``destroy_on_finish``; nothing was asked of the daemon.
        """
        return self._run(verbs.kept(verb(*args, **kwargs)))

    return running


@attrs.define(eq=False, repr=False)
class Daemon:
    """The daemon on ``path``.

    Every call raises Refused where the daemon does not grant it, and NoDaemon where nobody answers any more.
    """

    path: str
    _patience: Patience
    _connection: Connection
    _connecting: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    def __repr__(self) -> str:
        return f"<Daemon {self.path} {self._connection!r}>"

    def close(self) -> None:
        """The daemon goes on with what was asked of it."""
        self._closed = True
        self._connection.close()

    async def call(self, method: str, /, **params: JSON) -> JSON:
        """The bare result of any method."""
        return await self.ask(verbs.raw(method, params))

    async def ask(self, call: Call[T]) -> T:
        """The result of a call, as its verb reads it."""
        if self._patience.seconds:
            call = verbs.twice(call)
        while True:
            asked = None
            try:
                asked = await self._connected()
                result = await asked.ask(call)
            except NoDaemon as error:
                if self._closed or not self._patience.seconds or (asked is not None and not call.again):
                    raise
                if asked is None or asked is self._connection:
                    self._patience.lost(error, trio.current_time())
                    await trio.sleep(RETRY)
            else:
                self._patience.answered()
                return result

    async def notification(self) -> Notification:
        """The next thing that the daemon says to whoever asked to be told by ``call``; ``watch`` is the other way.

        Raises:
            NoDaemon: the connection broke, and with it what was asked for.
        """
        return await self._connection.notification()

    async def _connected(self) -> Connection:
        """A connection; a new one where the daemon may be away and was."""
        async with self._connecting:
            if self._patience.seconds and self._connection.over and not self._closed:
                self._connection.close()
                self._connection = await connection.connect(self.path)
                self._patience.met(trio.current_time())
            return self._connection

    @asynccontextmanager
    async def watch(self, ids: str | Iterable[str] | None = None, *, log: bool = False) -> AsyncIterator[Watch]:
        """Be told what happens to the tasks ``ids``, or to all: an iterator of events, which begins here.

        ``log``: also of their logs. First comes what there is, as ``Snapshot``, then ``Synced``, then what
        happens. Where the daemon may be away (``patience_s``), the watch goes on when it is back; nothing is
        missed, and nothing told twice. Whoever reads slowly is told the newest state of each task, not those
        between. The iterator ends when each task that was named is destroyed; one of all tasks does not end. It
        has a connection of its own.

        Raises:
            Refused: one of ``ids`` does not exist.
            NoDaemon: nobody answers; from the iterator: for longer than may be.
        """
        watch = Watch(self.path, attrs.evolve(self._patience), Standing(named(ids), log))
        try:
            await watch.begin()
            yield watch
        finally:
            watch.close()

    @asynccontextmanager
    async def _run(self, call: Call[Record]) -> AsyncIterator[Running]:
        with trio.CancelScope(shield=True):  # it is over in a moment, and who broke it off would not know the id
            running = Running(await self.ask(call))
        try:
            yield running
            running.record = await self.wait(running.id)
        except BaseException as error:
            with trio.CancelScope(shield=True):
                try:
                    await self.cancel(running.id)
                    running.record = await self.wait(running.id)
                except TaskdError as unseen:
                    error.add_note(f"task {running.id} was not seen to end: {unseen}")
            raise

    async def wait(self, id: str, timeout_s: float | None = None, after_revision: int | None = None) -> Record:
        """The record when the task ended, or changed after that revision, or the seconds are over."""
        waiting = verbs.Waiting.of(id, timeout_s, after_revision, trio.current_time())
        while True:
            part = waiting.part(trio.current_time(), trio.current_effective_deadline())
            record = await self.ask(part)
            if waiting.over(record, trio.current_time()):
                return record

    async def list(self, **filters: Any) -> AsyncIterator[Record]:
        """All records that the filters of ``page_of`` let through, page by page."""
        while True:
            page = await self.page_of(**filters)
            for record in page.tasks:
                yield record
            if page.next_cursor is None:
                return
            filters["cursor"] = page.next_cursor

    start = _said(verbs.start)
    running = _beside(verbs.start)
    copy = _said(verbs.copy)
    get = _said(verbs.get)
    page_of = _said(verbs.page_of)
    ids = _said(verbs.ids)
    cancel = _said(verbs.cancel)
    destroy = _said(verbs.destroy)
    log = _said(verbs.log)
    recover = _said(verbs.recover)
    update = _said(verbs.update)
    complete = _said(verbs.complete)
    fail = _said(verbs.fail)
    operations = _said(verbs.operations)
    add_token = _said(verbs.add_token)
    tokens = _said(verbs.tokens)
    remove_token = _said(verbs.remove_token)


async def connect(path: str, patience_s: float = 0.0, away: Callable[[bool], None] = patience.ignore) -> Daemon:
    """As ``taskd.client.open``, for whoever closes it without a block.

    Raises:
        NoDaemon: nobody listens there, or we may not connect.
    """
    patient = Patience(patience_s, away)
    daemon = Daemon(path, patient, await connection.connect(path))
    patient.met(trio.current_time())
    return daemon


@asynccontextmanager
async def open(
    path: str, patience_s: float = 0.0, away: Callable[[bool], None] = patience.ignore
) -> AsyncIterator[Daemon]:
    """See ``taskd.client.open``."""
    daemon = await connect(path, patience_s, away)
    try:
        yield daemon
    finally:
        daemon.close()
