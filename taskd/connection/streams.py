"""Streams that a connection carries beside its replies: subscriptions, and what each may do to the bytes.

The law: a stream is ended between two of its messages, never in the middle of one, whatever ends it: the peer, a
token that is withdrawn, or the daemon's stop. Only a connection that ends itself cuts a message short.
"""

from __future__ import annotations

import logging
import select
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Final, TypeVar

import attrs
import trio

from taskd import rpc
from taskd.dialects import Stream
from taskd.errors import DoesNotExist, TaskdError, TooManySubscriptions
from taskd.model import JSON

logger = logging.getLogger("taskd.connection")

T = TypeVar("T")

# Sends messages in their turn, if ``wanted`` is still true then.
Send = Callable[[Sequence[JSON], Callable[[], bool]], Awaitable[None]]


# Seconds between two looks whether a peer that waits for an answer is still there, when its socket is readable
# for ever: it has closed its sending side, or sent what is not to be read yet.
LOOK: Final = 1.0


def gone(stream: trio.SocketStream) -> bool:
    """The peer has closed both sides."""
    poll = select.poll()
    poll.register(stream.socket.fileno(), 0)
    return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))


async def until_gone(stream: trio.SocketStream) -> None:
    """Wait until the peer has closed both sides; what it sends meanwhile is not read."""
    while True:
        await trio.lowlevel.wait_readable(stream.socket)
        if gone(stream):
            return
        await trio.sleep(LOOK)


async def while_there(watch: Callable[[trio.CancelScope], Awaitable[None]], call: Callable[[], Awaitable[T]]) -> T:
    """What ``call`` gives, for a peer that waits for it: ``watch`` cancels a scope when it has gone.

    Raises:
        BrokenResourceError: it has.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, nursery.cancel_scope)
        result = await call()
        nursery.cancel_scope.cancel()
        return result
    raise trio.BrokenResourceError


@attrs.define(eq=False)
class Following:
    """One stream under way."""

    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _sending: bool = False
    over: bool = False

    def end(self) -> None:
        """End it, as soon as the message that it may be sending is out."""
        self.over = True
        if not self._sending:
            self._scope.cancel()

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do the work, which sends by ``send`` alone, until it is done or ended."""
        with self._scope:
            if not self.over:
                await work()

    async def send(self, send: Send, *messages: JSON) -> None:
        """Send some messages; those that come to their turn after the end are not sent."""

        def begin() -> bool:
            self._sending = not self.over
            return self._sending

        try:
            await send(messages, begin)
        finally:
            self._sending = False
        if self.over:
            self._scope.cancel()
        await trio.lowlevel.checkpoint()  # what fits into the socket waits for nothing, and others have their turn


@attrs.define(eq=False)
class Subscriptions:
    """The streams of one connection by their names, at most ``limit`` at a time."""

    limit: int
    # Of those that are told in batches, one at a time has one.
    turn: trio.Lock = attrs.field(factory=trio.Lock)
    _open: dict[str, Following] = attrs.field(factory=dict)
    _numbers: Iterator[int] = attrs.field(factory=lambda: count(1))
    _over: bool = False

    def add(self, name: str | None = None) -> tuple[str, Following]:
        """A new one; where its ``name`` is taken, the stream that had it is ended.

        Raises:
            TooManySubscriptions: there are ``limit`` already.
        """
        if name is None:
            name = f"s{next(self._numbers)}"
        elif name in self._open:
            self.close(name)
        if len(self._open) >= self.limit:
            raise TooManySubscriptions(self.limit)
        following = self._open[name] = Following(over=self._over)
        return name, following

    def close(self, name: str) -> None:
        """Raises DoesNotExist."""
        following = self._open.pop(name, None)
        if following is None:
            raise DoesNotExist("subscription", name)
        following.end()

    def done(self, name: str, following: Following) -> None:
        """It has come to its end by itself."""
        if self._open.get(name) is following:
            del self._open[name]

    def end(self) -> None:
        """End them all; one that is opened after this has its end already."""
        self._over = True
        for following in self._open.values():
            following.end()


@attrs.define(eq=False)
class Opened:
    """The channel of one message: what it opens begins after the reply to it (``dialects.Channel``)."""

    subscriptions: Subscriptions
    streams: list[tuple[str, Following, Stream]] = attrs.field(factory=list)

    @property
    def turn(self) -> trio.Lock:
        return self.subscriptions.turn

    def open(self, stream: Stream) -> str:
        name, following = self.subscriptions.add()
        self.streams.append((name, following, stream))
        return name

    def close(self, subscription: str) -> None:
        self.subscriptions.close(subscription)

    async def follow(self, name: str, following: Following, stream: Stream, send: Send) -> None:
        """Send what the stream tells, as notifications of JSON-RPC 2.0, until it ends.

        Where it cannot go on, that is the end of it alone: a last notification has the ``error`` of a reply.
        """

        async def tell(some: Sequence[Mapping[str, JSON]]) -> None:
            said = {"jsonrpc": "2.0", "method": stream.method}
            told = [{**said, "params": {"subscription": name, **params}} for params in some]
            await following.send(send, *told)

        async def work() -> None:
            try:
                await stream.run(tell)
            except TaskdError as error:
                logger.warning("%s: subscription %s has ended: %s", stream.method, name, error)
                refusal = rpc.refuse(error)
                assert isinstance(refusal, dict)
                await tell([{"error": refusal["error"]}])

        try:
            await following.run(work)
        finally:
            self.subscriptions.done(name, following)
