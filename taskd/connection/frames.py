"""UCloud's calls over one WebSocket: many at a time, each on a stream of its own, each with its own bearer.

What is no call is passed over in silence, as the original does (SDU-eScience/UCloud, service-lib-server,
IngoingWebSocketInterceptor.kt), unless it names a stream; unlike there, a second ``listen`` replaces only the one
with the same stream id, and a ``listen`` whose token is withdrawn is told so (401).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from time import perf_counter
from typing import Final

import attrs
import trio

from taskd.connection.outgoing import Outgoing
from taskd.connection.streams import Following, Subscriptions
from taskd.dialects import Reply, ucloud
from taskd.errors import InternalError, TaskdError, Unauthenticated
from taskd.metrics import UNKNOWN
from taskd.model import JSON, Caller
from taskd.service import OVER, Service

logger = logging.getLogger("taskd.connection")

# Seconds between two signs of life, as the original's.
EVERY: Final = 60.0

# The longest name of a stream, in characters: it is in each of its messages.
STREAM_ID: Final = 256


def calling(service: Service, peer: Caller, otherwise: Caller | Unauthenticated, bearer: str | None) -> Caller:
    """Who calls with that bearer; without one, whom the WebSocket was granted to.

    Raises:
        Unauthenticated: the bearer is not good, or there is none and nobody is known.
    """
    if bearer is not None:
        return service.tokens.who(peer, f"Bearer {bearer}")
    if isinstance(otherwise, Unauthenticated):
        raise otherwise
    return otherwise


@attrs.define(eq=False)
class Frames:
    """The calls of one peer. ``who`` tells who calls with a bearer, None for none.

    What is listened to is told in ``telling``, after the call is done. ``known``: a call has come with a good
    bearer, or from somebody who needs none.
    """

    service: Service
    who: Callable[[str | None], Caller]
    out: Outgoing
    subscriptions: Subscriptions
    telling: trio.Nursery
    known: bool = False

    def begin(self, message: JSON) -> Callable[[], Awaitable[None]]:
        """What is to be done for one frame; of the frame it keeps no more than that needs.

        It answers with a response or, for a ``listen``, begins messages that come until that ends.
        """
        call = ucloud.FrameCall.parse(message)
        if call is None:
            match message:
                case {"streamId": str(stream_id)} if len(stream_id) <= STREAM_ID:
                    # The original says nothing, which helps nobody.
                    return partial(self._respond, stream_id, ucloud.NO_CALL)
            return _nothing
        if len(call.stream_id) > STREAM_ID:
            return _nothing
        try:
            caller = self.who(call.bearer)
            self.known = True
            listening = ucloud.STREAMS.get(call.call)
            if listening is None:
                return partial(self._answer, caller, call)
            told = listening(self.service, caller, call.payload)
            self.service.metrics.request("ucloud", call.call, 0.0)
            return partial(self._listen, caller, call.stream_id, told)
        except TaskdError as error:
            self.service.metrics.refused(error)
            return partial(self._respond, call.stream_id, ucloud.refuse_frame(error))

    async def _respond(self, stream_id: str, reply: Reply) -> None:
        await self.out.say(ucloud.response(stream_id, reply))

    async def _answer(self, caller: Caller, call: ucloud.FrameCall) -> None:
        began = perf_counter()
        reply = await ucloud.call(self.service, caller, call.call, call.payload)
        name = call.call if call.call in ucloud.CALLS else UNKNOWN
        self.service.metrics.request("ucloud", name, perf_counter() - began)
        await self._respond(call.stream_id, reply)

    async def _listen(
        self, caller: Caller, stream_id: str, told: AsyncGenerator[Mapping[str, JSON], None]
    ) -> None:
        """Of the call nothing is kept while it is told, so it needs no room of the calls (``Room``)."""
        try:
            name, following = self.subscriptions.add(stream_id)
        except TaskdError as error:
            await self._respond(stream_id, ucloud.refuse_frame(error))
        else:
            self.telling.start_soon(self._tell, caller, name, following, told)

    async def _tell(
        self, caller: Caller, stream_id: str, following: Following, told: AsyncGenerator[Mapping[str, JSON], None]
    ) -> None:
        """Tell, until another stream takes the id, or the token does not count any more."""
        fault: TaskdError | None = None

        async def tell() -> None:
            nonlocal fault
            try:
                async with aclosing(told):
                    async for update in told:
                        await following.send(self.out.tell, ucloud.message(stream_id, update))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise
            except TaskdError as error:
                fault = error
            except Exception:
                logger.exception("a listen of %r failed unforeseen", caller)
                fault = InternalError()

        try:
            if caller.token is None:
                await following.run(tell)
            elif await self._while_held(caller, following, tell):
                fault = Unauthenticated(OVER)
        finally:
            self.subscriptions.done(stream_id, following)
        if fault is not None:
            await self._respond(stream_id, ucloud.refuse_frame(fault))

    async def _while_held(self, caller: Caller, following: Following, tell: Callable[[], Awaitable[None]]) -> bool:
        """Tell as long as the caller's token counts; whether that was the end of it."""
        withdrawn = False

        async def withdraw() -> None:
            nonlocal withdrawn
            await self.service.tokens.withdrawn(caller)
            withdrawn = True
            following.end()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(withdraw)
            await following.run(tell)
            nursery.cancel_scope.cancel()
        return withdrawn

    async def keep_alive(self) -> None:
        """Now and then a frame that every client passes over. Never returns."""
        while True:
            await trio.sleep(EVERY)
            await self.out.tell([ucloud.PING])


async def _nothing() -> None:
    """What is no call is passed over."""
