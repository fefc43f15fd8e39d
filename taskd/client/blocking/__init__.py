"""The blocking client: one call at a time, and watches beside them.

A call that is interrupted while it waits for its reply (KeyboardInterrupt, TimeoutError) leaves the connection
in step. A call that is interrupted in the middle of its bytes ends the connection, and every call after it says
so, unless the daemon may be away: then it has a new one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import update_wrapper
from math import inf
from typing import Any, Concatenate, ParamSpec, TypeVar

import attrs

from taskd.client import patience, verbs
from taskd.client.blocking import connection
from taskd.client.blocking.connection import Connection
from taskd.client.blocking.watch import Watch
from taskd.client.conversation import Call
from taskd.client.event import Standing, named
from taskd.client.patience import RETRY, Patience
from taskd.client.record import Record, Running
from taskd.errors import NoDaemon, TaskdError
from taskd.model import JSON

P = ParamSpec("P")
T = TypeVar("T")


def _said(verb: Callable[P, Call[T]]) -> Callable[Concatenate[Daemon, P], T]:
    """A verb as a method: make the call, wait for its reply."""

    def method(self: Daemon, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.ask(verb(*args, **kwargs))

    update_wrapper(method, verb)
    return method


def _beside(
    verb: Callable[P, Call[Record]],
) -> Callable[Concatenate[Daemon, P], AbstractContextManager[Running]]:
    """A verb that starts a task, as a block of code beside it."""

    def running(self: Daemon, /, *args: P.args, **kwargs: P.kwargs) -> AbstractContextManager[Running]:
        """Start an operation as ``start`` does, for as long as the block is: its end waits for the task's.

        Whoever leaves the block by an exception, KeyboardInterrupt too, cancels the task, and goes on when that
        has really ended, however long it takes; where the daemon cannot be asked, a note on the exception says so.
        ``Running.record`` is the end then. What a signal's handler raises for that is to be a BaseException, as
        KeyboardInterrupt is one: an Exception in the middle of a reply is taken for a fault of the reply.

        Raises:
            ValueError: ``destroy_on_finish``; nothing was asked of the daemon.
        """
        return Beside(self, verbs.kept(verb(*args, **kwargs)))

    return running


@attrs.define(eq=False, repr=False)
class Daemon(AbstractContextManager["Daemon"]):
    """The daemon on ``path``. ``timeout_s``: seconds from the first byte of a call to its reply.

    Every call raises Refused where the daemon does not grant it, NoDaemon where nobody answers any more, and
    TimeoutError when its time is up.
    """

    path: str
    _patience: Patience
    _connection: Connection
    timeout_s: float | None = None
    _closed: bool = attrs.field(default=False, init=False)

    def __repr__(self) -> str:
        return f"<Daemon {self.path} {self._connection!r}>"

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """The daemon goes on with what was asked of it."""
        self._closed = True
        self._connection.close()

    def call(self, method: str, /, **params: JSON) -> JSON:
        """The bare result of any method."""
        return self.ask(verbs.raw(method, params))

    def ask(self, call: Call[T]) -> T:
        """The result of a call, as its verb reads it."""
        return self._ask(call, self._deadline())

    def _deadline(self) -> float | None:
        return None if self.timeout_s is None else time.monotonic() + self.timeout_s

    def _ask(self, call: Call[T], deadline: float | None) -> T:
        if self._patience.seconds:
            call = verbs.twice(call)
        late = TimeoutError(f"no reply within {self.timeout_s or 0:g} seconds")
        while True:
            asked = None
            try:
                asked = self._connected()
                result = asked.ask(call, deadline)
            except TimeoutError:
                raise late from None
            except NoDaemon as error:
                if self._closed or not self._patience.seconds or (asked is not None and not call.again):
                    raise
                if asked is None or asked is self._connection:
                    self._patience.lost(error, now := time.monotonic())
                    if deadline is not None and now >= deadline:
                        raise late from None
                    time.sleep(RETRY)
            else:
                self._patience.answered()
                return result

    def _connected(self) -> Connection:
        """A connection; a new one where the daemon may be away and was."""
        if self._patience.seconds and self._connection.over and not self._closed:
            self._connection.close()
            self._connection = connection.connect(self.path)
            self._patience.met(time.monotonic())
        return self._connection

    @contextmanager
    def watch(self, ids: str | Iterable[str] | None = None, *, log: bool = False) -> Iterator[Watch]:
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
            watch.begin()
            yield watch
        finally:
            watch.close()

    def wait(self, id: str, timeout_s: float | None = None, after_revision: int | None = None) -> Record:
        """The record when the task ended, or changed after that revision, or the seconds are over."""
        deadline = self._deadline()
        waiting = verbs.Waiting.of(id, timeout_s, after_revision, time.monotonic())
        while True:
            part = waiting.part(time.monotonic(), inf if deadline is None else deadline)
            record = self._ask(part, deadline)
            if waiting.over(record, time.monotonic()):
                return record

    def end(self, id: str) -> Record:
        """The task when it has ended, however long that takes, which may be longer than a call waits."""
        part = None if self.timeout_s is None else self.timeout_s / 2
        while not (record := self.wait(id, part)).ended:
            pass
        return record

    def list(self, **filters: Any) -> Iterator[Record]:
        """All records that the filters of ``page_of`` let through, page by page."""
        while True:
            page = self.page_of(**filters)
            yield from page.tasks
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


@attrs.define(eq=False)
class Beside(AbstractContextManager[Running]):
    """A task beside a block of code; see ``Daemon.running``.

    No generator: between one's yield and the block there is a moment at which a KeyboardInterrupt goes past both.
    """

    _daemon: Daemon
    _call: Call[Record]
    _running: Running | None = attrs.field(default=None, init=False)

    def __enter__(self) -> Running:
        try:
            self._running = Running(self._daemon.ask(self._call))
        except BaseException as error:
            if not isinstance(error, TaskdError):  # of that, there is no task
                self._call_off(error)
            raise
        return self._running

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            if error is None and self._running is not None:
                self._running.record = self._daemon.end(self._running.id)
        except BaseException as late:
            error = late
            raise
        finally:
            if error is not None:
                self._call_off(error)

    def _call_off(self, error: BaseException) -> None:
        try:
            # It may have been made: asked again, it is the same.
            running = self._running = self._running or Running(self._daemon.ask(self._call))
            self._daemon.cancel(running.id)
            running.record = self._daemon.end(running.id)
        except (TaskdError, TimeoutError) as unseen:
            error.add_note(f"the task was not seen to end: {unseen}")


def connect(
    path: str,
    timeout_s: float | None = None,
    patience_s: float = 0.0,
    away: Callable[[bool], None] = patience.ignore,
) -> Daemon:
    """Connect to the daemon that listens on the Unix socket ``path``; a context manager that closes it.

    ``timeout_s``: seconds from the first byte of a call to its reply. ``patience_s`` and ``away`` are as in
    ``open``.

    Raises:
        NoDaemon: nobody listens there, or we may not connect.
    """
    patient = Patience(patience_s, away)
    daemon = Daemon(path, patient, connection.connect(path), timeout_s)
    patient.met(time.monotonic())
    return daemon
