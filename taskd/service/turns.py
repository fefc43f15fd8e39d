"""Turns by user, ahead of what all users share: whoever asks a thousand times has one place in the queue, not all.

The law: what all wait for in one queue is waited for by whoever has a turn, and by nobody else. So before what a
user asks for comes, of each other user, at most one thing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, TypeVar
from weakref import WeakValueDictionary

import attrs
import trio

from taskd.model import Caller

T = TypeVar("T")

# The store's reader; a batch of what a watch tells; XenAPI's events and tables; the thread for what computes long,
# and the event loop.
What: TypeAlias = Literal["read", "watch", "event", "thread", "loop"]


@attrs.define(eq=False)
class Turns:
    """Whose turn it is; of a user who neither has one nor waits nothing is kept."""

    _locks: WeakValueDictionary[tuple[str, str], trio.Lock] = attrs.field(factory=WeakValueDictionary)
    _thread: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))
    _loop: trio.Lock = attrs.field(factory=trio.Lock)

    def of(self, caller: Caller, what: What) -> trio.Lock:
        """What the user's calls take one after the other, in the order in which they come."""
        return self._locks.setdefault((caller.user, what), trio.Lock())

    async def in_thread(self, caller: Caller, call: Callable[[], T]) -> T:
        """Call what computes long and does nothing else, in the one thread for that, and where none can be had, on
        the event loop; a cancel waits until it has returned.

        More threads would not be faster, for they have one interpreter, and the event loop would have as much less
        of it.
        """
        async with self.of(caller, "thread"):
            try:
                return await trio.to_thread.run_sync(call, limiter=self._thread)
            except RuntimeError:  # how Python says that there is no thread to be had
                await self.on_loop(caller)
                return call()

    async def on_loop(self, caller: Caller) -> None:
        """Wait for the turn to compute long on the event loop, from here to the next await.

        One has it in a pass of the scheduler, for a lock is handed on to the pass after; and in each pass there is
        time for all else. It is for what keeps the interpreter to itself, as the parser of JSON does: in a thread,
        too, that would hold up the loop.
        """
        async with self.of(caller, "loop"), self._loop:
            pass
