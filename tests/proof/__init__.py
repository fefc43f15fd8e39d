"""The proof: the real daemon is disturbed in every way there is, and how its tasks end is counted.

A ``Proof`` is a row of the table that ``python -m tests.proof`` prints (``sh tests/proof.sh`` installs first what
it needs). Its ``run`` yields an ``Outcome`` for each run: the target was whole, or as before, or something was
wrong, and then ``what`` says it. One that is wrong never stops the others. The full sweep takes every point; what
runs within ``sh tests/run.sh`` takes a ``Sample`` of them, another one on each day, and prints its ``seed``.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterable
from enum import Enum
from math import isqrt
from typing import Final

import attrs


class Verdict(Enum):
    """How a run ended; the values are the table's columns. What is caught was a breakage on purpose."""

    WHOLE = "whole"
    AS_BEFORE = "as before"
    CAUGHT = "caught"
    WRONG = "wrong"


@attrs.frozen
class Outcome:
    """How one run ended; ``faults`` of them were injected; ``what`` tells what is wrong."""

    verdict: Verdict
    faults: int = 1
    what: str = ""


@attrs.frozen
class Sample:
    """Which points of a sweep are taken: of ``every`` of them the one that ``seed`` picks; 1 is all."""

    every: int = 1
    seed: int = 0

    def takes(self, n: int) -> bool:
        """Whether the n-th point (from 1) is one of them."""
        return (n + self.seed) % self.every == 0

    @property
    def pair(self) -> tuple[Sample, Sample]:
        """Those of either half, where points are pairs; as the seed goes on, each pair has its turn."""
        each = isqrt(self.every)
        return Sample(each, self.seed % each), Sample(each, self.seed // each)

    def __str__(self) -> str:
        return "every point" if self.every == 1 else f"1 of {self.every} points"


ALL: Final = Sample()


SEED: Final = "TASKD_PROOF_SEED"


def seed() -> int:
    """What the samples of this run follow from: another one on each day; ``TASKD_PROOF_SEED`` in the environment
    repeats them. Who asks first has asked for all processes that it starts, also past midnight.
    """
    return int(os.environ.setdefault(SEED, str(datetime.date.today().toordinal())))


def rotating(every: int) -> Sample:
    """The sample of this run."""
    return Sample(every, seed())


# Which points a proof takes, where it takes every one, and where chance picks them.
EVERY: Final = "every one"
RANDOM: Final = "at random"


@attrs.frozen
class Proof:
    """A scenario, and ``injected``, what is done to it at each of ``points``."""

    scenario: str
    injected: str
    run: Callable[[Sample], Iterable[Outcome]]
    points: str = EVERY

    def __str__(self) -> str:
        return f"{self.injected}: {self.scenario}"


def wrongs(proof: Proof, sample: Sample) -> list[str]:
    """What is wrong with a sample of a proof, for a test: that it is nothing. At least one run must have been
    made, or the proof has proven nothing.
    """
    outcomes = list(proof.run(sample))
    assert outcomes, f"{proof} made no run with {sample}"
    return [outcome.what for outcome in outcomes if outcome.verdict is Verdict.WRONG]
