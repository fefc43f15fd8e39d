"""UCloud's calls over one WebSocket: many at a time, each on a stream of its own, each with its own bearer.

What is no call is passed over in silence, as the original does (SDU-eScience/UCloud, service-lib-server,
IngoingWebSocketInterceptor.kt), unless it names a stream; unlike there, a second ``listen`` replaces only the one
with the same stream id, and a ``listen`` whose token is withdrawn is told so (401).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import aclosing
from time import perf_counter
from typing import Final

import attrs
import trio

from taskd.connection.streams import Send, Subscriptions
from taskd.dialects import ucloud
from taskd.errors import InternalError, TaskdError, Unauthenticated
from taskd.metrics import UNKNOWN
from taskd.model import JSON, Caller
from taskd.service import Service

logger = logging.getLogger("taskd.connection")

# Seconds between two signs of life, as the original's.
EVERY: Final = 60.0


@attrs.define(eq=False)
class Frames:
    """The calls of one peer. ``who`` tells who calls with a bearer, None for none; ``send`` sends messages."""

    service: Service
    who: Callable[[str | None], Caller]
    send: Send
    subscriptions: Subscriptions

    async def answer(self, message: JSON) -> None:
        """Answer one frame, with a response or, for a ``listen``, with messages until it ends."""
        call = ucloud.FrameCall.parse(message)
        if call is None:
            match message:
                case {"streamId": str(stream_id)}:  # the original says nothing, which helps nobody
                    await self.send([ucloud.response(stream_id, ucloud.NO_CALL)], _always)
            return
        known = call.call in ucloud.CALLS or call.call in ucloud.STREAMS
        began = perf_counter()
        try:
            await self._answer(call)
        finally:
            name = call.call if known else UNKNOWN
            self.service.metrics.request("ucloud", name, perf_counter() - began)

    async def _answer(self, call: ucloud.FrameCall) -> None:
        try:
            caller = self.who(call.bearer)
            listening = ucloud.STREAMS.get(call.call)
            if listening is not None:
                await self._listen(caller, call, listening)
                return
            reply = await ucloud.call(self.service, caller, call.call, call.payload)
        except TaskdError as error:
            self.service.metrics.refused(error)
            reply = ucloud.refuse_frame(error)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise
        except Exception:
            logger.exception("%s failed unforeseen", call.call)
            reply = ucloud.refuse_frame(InternalError())
        await self.send([ucloud.response(call.stream_id, reply)], _always)

    async def _listen(self, caller: Caller, call: ucloud.FrameCall, listening: ucloud.Listen) -> None:
        """Tell, until another stream takes the id.

        Raises:
            InvalidRequest, PermissionDenied: nothing was told.
            TooManySubscriptions: nothing was told.
            Unauthenticated: the token was withdrawn, or its time is over.
        """
        told = listening(self.service, caller, call.payload)
        name, following = self.subscriptions.add(call.stream_id)
        withdrawn = False
        fault: Exception | None = None

        async def withdraw() -> None:
            nonlocal withdrawn
            with self.service.tokens.held(caller):
                await trio.sleep(math.inf)  # it does end, with that scope
            withdrawn = True
            following.end()

        async def tell() -> None:
            nonlocal fault
            try:
                async with aclosing(told):
                    async for update in told:
                        await following.send(self.send, ucloud.message(call.stream_id, update))
            except Exception as error:  # raised again below, where no nursery wraps it
                fault = error

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(withdraw)
                await following.run(tell)
                nursery.cancel_scope.cancel()
        finally:
            self.subscriptions.done(name, following)
        if fault is not None:
            raise fault
        if withdrawn:
            raise Unauthenticated("the token is not valid any more")

    async def keep_alive(self) -> None:
        """Now and then a frame that every client passes over. Never returns."""
        while True:
            await trio.sleep(EVERY)
            await self.send([ucloud.PING], _always)


def _always() -> bool:
    return True
