"""The blocking client: one plain socket, one call at a time.

A call that is interrupted while it waits for its reply (KeyboardInterrupt, TimeoutError) leaves the connection
in step: the reply is known by its id and dropped when it comes. The daemon goes on with what was asked. A call
that is interrupted in the middle of its bytes ends the connection, and every call after it says so.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import update_wrapper
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import attrs

from taskd.client import verbs
from taskd.client.conversation import Call, Conversation, reason
from taskd.client.record import Record
from taskd.errors import BadParams, NoDaemon, Refused, WireError
from taskd.model import JSON

P = ParamSpec("P")
T = TypeVar("T")

CHUNK: Final = 65536


def _said(verb: Callable[P, Call[T]]) -> Callable[Concatenate[Daemon, P], T]:
    """A verb as a method: make the call, wait for its reply."""

    def method(self: Daemon, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.ask(verb(*args, **kwargs))

    update_wrapper(method, verb)
    return method


@attrs.define(eq=False, repr=False)
class Daemon(AbstractContextManager["Daemon"]):
    """A connection to the daemon on ``path``. ``timeout_s``: seconds that a call waits for its reply.

    Every call raises Refused where the daemon does not grant it, NoDaemon where nobody answers any more, and
    TimeoutError when its time is up.
    """

    path: str
    _socket: socket.socket
    timeout_s: float | None = None
    _conversation: Conversation = attrs.field(factory=Conversation, init=False)
    _over: NoDaemon | Refused | None = attrs.field(default=None, init=False)

    def __repr__(self) -> str:
        return f"<Daemon {self.path} {self._conversation!r}>"

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """The daemon goes on with what was asked of it."""
        self._end(NoDaemon(self.path, "the connection is closed"))

    def _end(self, error: NoDaemon | Refused) -> None:
        self._over = self._over or error
        self._socket.close()

    def call(self, method: str, /, **params: JSON) -> JSON:
        """The bare result of any method."""
        return self.ask(verbs.raw(method, params))

    def ask(self, call: Call[T]) -> T:
        """The result of a call, as its verb reads it."""
        self._check()
        id, data = self._conversation.call(call)
        try:
            self._guarded(self._send, data)
            deadline = None if self.timeout_s is None else time.monotonic() + self.timeout_s
            while not self._conversation.has_reply(id):
                self._wait(deadline)
                self._guarded(self._receive)
            result = self._conversation.take(id)
        finally:
            self._conversation.forget(id)
        try:
            return call.read(result)
        except BadParams as error:
            raise NoDaemon(self.path, str(error)) from None

    def _check(self) -> None:
        """Where the connection is over, every call says why it is."""
        if self._over is not None:
            raise attrs.evolve(self._over)

    def _wait(self, deadline: float | None) -> None:
        """Until there is something to read. No byte is in our hands here: it may be interrupted."""
        self._check()
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(None if left is None else left * 1000):
            raise TimeoutError(f"no reply within {self.timeout_s} seconds")

    def _guarded(self, act: Callable[..., None], *args: Any) -> None:
        """What must not be left half done: whoever interrupts it ends the connection."""
        try:
            act(*args)
        except Refused as error:
            self._end(error)
            raise
        except (OSError, WireError) as error:
            over = NoDaemon(self.path, reason(error))
            self._end(over)
            raise over from None
        except BaseException:
            self._end(NoDaemon(self.path, "a call was interrupted half way; connect again"))
            raise

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # what the daemon said before it hung up tells more; it is read next

    def _receive(self) -> None:
        data = self._socket.recv(CHUNK)
        if not data:
            raise ConnectionResetError("the connection was closed")
        self._conversation.receive(data)

    def list(self, **filters: Any) -> Iterator[Record]:
        """All records that the filters of ``page_of`` let through, page by page."""
        while True:
            page = self.page_of(**filters)
            yield from page.tasks
            if page.next_cursor is None:
                return
            filters["cursor"] = page.next_cursor

    start = _said(verbs.start)
    copy = _said(verbs.copy)
    get = _said(verbs.get)
    page_of = _said(verbs.page_of)
    ids = _said(verbs.ids)
    wait = _said(verbs.wait)
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


def connect(path: str, timeout_s: float | None = None) -> Daemon:
    """Connect to the daemon that listens on the Unix socket ``path``; a context manager that closes it.

    Raises:
        NoDaemon: nobody listens there, or we may not connect.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError | ValueError):
            raise NoDaemon(path, reason(error)) from None
        raise
    return Daemon(path, sock, timeout_s)
