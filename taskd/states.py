"""The lifecycle of a task: one table, and no other place that knows it.

A task waits ``queued`` and is then ``running``. What ends the work, a cancel, an error or an interruption,
moves it to ``undoing``; what was journaled is undone, and only then does the task get its one terminal state.
A restartable operation that was interrupted is ``queued`` again. Work that succeeds is ``committed`` by one
durable write, after which a cancel is too late; the idempotent finish makes it ``completed``.

::

    queued    -- started   --> running
    queued    -- called off --> cancelled
    running   -- committed --> committed
    running   -- stopped   --> undoing
    committed -- finished  --> completed
    undoing   -- cancelled --> cancelled
    undoing   -- failed    --> failed
    undoing   -- requeued  --> queued

The picture is drawn from the table by ``tests/test_states.py``, which fails when they disagree.

A task that ends ``failed`` may have left residue; that is a fact beside the state, not a state.
"""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Final


@unique
class State(StrEnum):
    """Where a task is; the value is the word on the wire."""

    QUEUED = "queued"
    RUNNING = "running"
    UNDOING = "undoing"
    COMMITTED = "committed"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Terminal: nothing writes to the task's outcome any more (law L2)."""
        return self in ENDED

    @property
    def cancellable(self) -> bool:
        """A cancel is accepted: every state before commit (law L5)."""
        return self in CANCELLABLE


@unique
class Event(StrEnum):
    """What happened to a task; past participles, because it has happened when it is said."""

    STARTED = "started"
    CALLED_OFF = "called off"
    COMMITTED = "committed"
    STOPPED = "stopped"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"
    REQUEUED = "requeued"


MOVES: Final[dict[State, dict[Event, State]]] = {
    State.QUEUED: {Event.STARTED: State.RUNNING, Event.CALLED_OFF: State.CANCELLED},
    State.RUNNING: {Event.COMMITTED: State.COMMITTED, Event.STOPPED: State.UNDOING},
    State.COMMITTED: {Event.FINISHED: State.COMPLETED},
    State.UNDOING: {
        Event.CANCELLED: State.CANCELLED,
        Event.FAILED: State.FAILED,
        Event.REQUEUED: State.QUEUED,
    },
    State.COMPLETED: {},
    State.CANCELLED: {},
    State.FAILED: {},
}

ENDED: Final = frozenset(state for state, moves in MOVES.items() if not moves)
CANCELLABLE: Final = frozenset({State.QUEUED, State.RUNNING, State.UNDOING})


def after(state: State, *events: Event) -> State:
    """The state that ``events``, one after the other, lead to.

    Raises:
        IllegalMove: the table has no such move.
    """
    for event in events:
        try:
            state = MOVES[state][event]
        except KeyError:
            # Late: who only wants the names of the states, a command that lists, does not pay for the errors.
            from taskd.errors import IllegalMove

            raise IllegalMove(state.value, event.value) from None
    return state
