"""What goes out on a connection: replies and notifications, one write after the other, each whole.

A peer that reads nothing has one of them in memory as bytes, and is let go of after a while.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Final

import attrs
import orjson
import trio

from taskd import rpc, wire
from taskd.connection.context import Limits
from taskd.errors import InternalError
from taskd.model import JSON, Caller
from taskd.service import Unread

logger = logging.getLogger("taskd.connection")

# Bytes per write.
WRITTEN: Final = 65536


def always() -> bool:
    """It is wanted, whenever its turn comes."""
    return True


@attrs.define(eq=False)
class Outgoing:
    """The sending side of ``stream``; ``peer`` is for the log, ``user`` whom the replies are counted for."""

    stream: trio.SocketStream
    framing: wire.Opening
    limits: Limits
    peer: Caller
    unread: Unread = attrs.field(factory=Unread)
    user: str = attrs.field(default=attrs.Factory(lambda own: own.peer.user, takes_self=True))
    # One task may begin with what another finishes, which a lock does not allow.
    _turn: trio.Semaphore = attrs.field(factory=lambda: trio.Semaphore(1, max_value=1))
    _begun: bool = False  # what was offered has the turn until it is passed on
    _cut: bool = False  # a message is out in part, and its rest will not come
    _held: int = 0  # bytes of the replies that wait for their turn

    async def say(self, reply: JSON) -> None:
        """Send a reply that nothing holds up but the peer itself.

        Raises:
            BrokenResourceError: it asks and does not read, here or on others of its connections, and its replies
                would fill our memory.
        """
        size = len(orjson.dumps(reply, default=repr)) if self._taken else 0
        if self._held and self._held + size > self.limits.max_reply_bytes:
            raise trio.BrokenResourceError
        self._held += size
        try:
            with self.unread.held(self.user, size):
                await self.send(reply)
        finally:
            self._held -= size

    async def send(self, reply: JSON) -> None:
        """Send it in its turn. Cancelled, it is sent in part; then nothing else can be."""
        await self.tell([reply])

    async def tell(self, replies: Sequence[JSON], wanted: Callable[[], bool] = always) -> None:
        """Send them in their turn, if they are ``wanted`` then.

        Raises:
            BrokenResourceError: the peer does not read, or has gone.
        """
        await self._take_turn()
        try:
            # Turned into bytes when its turn has come: a peer that reads nothing has one reply in memory, not all.
            if wanted():
                await self._write(b"".join(map(self.said, replies)))
        finally:
            self._turn.release()

    async def pass_on(self, data: bytes | bytearray) -> None:
        """Send what replies have ``said``, in its turn, which is now if it was ``offer``ed; see ``tell``."""
        if not self._begun:
            await self._take_turn()
        self._begun = False
        try:
            await self._write(data)
        finally:
            self._turn.release()

    def offer(self, data: bytearray) -> None:
        """Send of what replies have ``said`` as much as goes out now, nothing while another is being sent.

        What is left is in ``data``. It must be passed on, whatever happens: nothing else goes out before it.

        Raises:
            BrokenResourceError: the peer has gone.
        """
        if not self._taken:
            del data[: self._fits(data)]
            if data:
                self._turn.acquire_nowait()
                self._begun = True

    @property
    def _taken(self) -> bool:
        return not self._turn.value

    async def _take_turn(self) -> None:
        if self._taken:
            await self._turn.acquire()
        else:  # no detour over the scheduler for what nobody disputes
            self._turn.acquire_nowait()

    async def _write(self, whole: bytes | bytearray) -> None:
        # Most replies fit into the socket: then neither a deadline nor a turn of the scheduler is needed.
        data = memoryview(whole)[self._fits(whole) :]
        if data:
            self._cut = True  # unless what follows comes to its end
            with self.unread.held(self.user, len(data) - self._held):  # what has waited is counted already
                await self._write_on(data)
            self._cut = False

    async def _write_on(self, data: memoryview) -> None:
        for at in range(0, len(data), WRITTEN):
            with trio.move_on_after(self.limits.reader_deadline_s) as reading:
                await self.stream.send_all(data[at : at + WRITTEN])
            if reading.cancelled_caught:
                logger.warning("%r does not read its replies; its connection is closed", self.peer)
                raise trio.BrokenResourceError

    def _fits(self, data: bytes | bytearray) -> int:
        """Write what the socket takes now; how many bytes that was."""
        if self._cut:
            raise trio.BrokenResourceError
        try:
            return os.write(self.stream.socket.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError:
            raise trio.BrokenResourceError from None

    def said(self, reply: JSON) -> bytes:
        """A reply as the peer reads it."""
        try:
            return self.framing.reply(reply)
        except TypeError:  # an operation's result is no JSON after all
            logger.exception("a reply to %r cannot be said in JSON", self.peer)
            return self.framing.reply(rpc.refuse(InternalError()))
