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

    _holders: dict[str, Holder] = attrs.field(factory=dict)

    def against(self, keys: frozenset[str], id: str) -> Holder | None:
        """Another task than ``id`` that has one of the keys."""
        held = (self._holders.get(key) for key in sorted(keys))
        return next((holder for holder in held if holder is not None and holder.id != id), None)

    def hold(self, holder: Holder, keys: frozenset[str]) -> None:
        """Take those of the keys that nobody has."""
        for key in keys:
            self._holders.setdefault(key, holder)

    def release(self, id: str) -> None:
        """Give up all keys of task ``id``; having none is fine."""
        self._holders = {key: holder for key, holder in self._holders.items() if holder.id != id}
