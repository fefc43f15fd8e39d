"""The lifecycle is one table (law L1): every move it has is legal, every other is an error in one place."""

from __future__ import annotations

import re
from itertools import product

import pytest

from taskd import states
from taskd.errors import IllegalMove
from taskd.states import MOVES, Event, State, after

LEGAL = {
    (State.QUEUED, Event.STARTED): State.RUNNING,
    (State.QUEUED, Event.CALLED_OFF): State.CANCELLED,
    (State.RUNNING, Event.COMMITTED): State.COMMITTED,
    (State.RUNNING, Event.STOPPED): State.UNDOING,
    (State.COMMITTED, Event.FINISHED): State.COMPLETED,
    (State.UNDOING, Event.CANCELLED): State.CANCELLED,
    (State.UNDOING, Event.FAILED): State.FAILED,
    (State.UNDOING, Event.REQUEUED): State.QUEUED,
}


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_a_move_is_legal_or_an_error(state: State, event: Event) -> None:
    if (state, event) in LEGAL:
        assert after(state, event) is LEGAL[state, event]
    else:
        with pytest.raises(IllegalMove, match=f"a task that is {state} cannot be {event}"):
            after(state, event)


def test_the_picture_in_the_docstring_is_the_table() -> None:
    arrow = re.compile(r"^    (\w+) +-- ([\w ]+?) +--> (\w+)$", re.MULTILINE)
    drawn = {(State(a), Event(e), State(b)) for a, e, b in arrow.findall(states.__doc__ or "")}

    assert drawn == {(a, e, b) for a, moves in MOVES.items() for e, b in moves.items()}


def test_a_task_cannot_complete_without_a_commit() -> None:
    """Completed is reached through committed only; from undoing there is no way there."""
    assert [a for a, moves in MOVES.items() if State.COMPLETED in moves.values()] == [State.COMMITTED]
    assert [a for a, moves in MOVES.items() if State.COMMITTED in moves.values()] == [State.RUNNING]


def test_nothing_leaves_a_terminal_state() -> None:
    assert {state for state in State if state.ended} == {State.COMPLETED, State.CANCELLED, State.FAILED}
    assert all(not MOVES[state] for state in State if state.ended)


def test_cancel_is_accepted_exactly_before_commit() -> None:
    assert {s for s in State if s.cancellable} == {State.QUEUED, State.RUNNING, State.UNDOING}


def test_several_moves_are_checked_one_by_one() -> None:
    assert after(State.RUNNING, Event.STOPPED, Event.FAILED) is State.FAILED
    with pytest.raises(IllegalMove):
        after(State.RUNNING, Event.FAILED, Event.STOPPED)
