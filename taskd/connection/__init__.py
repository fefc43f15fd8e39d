"""One trio stream: bytes -> wire -> rpc, web or frames -> dialects -> service, and back.

Quick calls are answered in the order they came, one after the other, so that a client that sends faster than it
reads is slowed down by its own socket. Long calls (``Task.wait``) of a JSON framing are answered when they are
ready and hold up nobody; over HTTP, where answers have the order of the requests, they hold up what comes after
them on this connection. A peer that closes its sending side still gets all its answers; for one that hangs up,
and when the daemon stops, nothing waits any more, and of a batch of calls of the former no more is begun.

Who calls is the peer, or over HTTP whom the token says that a proxy passes on; a WebSocket is its caller's for
good, and is closed when the token is withdrawn. A stream of notifications (``Task.watch``) is sent in the turns
between the replies, on a JSON framing and on a WebSocket.

This is the error boundary of one connection: whatever a peer does ends at most its own connection.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from math import inf
from time import perf_counter
from typing import Final

import attrs
import trio

from taskd import rpc, web, wire
from taskd.connection.context import Calls, Context, ForCaller, Limits
from taskd.connection.frames import Frames, calling
from taskd.connection.outgoing import WRITTEN, Outgoing
from taskd.connection.rest import TURN, Rest
from taskd.connection.room import Room
from taskd.connection.streams import Opened, Subscriptions, until_gone, while_there
from taskd.dialects.xenapi import XenApi
from taskd.errors import TaskdError, Unauthenticated, UnknownMethod, WireError, XenApiError
from taskd.metrics import UNKNOWN
from taskd.model import JSON, Caller
from taskd.service import OVER, Service

__all__ = ["Calls", "Connection", "Limits", "Rest"]

logger = logging.getLogger("taskd.connection")

# Bytes per read: little, because what is read is cut into messages at one go, and thousands of the smallest fit in
# it. A body or a long message takes some more reads; beyond ``web.AT_ONCE`` those wait for turns, and are larger.
CHUNK: Final = 8192
LONG_CHUNK: Final = 65536

# Seconds that a connection which is to end has for what is being sent on it.
PARTING: Final = 5.0

# Seconds in which a peer that sends on after it was refused may come to read why.
LINGER: Final = 1.0

# Seconds between two pings of a WebSocket; nginx cuts what is silent for sixty.
PING: Final = 25.0


@attrs.define(eq=False)
class Connection:
    """A peer on ``stream``, whose ``caller`` the kernel has told us; a WebSocket's may be another.

    ``_frames`` are there when it is a WebSocket of UCloud's, where bearers come with the calls.
    """

    stream: trio.SocketStream
    caller: Caller
    service: Service
    calls: Calls
    xenapi: XenApi
    paths: web.Paths
    rest: Rest
    limits: Limits = Limits()
    _framing: wire.Opening = attrs.field(init=False)
    _out: Outgoing = attrs.field(init=False)
    _positional: ForCaller = attrs.field(init=False)
    _subscriptions: Subscriptions = attrs.field(init=False)
    _frames: Frames | None = None
    _parting: tuple[int, str] = (1001, "")
    _room: Room = attrs.field(init=False)
    _life: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _reading: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _interruptible: set[trio.CancelScope] = attrs.field(factory=set)
    _stopping: bool = False
    _said: bytearray = attrs.field(factory=bytearray)  # answered and not sent yet

    def __attrs_post_init__(self) -> None:
        self._framing = wire.Opening(self.limits.max_message_bytes, self.limits.max_depth)
        self._out = Outgoing(self.stream, self._framing, self.limits, self.caller, self.service.unread)
        self._positional = ForCaller(self.xenapi, self.service)
        self._subscriptions = Subscriptions(self.limits.subscriptions_per_connection)
        self._room = Room(self.stream, self.limits.requests_in_flight, self.limits.max_message_bytes)

    def __repr__(self) -> str:
        return f"<Connection of {self.caller!r} {self._framing!r}>"

    async def serve(self) -> None:
        """Answer until the peer is done or gone; closes the stream."""
        try:
            async with self.stream:
                with self._life:
                    await self._serve()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            logger.debug("%r went away", self.caller)
        except* Exception:
            logger.exception("the connection of %r failed", self.caller)

    async def _serve(self) -> None:
        async with trio.open_nursery() as watching:
            async with trio.open_nursery() as answering:
                await self._converse(answering, watching)
                if self._framing.websocket and not self._stopping:  # nobody reads what else there is
                    answering.cancel_scope.cancel()
                if answering.child_tasks:
                    watching.start_soon(self._watch, watching.cancel_scope)
            if self._stopping:
                await self._part()
            watching.cancel_scope.cancel()
        if self._framing.broken:
            await self._linger()

    def stop(self, code: int = 1001, reason: str = "the daemon stops") -> None:
        """Read no more, wait no more; a quick call under way is still answered. A WebSocket's peer is told why."""
        self._stopping, self._parting = True, (code, reason)
        # What is being sent may be finished, by a peer that reads; nobody is waited for.
        self._life.deadline = min(self._life.deadline, trio.current_time() + PARTING)
        self._subscriptions.end()
        for scope in (self._reading, *self._interruptible):
            scope.cancel()

    @contextmanager
    def _until_stopped(self, deadline: float = inf) -> Iterator[trio.CancelScope]:
        with trio.CancelScope(deadline=deadline) as scope:
            self._interruptible.add(scope)
            if self._stopping:
                scope.cancel()
            try:
                yield scope
            finally:
                self._interruptible.discard(scope)

    async def _part(self) -> None:
        """Say to the peer of a WebSocket why it is closed."""
        if (control := self._framing.closing(*self._parting)) is not None:
            await self._out.send(control)

    async def _converse(self, answering: trio.Nursery, watching: trio.Nursery) -> None:
        framing, spoken, waiting, begun = self._framing, False, deque[wire.Message](), 0
        deadline = trio.current_time() + self.limits.message_deadline_s
        while not self._stopping and not framing.broken:
            with trio.CancelScope(deadline=deadline) as self._reading:
                data, came = await self._listen(waiting, begun, at_rest=deadline == inf)
            if self._reading.cancelled_caught:
                if not self._stopping:
                    seconds = self.limits.message_deadline_s
                    late = framing.timed_out(f"no complete message within {seconds} seconds")
                    await self._take(late, answering, watching)
                return
            spoken = spoken or came
            await self._send_said()
            while waiting and not self._stopping:
                if self._answer_at_once(waiting):
                    await self._send_said()
                else:  # no name for it: while the peer is silent, nothing is kept of what it said last
                    waiting.extend(await self._take(waiting.popleft(), answering, watching))
                if waiting:
                    await trio.lowlevel.checkpoint()  # whatever it was, others have their turn
            if not data:
                return
            if spoken and not framing.partial:
                deadline = inf
            elif spoken and (came or not begun):
                deadline = trio.current_time() + self.limits.message_deadline_s
            begun = (0 if came else begun) + len(data) if framing.partial else 0

    async def _listen(self, waiting: deque[wire.Message], begun: int, *, at_rest: bool) -> tuple[bytes, bool]:
        """What was read last, and whether there was a message in it; those left to answer are ``waiting``. Of one
        that has ``begun`` so many bytes were read before: of a long one, whoever reads its end parses it for long.

        At rest, where no message has begun and so no deadline changes, it reads on as long as all that comes is
        answered at once, in a crowd from where all such rest. A scope around each read would cost as much as such
        an answer; and nothing that a stop must not cut is waited for in here.
        """
        framing, fd, long = self._framing, self.stream.socket.fileno(), begun > web.AT_ONCE
        data, messages = b"", list[wire.Message]()

        def hear() -> bool:
            nonlocal data, messages
            try:
                data = os.read(fd, LONG_CHUNK if long else CHUNK)
            except BlockingIOError:
                return False
            except OSError:
                raise trio.BrokenResourceError from None
            messages = framing.receive(data)
            waiting.extend(messages)
            if self._answer_at_once(waiting):
                self._out.offer(self._said)
            done = not (waiting or self._said or framing.partial or framing.broken)
            return not (at_rest and data and done)

        await trio.lowlevel.wait_readable(fd)
        if long:
            await self.service.turns.on_loop(self.caller)
        while not hear():
            if self.rest.crowded:
                await self.rest.until(fd, hear)
                break
            await trio.lowlevel.wait_readable(fd)
        # A peer that only pings does not get on with its message.
        return data, any(not isinstance(each, wire.Control) for each in messages)

    async def _send_said(self) -> None:
        if self._said:
            await self._out.pass_on(self._said)
            self._said.clear()

    def _answer_at_once(self, waiting: deque[wire.Message]) -> bool:
        """Take from ``waiting`` those in front that are answered from memory; their replies, ``_said``, go out
        together, for a turn on the socket costs more than several of them. Whether there was one.
        """
        said, until = self._said, perf_counter() + TURN
        while waiting and self._frames is None:
            reply = self.calls.reply_at_once(waiting[0], self.caller, self.limits)
            if reply is None:
                break
            waiting.popleft()
            said += self._out.said(reply)
            if len(said) >= WRITTEN or perf_counter() > until:
                break
        return bool(said)

    async def _take(
        self, message: wire.Message, answering: trio.Nursery, watching: trio.Nursery
    ) -> Sequence[wire.Message]:
        """Answer it, or begin to; the messages behind a request for a WebSocket."""
        match message:
            case wire.Request() if message.websocket:
                return await self._upgrade(message, answering, watching)
            case wire.Request():
                await self._out.send(await web.respond(message, self._site(message), self.paths))
            case wire.Response() | wire.Control():
                await self._out.send(message)
            case WireError():
                self.service.metrics.refused(message)
                if self._frames is None:
                    await self._out.send(rpc.refuse(message))
            case _ if self._frames is not None:
                size = await self._room.enter(message)
                answering.start_soon(self._room.until_done, self._frames.begin(message), size)
            case _ if self.calls.any_waits(message):
                size = await self._room.enter(kept := rpc.reduced(message))
                answer = partial(self._answer, kept, answering, True)
                answering.start_soon(self._room.until_done, answer, size)
            case _:
                await self._answer(message, answering)
        return ()

    async def _upgrade(
        self, request: wire.Request, answering: trio.Nursery, watching: trio.Nursery
    ) -> Sequence[wire.Message]:
        """Grant a WebSocket, or say why not; the messages that had come behind the request."""
        site = self._site(request)
        kind, refusal = web.socket(request, site, self.paths)
        if refusal is not None:
            await self._out.send(refusal)
            return ()
        data, behind = self._framing.upgrade()
        await self.stream.send_all(data)
        watching.start_soon(self._keep_alive)
        if kind == web.FRAMES:
            who = partial(calling, self.service, self.caller, site.caller)
            self._frames = Frames(self.service, who, self._out, self._subscriptions, answering)
            watching.start_soon(self._frames.keep_alive)
            if isinstance(site.caller, Unauthenticated):
                watching.start_soon(self._expect_a_bearer, self._frames)
        else:
            self.caller = site.known
        if isinstance(site.caller, Caller):
            watching.start_soon(self._withdraw, site.caller)
        return behind

    async def _expect_a_bearer(self, frames: Frames) -> None:
        """A proxy's WebSocket without a token is nobody's: it must bring one as soon as a first message."""
        await trio.sleep(self.limits.message_deadline_s)
        if not frames.known:
            self.stop(1008, f"no bearer came within {self.limits.message_deadline_s} seconds")

    async def _keep_alive(self) -> None:
        """Ping, so that no proxy takes a WebSocket for dead on which nothing happens. Never returns."""
        while True:
            await trio.sleep(PING)
            await self._out.send(self._framing.ping())

    async def _withdraw(self, caller: Caller) -> None:
        """Close the WebSocket when the token that it was opened with does not count any more."""
        await self.service.tokens.withdrawn(caller)
        self.stop(1008, OVER)

    # A JSON framing: an answer whenever there is one.

    async def _answer(self, message: JSON, answering: trio.Nursery, long: bool = False) -> None:
        opened, reply = Opened(self._subscriptions), None
        with self._until_stopped() if long else nullcontext():  # what is being sent is not cut
            reply = await self._reply(message, Context(self.caller, opened))
        if reply is not None:
            await self._out.say(reply)
        else:  # a row of notifications must not keep the rest of the daemon waiting
            await trio.lowlevel.checkpoint()
        for each in opened.streams:
            answering.start_soon(opened.follow, *each, self._out.tell)

    async def _reply(self, message: JSON, context: Context, subtask_of: str = "") -> JSON | None:
        answer = partial(
            rpc.answer,
            message,
            self.calls.awaited,
            context,
            max_batch=self.limits.max_batch,
            max_reply_bytes=self.limits.max_reply_bytes,
            held=partial(self.service.unread.held, context.caller.user),
            pages=self.calls.pages,
            positional=rpc.Part(self._positional, subtask_of),
            refused=self._refused,
        )
        watched = rpc.is_batch_of_calls(message) and not self.calls.any_waits(message)
        return await (while_there(self._watch, answer) if watched else answer())

    def _refused(self, error: TaskdError) -> None:
        if isinstance(error, UnknownMethod) and error.method not in self.calls.methods:
            self.service.metrics.request("native", UNKNOWN, 0.0)
        self.service.metrics.refused(error)

    # HTTP: nothing else is read or said until there is the answer.

    def _site(self, request: wire.Request) -> web.Site:
        caller: Caller | Unauthenticated
        try:
            caller = self.service.tokens.who(self.caller, request.header("authorization"))
            self._out.user = caller.user
        except Unauthenticated as error:
            caller = error
        size, depth = self.limits.max_message_bytes, self.limits.max_depth
        return web.Site(self.service, caller, self._reply_now, self._call_now, size, depth)

    async def _reply_now(self, caller: Caller, message: JSON, subtask_of: str) -> JSON | None:
        reply = partial(self._reply, message, Context(caller), subtask_of)
        return await (self._while_there(caller, reply) if self.calls.any_waits(message) else reply())

    async def _call_now(self, caller: Caller, method: str, args: Sequence[JSON], subtask_of: str) -> JSON:
        part = rpc.Part(self._positional, subtask_of)
        call = partial(rpc.call_positional, part, Context(caller), method, args)
        return await (self._while_there(caller, call) if self.calls.waits(method) else call())

    async def _while_there(self, caller: Caller, call: Callable[[], Awaitable[JSON]]) -> JSON:
        """What ``call`` gives or refuses, as long as somebody waits for it who may.

        Raises:
            BrokenResourceError: the peer has hung up, or the daemon stops.
            Unauthenticated: the token was withdrawn, or its time is over.
        """
        outcome: JSON | XenApiError = None
        with self._until_stopped() as waiting, self.service.tokens.held(caller) as held:
            async with trio.open_nursery() as watching:
                watching.start_soon(self._watch, waiting)
                try:
                    outcome = await call()
                except XenApiError as error:
                    outcome = error
                watching.cancel_scope.cancel()
        if waiting.cancelled_caught:
            raise trio.BrokenResourceError
        if held.cancelled_caught:
            raise Unauthenticated(OVER)
        if isinstance(outcome, XenApiError):
            raise outcome
        return outcome

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Cancel ``scope`` when the peer has hung up altogether: nobody is there to read the answers."""
        if self._framing.broken:  # it may be in the middle of sending, and read nothing before that is done
            await self._pass_over()
        await until_gone(self.stream)
        scope.cancel()

    async def _linger(self) -> None:
        """Read a little of what a refused peer still sends: closed with bytes unread, its socket would break."""
        with self._until_stopped(trio.current_time() + LINGER):
            await self.stream.send_eof()
            await self._pass_over()

    async def _pass_over(self) -> None:
        """Read what nobody looks at any more, to its end."""
        with suppress(trio.BrokenResourceError):
            while await self.stream.receive_some(CHUNK):
                pass
