"""What a producer says of its progress, and what that makes of what it has said before (law L9)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import attrs

from taskd import codec
from taskd.errors import BadParams
from taskd.model import Progress, Speed, now

# Of the speeds with one title the newest so many are kept.
SPEEDS: Final = 50


@attrs.frozen
class Report:
    """What a producer reports of its progress: ``done`` of ``total`` in ``unit``, or just a ``fraction``."""

    done: int | None = None
    total: int | None = None
    unit: str | None = None
    fraction: float | None = None


def reported(old: Progress, report: Report) -> Progress:
    """``old`` with what the producer says; where it gives no fraction, it is counted from done and total."""
    moment, before = now(), old.moved_at
    if report.unit is not None and report.unit != old.unit:
        old = Progress(unit=report.unit)  # counted anew, openly; in one unit it never goes back (law L9)
    done = old.done if report.done is None else report.done
    total = old.total if report.total is None else report.total
    fraction = report.fraction
    if fraction is None:
        fraction = min(done / total, 1.0) if total else old.fraction
    if done < 0 or (total is not None and total < 0):
        raise BadParams("params.progress", "done and total must not be negative")
    if not 0.0 <= fraction <= 1.0:
        raise BadParams("params.progress.fraction", f"must be from 0 to 1, not {fraction}")
    return attrs.evolve(
        old,
        done=max(done, old.done),
        total=total,
        fraction=max(fraction, old.fraction),
        moved_at=moment if before is None else max(moment, before),  # the clock may be set back
    )


def joined(old: Sequence[Speed], new: Sequence[Speed], max_bytes: int) -> tuple[Speed, ...]:
    """``old``, then ``new``: of each title the newest SPEEDS, of all as many as ``max_bytes`` of JSON hold.

    Raises:
        BadParams: the new ones alone are longer.
    """
    kept: list[Speed] = []
    titles: Counter[str] = Counter()
    size = 0
    for n, speed in enumerate(reversed((*old, *new))):
        titles[speed.title] += 1
        size += len(codec.dumps(codec.unstructure(speed))) + 1
        if size > max_bytes:
            if n < len(new):
                raise BadParams("params.speeds", f"are longer than {max_bytes} bytes as JSON")
            break
        if titles[speed.title] <= SPEEDS or n < len(new):
            kept.append(speed)
    return tuple(kept[::-1])
