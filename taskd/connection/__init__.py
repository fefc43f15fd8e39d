"""One trio stream: bytes -> wire -> rpc or web -> dialects -> service, and back.

Quick calls are answered in the order they came, one after the other, so that a client that sends faster than it
reads is slowed down by its own socket. Long calls (``Task.wait``) of a JSON framing are answered when they are
ready and hold up nobody; over HTTP, where answers have the order of the requests, they hold up what comes after
them on this connection. A peer that closes its sending side still gets all its answers; for one that hangs up,
and when the daemon stops, nothing waits any more.

This is the error boundary of one connection: whatever a peer does ends at most its own connection.
"""

from __future__ import annotations

import logging
import re
import select
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import attrs
import orjson
import trio

from taskd import rpc, web, wire
from taskd.dialects import Method
from taskd.errors import InternalError, WireError, XenApiError
from taskd.model import JSON, Caller
from taskd.service import Service

logger = logging.getLogger("taskd.connection")

# Bytes per read.
CHUNK: Final = 65536

# Seconds between two looks whether a peer that waits for an answer is still there, when its socket is readable
# for ever: it has closed its sending side, or sent what is not to be read yet.
LOOK: Final = 1.0

# Seconds in which a peer that sends on after it was refused may come to read why.
LINGER: Final = 1.0

# The calls of XenAPI that wait for something to happen (xen-api, ocaml/xapi/xapi_event.ml).
WAITING: Final = re.compile(r"event[._](?:from|next)", re.IGNORECASE)


@attrs.frozen
class Limits:
    """What one connection may cost (law L10); the numbers are ``config.Config``'s."""

    max_message_bytes: int = 1024 * 1024
    max_depth: int = 100
    max_batch: int = 10_000
    max_reply_bytes: int = 16 * 1024 * 1024
    message_deadline_s: float = 30.0
    requests_in_flight: int = 256


