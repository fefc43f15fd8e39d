"""How much may wait on one connection: calls, and what is kept of them until they are answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import orjson
import trio

from taskd.connection.streams import LOOK, gone
from taskd.model import JSON


@attrs.define(eq=False)
class Room:
    """For ``calls`` at a time, together as long as one may be: ``size`` bytes of JSON.

    What is kept of a call are its values, which may be twenty times as large as their text.
    """

    stream: trio.SocketStream
    calls: int
    size: int
    _taken: int = 0
    _held: int = 0
    _left: trio.Event = attrs.field(factory=trio.Event)

    async def enter(self, kept: JSON) -> int:
        """Wait for room for what is ``kept`` of one more call; gives its size, which ``until_done`` is to be told.

        Nothing is read meanwhile, so nobody else would see the peer go.

        Raises:
            BrokenResourceError: it has gone.
        """
        size = len(orjson.dumps(kept))
        while self._taken and (self._taken == self.calls or self._held + size > self.size):
            with trio.move_on_after(LOOK):
                await self._left.wait()
                continue
            if gone(self.stream):
                raise trio.BrokenResourceError
        self._taken += 1
        self._held += size
        return size

    async def until_done(self, answer: Callable[[], Awaitable[None]], size: int) -> None:
        """Leave when it is answered."""
        try:
            await answer()
        finally:
            self._taken -= 1
            self._held -= size
            self._left.set()
            self._left = trio.Event()
