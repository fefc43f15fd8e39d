"""Lists of ids that were read a moment ago, at hand until the next change of which tasks there are.

A poller asks for the same list again and again, and the disk is asked once. A list is let go of when a change is
asked for, not when it is committed, and none is kept that was read while one was under way: so what is at hand is
what a read would give, also beside reads that the commit came before, and whatever becomes of the change.

A list is kept as the JSON that it is answered with, 39 bytes an id: of a million it costs no more for each of them
than of a thousand. It is let go of too when nobody has asked for it for some seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

import attrs
import trio

# So many lists.
LISTS: Final = 8

# Seconds between two looks at which of them were asked for.
KEPT: Final = 5.0

# Owner and operation that the list is of; None for all.
Key: TypeAlias = tuple[str | None, str | None]


@attrs.define(eq=False)
class Listed:
    """The lists of one store, for its trio thread. ``changes`` counts the changes that are over."""

    changes: int = 0
    _under_way: int = 0
    _lists: dict[Key, bytes] = attrs.field(factory=dict)
    _asked: set[Key] = attrs.field(factory=set)
    _looking: bool = False

    @contextmanager
    def change(self) -> Iterator[None]:
        """Around whatever makes or forgets tasks, from before it is queued until it is known what became of it."""
        self._lists.clear()
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self.changes += 1

    def keep(self, key: Key, ids: bytes, changes: int) -> None:
        """``ids`` were read; ``changes`` were over when the reading began."""
        if self._under_way or changes != self.changes:
            return
        if len(self._lists) >= LISTS:
            self._lists.clear()
        self._lists[key] = ids
        self._asked.add(key)
        if not self._looking:
            self._looking = True
            trio.lowlevel.spawn_system_task(self._let_go)

    def get(self, key: Key) -> bytes | None:
        """What a read would give; None where it is not known."""
        found = self._lists.get(key)
        if found is not None:
            self._asked.add(key)
        return found

    async def _let_go(self) -> None:
        """Of what is not asked for; it ends when nothing is left, so that an idle daemon sleeps."""
        while self._lists:
            self._asked.clear()
            await trio.sleep(KEPT)
            self._lists = {key: ids for key, ids in self._lists.items() if key in self._asked}
        self._looking = False
