"""How a figure is come by: all sides in one run, in turn, several times; the median of what the rounds say.

Other load on the machine, a warm cache and a slow minute so meet every side alike. What is compared is the ratio
within each round, never the numbers of two runs.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias, TypeVar

import attrs


@attrs.frozen
class Extent:
    """How much is measured: ``rounds`` of each side, ``seconds`` of each look, and the sizes of what is looked at.

    ``stored`` and ``few`` are numbers of ended tasks, ``running`` of running ones, ``copied`` is bytes,
    ``watchers`` connections, ``idle`` seconds, ``growth`` the most of what grows, as a power of ten.
    """

    rounds: int = 5
    seconds: float = 0.5
    stored: int = 1_000_000
    few: int = 1000
    running: int = 1000
    copied: int = 4 << 30
    watchers: int = 1000
    steps: int = 100
    idle: float = 10.0
    growth: int = 6


T = TypeVar("T")

FULL: Final = Extent()

# Enough to see that a benchmark still runs.
TINY: Final = Extent(1, 0.02, 1000, 100, 20, 4 << 20, 5, 2, 0.1, 3)


@attrs.frozen
class Curve:
    """What something costs, in ``unit``, by the number of ``by``: pairs of both."""

    name: str
    unit: str
    by: str
    points: tuple[tuple[float, float], ...]


@attrs.frozen
class Found:
    """The median of the rounds, the lowest and the highest; ``ours`` and ``beside`` are for people to read."""

    value: float
    low: float
    high: float
    ours: str = ""
    beside: str = ""
    curves: tuple[Curve, ...] = ()


@attrs.frozen
class Skipped:
    """There is nothing to compare with here, and why."""

    why: str


class Missing(Exception):
    """What a measurement needs is not on this machine; its sentence says what, and where it comes from."""


Outcome: TypeAlias = Found | Skipped
Outcomes: TypeAlias = Mapping[str, Outcome]

# Measures once, and says how much.
Side: TypeAlias = Callable[[], float]


def in_turn(rounds: int, sides: Mapping[T, Side]) -> dict[T, list[float]]:
    """What each side measured in each round. Every other round goes through them backwards."""
    said: dict[T, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            said[name].append(sides[name]())
    return said


def found(values: Sequence[float], ours: str = "", beside: str = "") -> Found:
    return Found(statistics.median(values), min(values), max(values), ours, beside)


def ratio(
    ours: Sequence[float], theirs: Sequence[float], say: Callable[[float], str], *, inverse: bool = False
) -> Found:
    """Ours by theirs, round by round; ``inverse`` where less is more and the ratio is to say how much better."""
    pairs = zip(theirs, ours, strict=True) if inverse else zip(ours, theirs, strict=True)
    values = [one / other for one, other in pairs]
    return found(values, say(statistics.median(ours)), say(statistics.median(theirs)))


def compared(
    said: Mapping[str, list[float]],
    rows: Mapping[str, str],
    say: Callable[[float], str],
    missing: Mapping[str, str] | None = None,
    *,
    inverse: bool = False,
) -> dict[str, Outcome]:
    """For each row the ratio of ``ours`` to the side that ``rows`` names, or why there is none."""
    missing = missing or {}
    return {
        row: Skipped(missing[side]) if side in missing else ratio(said["ours"], said[side], say, inverse=inverse)
        for row, side in rows.items()
    }


def steepness(here: tuple[float, float], after: tuple[float, float]) -> float:
    """Of the step from one point of a curve to the next: 0 is flat, 1 is linear."""
    return math.log(after[1] / here[1]) / math.log(after[0] / here[0])


def per_second(value: float) -> str:
    return f"{value:,.0f}/s"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"


def seconds(value: float) -> str:
    return f"{value:.3g} s"


def percentile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]
