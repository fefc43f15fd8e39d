"""Programs of all native verbs, with stops and crashes, do what the law says; more of them in ``tests.proof``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings

from tests.programs import PROGRAMS, Call, Cut, Happens, Step
from tests.proof import rotating
from tests.proof.model import execute


def start(operation: str, name: str = "a", who: str = "root", **more: Any) -> Call:
    return Call("start", who, name, {"operation": operation, "owner": "ann", "label": ""} | more)


def call(verb: str, **args: Any) -> Call:
    return Call(verb, "root", "a", args)


STICK, LOOSEN, GO, GIVE_OUT = (Happens(what, "a") for what in ("stick", "loosen", "go", "give_out"))
CRASH, STOP = Cut(crash=True), Cut(crash=False)

# What chance may miss, in few steps.
PROGRAMS_OF_OURS: dict[str, list[Step]] = {
    "a cancel that was accepted outlives a crash": [
        start("external"), call("cancel"), CRASH, call("fail", code="X"),
    ],
    "a cancel that was granted is granted again after a restart": [
        start("errand"), call("cancel", must=True), STOP, CRASH, call("cancel", must=True),
    ],
    "what is to be forgotten is kept while it owes": [
        start("errand", destroy_on_finish=True), STICK, call("cancel"), call("destroy"), STOP, LOOSEN,
        call("recover"),
    ],
    "a log goes on after a restart": [
        start("external"), call("update", log=["one", "two"]), CRASH, call("update", log=["three"]), call("log"),
    ],
    "a repeated request is not looked at anew": [
        start("external", request_id="r"), start("external", request_id="r", destroy_on_finish=True),
    ],
    "each caller has requests of its own": [
        start("external", request_id="r"), start("external", "b", "agent", request_id="r"),
    ],
    "what is committed is finished however often it crashes": [
        start("chore"), STICK, GO, CRASH, call("cancel", must=True), call("recover"), STOP, LOOSEN, CRASH,
    ],
    "a third attempt is the last": [start("errand"), CRASH, STOP, call("get"), CRASH, call("recover")],
    "those that were interrupted go first, in their order": [
        start("errand"), start("errand", "b"), start("errand", "c"), CRASH, GO,
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("what", PROGRAMS_OF_OURS)
def test_what_a_program_shows_in_few_steps(what: str, kind: str) -> None:
    execute(kind, PROGRAMS_OF_OURS[what])


# Of the points of each sweep, on each day some others; no step sets more steps of trio in motion than the last.
SAMPLE, LAST = rotating(4), 80

OWING: list[Step] = [start("errand"), STICK, call("cancel")]

CUT: dict[str, tuple[list[Step], Call | Happens]] = {
    "a start": ([], start("chore")),
    "a start that waits": ([start("errand", "b"), start("errand", "c")], start("errand")),
    "a cancel": ([start("errand")], call("cancel")),
    "a cancel whose undo fails": ([start("errand"), STICK], call("cancel")),
    "a commit": ([start("chore")], GO),
    "a commit that lets another begin": ([start("errand"), start("chore", "b"), start("chore", "c")], GO),
    "a failure": ([start("errand")], GIVE_OUT),
    "a report": ([start("external")], call("update", log=["x"], status="y")),
    "an end": ([start("external"), call("cancel")], call("fail", code="X")),
    "a destroy": ([start("external"), call("complete", result=1)], call("destroy")),
    "a destroy by force": (OWING, call("destroy", force=True)),
    "a recovery": ([*OWING, LOOSEN], call("recover")),
}


@pytest.mark.parametrize("what", CUT)
def test_a_crash_at_any_step_leaves_it_as_before_or_after(what: str) -> None:
    before, step = CUT[what]
    for n in range(1, LAST + 1):
        if SAMPLE.takes(n):
            execute("memory", [*before, Cut(crash=True, after=n, step=step), call("log")])


SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


@seed(SAMPLE.seed)
@settings(deadline=None, max_examples=50, suppress_health_check=SLOW)
@given(program=PROGRAMS)
def test_whatever_is_called_and_whenever_it_crashes_all_is_as_the_law_says(program: Sequence[Step]) -> None:
    execute("memory", program)


@seed(SAMPLE.seed)
@settings(deadline=None, max_examples=20, suppress_health_check=SLOW)
@given(program=PROGRAMS)
def test_so_it_is_over_a_database(program: Sequence[Step]) -> None:
    execute("sqlite", program)
