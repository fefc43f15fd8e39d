"""Lists of ids that were read a moment ago, at hand until the next change of which tasks there are.

A poller asks for the same list again and again, and the disk is asked once. A list is let go of when a change is
asked for, not when it is committed, and none is kept that was read while one was under way: so what is at hand is
what a read would give, also beside reads that the commit came before, and whatever becomes of the change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeAlias

import attrs

# So many lists, of at most so many ids: some megabytes.
LISTS: Final = 8
IDS: Final = 10_000

# Owner and operation that the list is of; None for all.
Key: TypeAlias = tuple[str | None, str | None]


@attrs.define(eq=False)
class Listed:
    """The lists of one store, for its trio thread. ``changes`` counts the changes that are over."""

    changes: int = 0
    _under_way: int = 0
    _lists: dict[Key, Sequence[str]] = attrs.field(factory=dict)

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

    def keep(self, key: Key, ids: Sequence[str], changes: int) -> None:
        """``ids`` were read; ``changes`` were over when the reading began."""
        if self._under_way or changes != self.changes or len(ids) > IDS:
            return
        if len(self._lists) >= LISTS:
            self._lists.clear()
        self._lists[key] = tuple(ids)

    def get(self, key: Key) -> Sequence[str] | None:
        """What a read would give; None where it is not known."""
        return self._lists.get(key)
