"""A daemon is killed at each system call by which it changes the world, and recovers; and is killed again at each
that its recovery makes.

Every call is a point, of whichever of its threads, and of what it started: the N-th of all (``gate``). N goes up
until a run gets through, so each kind of call is met wherever it is made; that threads may take another order in
another run moves a point by one, and hides none.

The folders are on the filesystem of temporary files, and for copies once more on one that shares blocks, where
other calls do their work.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from tests.proof import Outcome, Proof, Sample
from tests.proof.gate import Call, Gated, kill_at
from tests.proof.scenarios import BLOCKS_ASIDE, COPY_NEW, COPY_OVER, SCENARIOS, START, Scenario
from tests.proof.stage import Ground, Stage, perform, plain, sharing


def killed(scenario: Scenario, sample: Sample, *, ground: Ground = plain) -> Iterator[Outcome]:
    """At the n-th call of the scenario, for every n."""
    for n in filter(sample.takes, range(1, TOO_MANY)):
        first: list[Gated] = []
        yield perform(scenario, partial(_killed_once, n, first), ground)
        if first and not first[0].killed:
            return


def _killed_once(n: int, first: list[Gated], stage: Stage) -> Outcome:
    first.append(stage.play(kill_at(n)))
    return stage.outcome(stage.recover()[1])


def killed_in_start(scenario: Scenario, sample: Sample) -> Iterator[Outcome]:
    """At the n-th call of a start on a state folder that is not there yet."""
    for n in filter(sample.takes, range(1, TOO_MANY)):
        first: list[Gated] = []
        yield perform(scenario, partial(_killed_in_start, n, first))
        if first and not first[0].killed:
            return


def _killed_in_start(n: int, first: list[Gated], stage: Stage) -> Outcome:
    first.append(stage.recover(kill_at(n))[0])
    return stage.outcome(stage.recover()[1])


def killed_again(scenario: Scenario, sample: Sample, *, ground: Ground = plain) -> Iterator[Outcome]:
    """At the n-th call of the scenario, and at the m-th of the recovery from that, for every m."""
    first, then = sample.pair
    for n in interruptions(scenario, first, ground):
        for m in filter(then.takes, range(1, TOO_MANY)):
            second: list[Gated] = []
            yield perform(scenario, partial(_killed_twice, n, m, second), ground)
            if second and not second[0].killed:
                break


def interruptions(scenario: Scenario, sample: Sample, ground: Ground = plain) -> Iterator[int]:
    """The calls to be killed at, so that each kind of recovery is met: of all whose recovery makes the same
    calls the first.
    """
    seen: set[tuple[str, ...]] = set()
    for n in filter(sample.takes, range(1, TOO_MANY)):
        pair: list[Gated] = []
        perform(scenario, partial(_looked_at, n, pair), ground)
        if pair and not pair[0].killed:
            return
        calls = kinds(pair[-1].calls)
        if calls not in seen:
            seen.add(calls)
            yield n


def _looked_at(n: int, pair: list[Gated], stage: Stage) -> Outcome:
    pair.append(stage.play(kill_at(n)))
    gated, outcome = stage.recover()
    pair.append(gated)
    return stage.outcome(outcome)


def _killed_twice(n: int, m: int, second: list[Gated], stage: Stage) -> Outcome:
    stage.play(kill_at(n))
    gated, outcome = stage.recover(kill_at(m))
    second.append(gated)
    return stage.outcome(outcome if outcome else stage.recover()[1])


def kinds(calls: list[Call]) -> tuple[str, ...]:
    """What is done to which file, in order; how often in a row is not told, nor what is said to whom."""
    found: list[str] = []
    for call in calls:
        kind = f"{call.name} {call.file}"
        if call.file not in ("", "socket", "pipe", "log") and found[-1:] != [kind]:
            found.append(kind)
    return tuple(found)


# Where so many calls are not enough, it never gets through.
TOO_MANY: Final = 2000

# What is said of the points of pairs, of which the first is one of ``interruptions``.
OF_EACH_KIND: Final = "every one of each kind of recovery"

# Each with where it is played, and what its name says about that.
PLAYED: Final = (
    *((each, plain, "") for each in SCENARIOS),
    *((each, sharing, ", blocks shared (XFS)") for each in (COPY_NEW, COPY_OVER, BLOCKS_ASIDE)),
)

PROOFS: Final = (
    Proof(START.name, "killed at a system call", partial(killed_in_start, START)),
    *(
        Proof(f"{each.name}{where}", "killed at a system call", partial(killed, each, ground=ground))
        for each, ground, where in PLAYED
    ),
    *(
        Proof(
            f"{each.name}{where}",
            "killed again, at a call of its recovery",
            partial(killed_again, each, ground=ground),
            OF_EACH_KIND,
        )
        for each, ground, where in PLAYED
    ),
)
