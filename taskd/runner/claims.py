"""Who works on which target: never two tasks on one.

Two that change the same file undo each other's work: what one saved to put back, the other has written. A task
claims its target when it begins to run, and lets go when it owes nothing more, neither finish nor undo. It takes
all its keys at once or none, so that no two can wait for each other.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Holder:
    """A task that has claimed something: its id and its owner."""

    id: str
    owner: str


@attrs.define(eq=False)
class Claims:
    """The keys that are taken, and by whom. What a key means is the operation's affair."""

    # Of a key those that came to it first come first.
    _holders: dict[str, dict[str, Holder]] = attrs.field(factory=dict)

    def against(self, keys: frozenset[str], id: str) -> Holder | None:
        """Another task than ``id`` that has one of the keys."""
        held = (holder for key in sorted(keys) for holder in self._holders.get(key, {}).values())
        return next((holder for holder in held if holder.id != id), None)

    def hold(self, holder: Holder, keys: frozenset[str]) -> None:
        """Take the keys. Who has one has it still: two that a start finds may both owe something there."""
        for key in keys:
            self._holders.setdefault(key, {})[holder.id] = holder

    def release(self, id: str) -> None:
        """Give up all keys of task ``id``; having none is fine."""
        for key, holders in tuple(self._holders.items()):
            holders.pop(id, None)
            if not holders:
                del self._holders[key]
