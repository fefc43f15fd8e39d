"""One connection on trio: as many calls in flight as there are tasks that call, and the notifications beside them.

No task runs in the background. One of those who wait for a reply reads for all of them, and leaves the seat
to another when it has its own; so an error surfaces where it is waited for, unwrapped.

A call that is cancelled leaves the connection in step: what was left of its bytes goes out ahead of the next
call's, and its reply is dropped. The daemon goes on with what was asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import attrs
import trio

from taskd.client.conversation import Call, Conversation, Notification, hung_up, reason
from taskd.errors import BadParams, NoDaemon, Refused, WireError

T = TypeVar("T")

CHUNK: Final = 65536


@attrs.define(eq=False, repr=False)
class Connection:
    """A connection to the daemon on ``path``.

    Every call raises Refused where the daemon does not grant it, and NoDaemon where nobody answers any more.
    """

    path: str
    _socket: trio.socket.SocketType
    _conversation: Conversation = attrs.field(factory=Conversation, init=False)
    _unsent: bytearray = attrs.field(factory=bytearray, init=False)
    _sending: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _reading: bool = attrs.field(default=False, init=False)
    _news: trio.Event = attrs.field(factory=trio.Event, init=False)
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
        self._socket.close()  # whoever still sends wakes up

    async def ask(self, call: Call[T]) -> T:
        """The result of a call, as its verb reads it."""
        await self._until(lambda: self._conversation.room(call))
        self._check()
        id, data = self._conversation.call(call)
        try:
            self._unsent += data
            await self._send()
            await self._until(lambda: self._conversation.has_reply(id))
            result = self._conversation.take(id)
        finally:
            self._conversation.forget(id)
        try:
            return call.read(result)
        except BadParams as error:
            raise NoDaemon(self.path, str(error)) from None

    async def notification(self) -> Notification:
        """The next thing that the daemon says without being asked."""
        notifications = self._conversation.notifications
        await self._until(lambda: bool(notifications))
        return notifications.popleft()

    async def _send(self) -> None:
        async with self._sending:
            while self._unsent and self._over is None:
                try:
                    sent = await self._socket.send(self._unsent)
                except (BrokenPipeError, ConnectionResetError):
                    return  # what the daemon said before it hung up tells more; it is read next
                except (OSError, trio.ClosedResourceError) as error:
                    self._end(NoDaemon(self.path, reason(error)))
                    return
                del self._unsent[:sent]

    async def _until(self, true: Callable[[], bool]) -> None:
        """Wait until what has come makes it true; read where nobody else does."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not true():
            self._check()
            if self._reading:
                await self._news.wait()
                continue
            self._reading = True
            try:
                await self._receive()
            finally:
                self._reading = False
                self._news.set()  # to those it has come for, and to the one who reads next
                self._news = trio.Event()

    async def _receive(self) -> None:
        try:
            data = await self._socket.recv(CHUNK)
            if not data:
                raise ConnectionResetError("the connection was closed")
            self._conversation.receive(data)
        except Refused as error:
            self._end(error)
        except (OSError, WireError, trio.ClosedResourceError) as error:
            self._end(NoDaemon(self.path, reason(error)))

    def _check(self) -> None:
        """Where the conversation is over, it is so for everybody who is in it."""
        if self._over is not None:
            raise attrs.evolve(self._over)


async def connect(path: str) -> Connection:
    """Connect.

    Raises:
        NoDaemon: nobody listens there, or we may not connect.
    """
    sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    try:
        await sock.connect(path)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError | ValueError):
            raise NoDaemon(path, reason(error)) from None
        raise
    return Connection(path, sock)
