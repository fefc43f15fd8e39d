"""By what the tasks can be sorted, each in the direction that is asked for first: the fastest, the next to end.

Of each order it is known whether its keys move by themselves. A task without a rate, or without time left, comes
after those that have one; what is equal stays in the order in which it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import attrs

from taskd.client import Record
from taskd.states import State

# A group, a number, a text; then ``seq`` and id, which no two tasks share.
Key: TypeAlias = tuple[int, float, str, int, str]

RANK: Final[Mapping[str, int]] = {State.RUNNING: 0, State.COMMITTED: 1, State.UNDOING: 2, State.QUEUED: 4}
OTHER: Final = 3
OVER: Final = 5


@attrs.frozen
class Sort:
    """``part`` is what a task is sorted by; ``moves``: by what changes while a task runs."""

    name: str
    part: Callable[[Record], tuple[int, float, str]]
    moves: bool = False

    def key(self, record: Record) -> Key:
        return (*self.part(record), record.seq, record.id)


def _state(record: Record) -> tuple[int, float, str]:
    """Running before queued, in the order of the line; then those that ended, the last one first."""
    if record.finished_at is not None:
        return OVER, -record.finished_at, ""
    return RANK.get(record.state, OTHER), 0.0, ""


def _progress(record: Record) -> tuple[int, float, str]:
    return 0, -record.progress.fraction, ""


def _rate(record: Record) -> tuple[int, float, str]:
    own = record.speeds[-1].speed if record.speeds else None
    rate = None if record.ended else record.progress.rate or own
    return (1, 0.0, "") if rate is None else (0, -rate, "")


def _left(record: Record) -> tuple[int, float, str]:
    left = None if record.ended else record.progress.eta_s
    return (1, 0.0, "") if left is None else (0, left, "")


def _age(record: Record) -> tuple[int, float, str]:
    return 0, -record.created_at, ""


def _label(record: Record) -> tuple[int, float, str]:
    return 0, 0.0, (record.label or record.operation).casefold()


SORTS: Final = (
    Sort("state", _state),
    Sort("progress", _progress, moves=True),
    Sort("rate", _rate, moves=True),
    Sort("left", _left, moves=True),
    Sort("age", _age),
    Sort("label", _label),
    Sort("owner", lambda record: (0, 0.0, record.owner)),
    Sort("operation", lambda record: (0, 0.0, record.operation)),
)
