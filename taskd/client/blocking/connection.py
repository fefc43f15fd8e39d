"""One connection on a plain socket, one call at a time.

A call that is interrupted while it waits for its reply (KeyboardInterrupt, TimeoutError) leaves the connection
in step: the reply is known by its id and dropped when it comes. The daemon goes on with what was asked. A call
that is interrupted in the middle of its bytes ends the connection, and every call after it says so.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import attrs

from taskd.client.conversation import Call, Conversation, Notification, hung_up, reason
from taskd.errors import BadParams, NoDaemon, Refused, WireError

T = TypeVar("T")

CHUNK: Final = 65536

# Seconds that a wait may last at a time: a signal that comes a moment before it is heeded after it.
GLANCE: Final = 0.5


@attrs.define(eq=False, repr=False)
class Connection:
    """A connection to the daemon on ``path``.

    Every call raises Refused where the daemon does not grant it, NoDaemon where nobody answers any more, and
    TimeoutError when its time is up; ``deadline`` is one of ``time.monotonic``.
    """

    path: str
    _socket: socket.socket
    _conversation: Conversation = attrs.field(factory=Conversation, init=False)
    _over: NoDaemon | Refused | None = attrs.field(default=None, init=False)

    def __repr__(self) -> str:
        return repr(self._conversation)

    def close(self) -> None:
        """The daemon goes on with what was asked of it."""
        self._end(NoDaemon(self.path, "the connection is closed"))

    @property
    def over(self) -> bool:
        """Nothing is answered any more: it has ended, or the daemon, which did answer before, has hung up."""
        return self._over is not None or (self._conversation.answered and hung_up(self._socket.fileno()))

    def _end(self, error: NoDaemon | Refused) -> None:
        self._over = self._over or error
        self._socket.close()

    def ask(self, call: Call[T], deadline: float | None = None) -> T:
        """The result of a call, as its verb reads it."""
        self._until(lambda: self._conversation.room(call), deadline)
        self._wait(select.POLLOUT, deadline)
        id, data = self._conversation.call(call)
        try:
            self._guarded(self._send, data, deadline)
            self._until(lambda: self._conversation.has_reply(id), deadline)
            result = self._conversation.take(id)
        finally:
            self._conversation.forget(id)
        try:
            return call.read(result)
        except BadParams as error:
            raise NoDaemon(self.path, str(error)) from None

    def notification(self) -> Notification:
        """The next thing that the daemon says without being asked."""
        notifications = self._conversation.notifications
        self._until(lambda: bool(notifications), None)
        return notifications.popleft()

    def _until(self, true: Callable[[], bool], deadline: float | None) -> None:
        """Wait until what has come makes it true."""
        while not true():
            self._wait(select.POLLIN, deadline)
            self._guarded(self._receive)

    def _check(self) -> None:
        """Where the connection is over, every call says why it is."""
        if self._over is not None:
            raise attrs.evolve(self._over)

    def _wait(self, what: int, deadline: float | None) -> None:
        """Until the socket is ready for ``what``. Where no byte is in our hands it may be interrupted."""
        self._check()
        poll = select.poll()
        poll.register(self._socket, what)
        while True:
            left = GLANCE if deadline is None else min(GLANCE, max(0.0, deadline - time.monotonic()))
            if poll.poll(left * 1000):
                return
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError("no reply in time")

    def _guarded(self, act: Callable[..., None], *args: Any) -> None:
        """What must not be left half done: whoever interrupts it ends the connection. So do refusals and errors,
        which are told where no reply has come before them.
        """
        try:
            act(*args)
        except BaseException as error:
            if isinstance(error, Refused):
                self._end(error)
            elif isinstance(error, OSError | WireError) and not isinstance(error, TimeoutError):
                self._end(NoDaemon(self.path, reason(error)))
            else:
                self._end(NoDaemon(self.path, "a call was interrupted half way; connect again"))
                raise

    def _send(self, data: bytes, deadline: float | None) -> None:
        rest = memoryview(data)
        try:
            while rest := rest[self._socket.send(rest, socket.MSG_DONTWAIT) :]:
                self._wait(select.POLLOUT, deadline)
        except (BrokenPipeError, ConnectionResetError):
            pass  # what the daemon said before it hung up tells more; it is read next

    def _receive(self) -> None:
        data = self._socket.recv(CHUNK)
        if not data:
            raise ConnectionResetError("the connection was closed")
        self._conversation.receive(data)


def connect(path: str) -> Connection:
    """Connect.

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
    return Connection(path, sock)
