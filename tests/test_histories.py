"""What several clients did at once could have happened one by one; more of it in ``tests.proof``."""

from __future__ import annotations

import pytest

from taskd.client import Record
from taskd.model import Time
from taskd.states import State
from tests.history import Asked, ends, in_order, older
from tests.proof import rotating
from tests.proof.histories import RUNS, outcome

# Of the runs of the proof, on each day some others.
SAMPLE = rotating(50)


@pytest.mark.parametrize("number", [n for n in range(1, RUNS + 1) if SAMPLE.takes(n)])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_what_clients_do_at_once_could_have_happened_one_by_one(kind: str, number: int) -> None:
    assert outcome(kind, number).what == ""


# That what is wrong would be found.


def told(state: State, revision: int = 1, label: str = "made", *, cancel: bool = False) -> Record:
    ended = Time(1.0) if state.ended else None
    return Record(
        "id", revision, "external", state, Time(0.0), label=label, cancel_requested=cancel, finished_at=ended
    )


MADE = Asked("start", 1, 2, told(State.RUNNING))
DONE = Asked("complete", 3, 6, told(State.COMPLETED, 2))
FAILED = Asked("fail", 4, 7, told(State.FAILED, 3))
DESTROYED = Asked("destroy", 8, 9, None)

WRONG = {
    "two ends are accepted": [MADE, DONE, FAILED],
    "an end comes before the making": [DONE, Asked("start", 7, 8, told(State.RUNNING))],
    "a cancel that was accepted is not shown": [
        MADE,
        Asked("cancel", 3, 4, None),
        Asked("get", 5, 6, MADE.answer),
    ],
    "a producer that fails after an accepted cancel has failed": [
        MADE,
        Asked("cancel", 3, 4, None),
        Asked("fail", 5, 6, told(State.FAILED, 3, cancel=True)),
    ],
    "a cancel is accepted after the end": [MADE, DONE, Asked("cancel", 7, 8, None)],
    "what was destroyed is seen": [MADE, DONE, DESTROYED, Asked("get", 10, 11, DONE.answer)],
    "what was destroyed is destroyed again": [MADE, DONE, DESTROYED, Asked("destroy", 10, 11, None)],
    "what is not destroyed is not seen": [MADE, Asked("get", 3, 4, "Does_not_exist")],
    "a wait ends before the task": [MADE, Asked("wait", 3, 4, MADE.answer)],
    "a report is lost": [
        MADE,
        Asked("update", 3, 4, told(State.RUNNING, 2, "one"), {"label": "one"}),
        Asked("get", 5, 6, told(State.RUNNING, 3)),
    ],
    "two reports are each told as the first": [
        MADE,
        Asked("update", 3, 6, told(State.RUNNING, 2, "one"), {"label": "one"}),
        Asked("update", 4, 7, told(State.RUNNING, 3, "two"), {"label": "two"}),
        Asked("get", 8, 9, told(State.RUNNING, 3, "two")),
        Asked("get", 10, 11, told(State.RUNNING, 3, "one")),
    ],
}


@pytest.mark.parametrize("what", WRONG)
def test_a_history_that_cannot_have_happened_is_found(what: str) -> None:
    assert in_order(WRONG[what]) is None


def test_calls_at_the_same_time_may_have_happened_in_either_order() -> None:
    refused = Asked("fail", 4, 7, "Already_ended")
    early = Asked("get", 5, 12, MADE.answer)
    both = [DESTROYED, Asked("destroy", 8, 10, None)]

    assert in_order([MADE, DONE, refused, early, *both]) is not None


def test_an_end_that_is_told_otherwise_and_an_older_state_are_found() -> None:
    assert ends([MADE, DONE, FAILED]) == {State.COMPLETED, State.FAILED}
    assert older([DONE, Asked("get", 7, 8, MADE.answer)]) != []
    assert older([DONE, Asked("get", 5, 8, MADE.answer)]) == []
