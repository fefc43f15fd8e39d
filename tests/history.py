"""What several clients asked and were answered at the same time, and whether it could have happened one by one.

A history is the calls about one task, each with the moments of its begin and its answer. It is right where the
calls can be put into an order in which each was answered as the law has it, and none comes before one that was
answered before it began. The search for that order takes time that grows with how many were under way at once, not
with how many there were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from taskd.client import Record
from taskd.states import State

NO_TASK: Final = "Does_not_exist"


@attrs.frozen
class Asked:
    """A call that was answered, with a record, with nothing, or with the name of an error; ``begin`` and ``end``
    are places in the one order of all begins and answers.
    """

    verb: str
    begin: int
    end: int
    answer: Record | str | None
    args: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class Seen:
    """All that can be told of an external task; ``state`` is None before it is there, and once it is ``gone``."""

    state: str | None = None
    cancel: bool = False
    label: str = ""
    gone: bool = False


def _shows(seen: Seen, answer: Record | str | None) -> bool:
    return isinstance(answer, Record) and (answer.state, answer.cancel_requested, answer.label) == (
        seen.state, seen.cancel, seen.label,
    )  # fmt: skip


def after(seen: Seen, asked: Asked, *, shared: bool) -> Seen | None:
    """What there is after the call; None where it cannot have been answered so. ``shared``: while it was under way
    another call destroyed the task, and both may be told so.
    """
    if asked.verb == "start" and seen.state is None and not seen.gone:
        made = Seen(State.RUNNING, label="made")
        return made if _shows(made, asked.answer) else None
    if seen.state is None:
        told = asked.answer == NO_TASK or (asked.verb == "destroy" and asked.answer is None and shared)
        return seen if told else None
    ended = State(seen.state).ended
    match asked.verb:
        case "start" | "get":
            new = seen
        case "wait":
            # One that waited on for the end of a task that was destroyed at once tells what it ended as.
            return seen if ended and _shows(seen, asked.answer) else None
        case "cancel":
            wanted = "Too_late" if ended and seen.state != State.CANCELLED else None
            return None if asked.answer != wanted else seen if ended else attrs.evolve(seen, cancel=True)
        case "destroy":
            wanted = None if ended else "Task_in_progress"
            return None if asked.answer != wanted else Seen(gone=True) if ended else seen
        case "update" | "complete" | "fail" if ended:
            return seen if asked.answer == "Already_ended" else None
        case "update":
            new = attrs.evolve(seen, label=asked.args["label"])
        case "complete":
            new = attrs.evolve(seen, state=State.COMPLETED)
        case "fail":
            new = attrs.evolve(seen, state=State.CANCELLED if seen.cancel else State.FAILED)
        case verb:
            raise AssertionError(verb)
    return new if _shows(new, asked.answer) else None


def in_order(history: Sequence[Asked]) -> Sequence[Asked] | None:
    """An order in which the calls could have happened one by one; None where there is none."""
    history = sorted(history, key=lambda asked: asked.begin)
    dead_ends: set[tuple[frozenset[int], Seen]] = set()

    def possible(left: frozenset[int]) -> Iterator[int]:
        """Those before which none of the others was answered."""
        first = min((history[n].end for n in left), default=0)
        return (n for n in sorted(left) if history[n].begin < first)

    def search(left: frozenset[int], seen: Seen) -> list[Asked] | None:
        if not left:
            return []
        if (left, seen) in dead_ends:
            return None
        for n in possible(left):
            new = after(seen, history[n], shared=_shared(history[n], history))
            if new is not None and (rest := search(left - {n}, new)) is not None:
                return [history[n], *rest]
        dead_ends.add((left, seen))
        return None

    return search(frozenset(range(len(history))), Seen())


def _shared(asked: Asked, history: Sequence[Asked]) -> bool:
    return any(
        other is not asked
        and other.verb == "destroy"
        and other.answer is None
        and other.begin < asked.end
        and asked.begin < other.end
        for other in history
    )


def older(history: Sequence[Asked]) -> list[str]:
    """Calls that were told of an older state than a call that was answered before they began."""
    wrong, told = [], [(each, each.answer) for each in history if isinstance(each.answer, Record)]
    for late, record in told:
        for early, newer in told:
            if early.end < late.begin and record.revision < newer.revision:
                wrong.append(f"{late} after {early}")
    return wrong


def ends(history: Sequence[Asked]) -> set[str]:
    """The terminal states that were told: one at most is right."""
    return {each.answer.state for each in history if isinstance(each.answer, Record) and each.answer.ended}
