"""Who works on which target: never two tasks on one.

Two that change the same file undo each other's work: what one saved to put back, the other has written. A task
claims its target before its first look at it and lets go when it owes nothing more, neither finish nor undo.
A task takes all its keys at once or none, so that no two can wait for each other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import trio


@attrs.define(eq=False)
class Claims:
    """The keys that are taken, and by which task. What a key means is the operation's affair."""

    _holders: dict[str, str] = attrs.field(factory=dict)
    _freed: trio.Event = attrs.field(factory=trio.Event)

    def holder(self, keys: frozenset[str], id: str) -> str | None:
        """Another task than ``id`` that has one of the keys."""
        return next((other for key in sorted(keys) if (other := self._holders.get(key, id)) != id), None)

    async def take(self, id: str, look: Callable[[], Awaitable[frozenset[str]]]) -> None:
        """Wait until nobody else has the keys that ``look`` finds, then take them for task ``id``.

        It looks again when it has them: while it waited, another file may have taken the target's name. A
        cancel while it waits leaves it without any.
        """
        while True:
            keys = await look()
            if self.holder(keys, id) is not None:
                await self._freed.wait()
                continue
            self._holders.update(dict.fromkeys(keys, id))
            try:
                if await look() == keys:
                    return
            except BaseException:
                self.release(id)
                raise
            self.release(id)

    def hold(self, id: str, keys: frozenset[str]) -> None:
        """Take those of the keys that nobody has: the task has worked there before this daemon came."""
        for key in keys:
            self._holders.setdefault(key, id)

    def release(self, id: str) -> None:
        """Give up all keys of task ``id``; having none is fine."""
        kept = {key: holder for key, holder in self._holders.items() if holder != id}
        if len(kept) != len(self._holders):
            self._holders = kept
            self._freed.set()
            self._freed = trio.Event()
