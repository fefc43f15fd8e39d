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

# The store's reader; a batch of what a watch tells; XenAPI's events and tables; the thread for what computes long.
What: TypeAlias = Literal["read", "watch", "event", "thread"]


@attrs.define(eq=False)
class Turns:
    """Whose turn it is; of a user who neither has one nor waits nothing is kept."""

    _locks: WeakValueDictionary[tuple[str, str], trio.Lock] = attrs.field(factory=WeakValueDictionary)
    _thread: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))

    def of(self, caller: Caller, what: What) -> trio.Lock:
        """What the user's calls take one after the other, in the order in which they come."""
        return self._locks.setdefault((caller.user, what), trio.Lock())

    async def in_thread(self, caller: Caller, call: Callable[[], T]) -> T:
        """Call what computes long, in the one thread for that; a cancel waits until it has returned.

        More threads would not be faster, for they have one interpreter, and the event loop would have as much less
        of it.
        """
        async with self.of(caller, "thread"):
            return await trio.to_thread.run_sync(call, limiter=self._thread)