@attrs.define(eq=False)
class Connection:
    """A peer on ``stream``, whose caller the kernel has told us."""

    stream: trio.SocketStream
    caller: Caller
    service: Service
    methods: Mapping[str, Method]
    xenapi: rpc.Positional
    limits: Limits = Limits()
    _framing: wire.Framing = attrs.field(init=False)
    _site: web.Site = attrs.field(init=False)
    _calls: rpc.Methods = attrs.field(init=False)
    _sending: trio.Lock = attrs.field(factory=trio.Lock)
    _room: trio.Semaphore = attrs.field(init=False)
    _interruptible: set[trio.CancelScope] = attrs.field(factory=set)
    _stopping: bool = False
    _held: int = 0  # bytes of the replies that wait for their turn

    def __attrs_post_init__(self) -> None:
        size, depth = self.limits.max_message_bytes, self.limits.max_depth
        self._framing = wire.Opening(size, depth)
        self._site = web.Site(self.service, self._reply_now, self._call_now, size, depth)
        self._calls = {name: self._bound(method) for name, method in self.methods.items()}
        self._room = trio.Semaphore(self.limits.requests_in_flight)

    def __repr__(self) -> str:
        return f"<Connection of {self.caller!r} {self._framing!r}>"

    def _bound(self, method: Method) -> Callable[..., Awaitable[JSON]]:
        async def call(caller: Caller, /, **params: JSON) -> JSON:
            return await method(self.service, caller, params)

        return call

    async def serve(self) -> None:
        """Answer until the peer is done or gone; closes the stream."""
        try:
            async with self.stream:
                async with trio.open_nursery() as watching:
                    async with trio.open_nursery() as answering:
                        await self._converse(answering)
                        if answering.child_tasks:
                            watching.start_soon(self._watch, watching.cancel_scope)
                    watching.cancel_scope.cancel()
                if self._framing.broken:
                    await self._linger()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            logger.debug("%r went away", self.caller)
        except* Exception:
            logger.exception("the connection of %r failed", self.caller)

    def stop(self) -> None:
        """The daemon stops: read no more, wait no more; a quick call under way is still answered."""
        self._stopping = True
        for scope in self._interruptible:
            scope.cancel()

    @contextmanager
    def _until_stopped(self, deadline: float = float("inf")) -> Iterator[trio.CancelScope]:
        with trio.CancelScope(deadline=deadline) as scope:
            self._interruptible.add(scope)
            if self._stopping:
                scope.cancel()
            try:
                yield scope
            finally:
                self._interruptible.discard(scope)

    async def _converse(self, answering: trio.Nursery) -> None:
        framing, spoken = self._framing, False
        deadline = trio.current_time() + self.limits.message_deadline_s
        while not self._stopping and not framing.broken:
            with self._until_stopped(deadline) as reading:
                data = await self.stream.receive_some(CHUNK)
            if reading.cancelled_caught:
                if not self._stopping:
                    seconds = self.limits.message_deadline_s
                    late = framing.timed_out(f"no complete message within {seconds} seconds")
                    await self._take(late, answering)
                return
            was_partial = framing.partial
            messages = framing.receive(data)
            spoken = spoken or bool(messages)
            for message in messages:
                await self._take(message, answering)
            if not data:
                return
            if spoken and not framing.partial:
                deadline = float("inf")
            elif spoken and (messages or not was_partial):
                deadline = trio.current_time() + self.limits.message_deadline_s

    async def _take(self, message: wire.Message, answering: trio.Nursery) -> None:
        match message:
            case wire.Request():
                await self._send(await web.respond(message, self._site))
            case wire.Response():
                await self._send(message)
            case WireError():
                await self._send(rpc.refuse(message))
            case _ if self._is_long(message):
                await self._admit()
                answering.start_soon(self._answer_later, message)
            case _:
                await self._answer(message)

    def _is_long(self, message: JSON) -> bool:
        return any(map(self._waits, rpc.methods_in(message)))

    def _waits(self, name: str) -> bool:
        method = self.methods.get(name)
        return method.long if method is not None else bool(WAITING.fullmatch(name))

    # A JSON framing: an answer whenever there is one.

    async def _answer_later(self, message: JSON) -> None:
        try:
            with self._until_stopped():
                await self._answer(message)
        finally:
            self._room.release()

    async def _answer(self, message: JSON) -> None:
        reply = await self._reply(message)
        if reply is None:
            return
        size = len(orjson.dumps(reply, default=repr)) if self._sending.locked() else 0
        if self._held and self._held + size > self.limits.max_reply_bytes:
            raise trio.BrokenResourceError  # it asks and does not read, and its replies would fill our memory
        self._held += size
        try:
            await self._send(reply)
        finally:
            self._held -= size

    async def _reply(self, message: JSON, subtask_of: str = "") -> JSON | None:
        return await rpc.answer(
            message,
            self._calls,
            self.caller,
            max_batch=self.limits.max_batch,
            max_reply_bytes=self.limits.max_reply_bytes,
            positional=rpc.Part(self.xenapi, subtask_of),
        )

    # HTTP: nothing else is read or said until there is the answer.

    async def _reply_now(self, message: JSON, subtask_of: str) -> JSON | None:
        reply = partial(self._reply, message, subtask_of)
        return await (self._while_there(reply) if self._is_long(message) else reply())

    async def _call_now(self, method: str, args: Sequence[JSON], subtask_of: str) -> JSON:
        call = partial(rpc.call_positional, rpc.Part(self.xenapi, subtask_of), self.caller, method, args)
        return await (self._while_there(call) if self._waits(method) else call())

    async def _while_there(self, call: Callable[[], Awaitable[JSON]]) -> JSON:
        """What ``call`` gives or refuses, as long as somebody waits for it.

        Raises:
            BrokenResourceError: the peer has hung up, or the daemon stops.
        """
        outcome: JSON | XenApiError = None
        with self._until_stopped() as waiting:
            async with trio.open_nursery() as watching:
                watching.start_soon(self._watch, waiting)
                try:
                    outcome = await call()
                except XenApiError as error:
                    outcome = error
                watching.cancel_scope.cancel()
        if waiting.cancelled_caught:
            raise trio.BrokenResourceError
        if isinstance(outcome, XenApiError):
            raise outcome
        return outcome

    async def _send(self, reply: JSON) -> None:
        # Turned into bytes when its turn has come: a peer that reads nothing has one reply in memory, not all.
        async with self._sending:
            try:
                data = self._framing.reply(reply)
            except TypeError:  # an operation's result is no JSON after all
                logger.exception("a reply to %r cannot be said in JSON", self.caller)
                data = self._framing.reply(rpc.refuse(InternalError()))
            await self.stream.send_all(data)

    async def _admit(self) -> None:
        """Wait for room for one more long call; nothing is read meanwhile, so nobody else would see the peer go.

        Raises:
            BrokenResourceError: it has gone.
        """
        while True:
            with trio.move_on_after(LOOK):
                return await self._room.acquire()
            if self._gone:
                raise trio.BrokenResourceError

    @property
    def _gone(self) -> bool:
        """The peer has closed both sides."""
        poll = select.poll()
        poll.register(self.stream.socket.fileno(), 0)
        return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Cancel ``scope`` when the peer has hung up altogether: nobody is there to read the answers."""
        while True:
            await trio.lowlevel.wait_readable(self.stream.socket)
            if self._gone:
                scope.cancel()
            await trio.sleep(LOOK)

    async def _linger(self) -> None:
        """Read a little of what a refused peer still sends: closed with bytes unread, its socket would break."""
        with self._until_stopped(trio.current_time() + LINGER):
            await self.stream.send_eof()
            while await self.stream.receive_some(CHUNK):
                pass
