"""One task in one line; sans-IO.

What stands beside the state tells how it is with the task: of one that runs how far it is, how fast it goes and
what is left; of one that waits for what; of one that ended how. What a daemon that is away may have changed
meanwhile is not told.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from taskd.cli import say, words
from taskd.cli.meter import STILL
from taskd.cli.top.cells import SHORT, Layout, Line
from taskd.client import Record
from taskd.states import State

# A bar's cells: done, half done, and still to be done.
FULL: Final = "━"
HALF: Final = "╸"
REST: Final = "─"

# The narrowest place for a sentence.
NARROW: Final = 12


def line(record: Record, layout: Layout, now: float, *, away: bool = False, chosen: bool = False) -> Line:
    """A task; ``away``: its daemon does not answer; ``chosen``: it is the one that keys are about."""
    return layout.line(_parts(record, layout, now, away), mark="7" if chosen else "")


def _parts(record: Record, layout: Layout, now: float, away: bool) -> Iterator[tuple[str, str, str]]:
    colour = say.COLOURS.get(record.state, "")
    yield "ID", record.id[:SHORT], ""
    yield "STATE", record.state, colour
    text = story(record, now, away=away)
    if text is not None and layout.places.get("STORY", (0, 0))[1] >= NARROW:
        yield "STORY", text, "31" if record.error is not None else ""
    else:
        fraction = record.progress.fraction
        known = text is None or fraction > 0
        yield "PROGRESS", bar(fraction, layout.places.get("PROGRESS", (0, 0))[1]), colour
        yield "%", words.percent(fraction) if known else "", ""
        yield "DONE", words.progress(record.progress), ""
        yield from _pace(record, layout, now, away)
    yield "OWNER", record.owner, ""
    yield "OPERATION", record.operation, ""
    said = f"  {record.status}" if record.status and not record.ended else ""
    name = record.label or record.operation
    yield "LABEL", name + said if len(name + said) <= layout.places["LABEL"][1] else name, ""


def story(record: Record, now: float, *, away: bool = False) -> str | None:
    """How it is with the task, in words; None where a bar tells it."""
    asked = "cancel asked" if record.cancel_requested and not record.ended else ""
    match record.state:
        case State.COMPLETED:
            return None
        case State.COMMITTED if not record.residue:
            return None
        case State.RUNNING if record.progress.fraction or record.progress.total is not None:
            return None
        case State.RUNNING:
            since = "" if away else f"for {coarse(now - (record.started_at or record.created_at))}"
            return _joined(since, words.progress(record.progress), asked)
        case State.QUEUED:
            return _joined(asked, f"for {record.waits_for}" if record.waits_for else "")
    left = "residue" if record.residue and record.ended else "not finished" if record.residue else ""
    error = "" if record.error is None else f"{record.error.code}: {record.error.message}"
    return _joined(asked, left, error)


def _joined(*parts: str) -> str:
    return "  ".join(part for part in parts if part)


def _pace(record: Record, layout: Layout, now: float, away: bool) -> Iterator[tuple[str, str, str]]:
    shown = record.progress
    still = now - (shown.moved_at or now)
    if record.finished_at is not None:
        yield "PACE", f"in {short(record.finished_at - (record.started_at or record.created_at))}", ""
    elif record.state == State.COMMITTED:
        yield "PACE", "finishing", ""
    elif record.cancel_requested:
        yield "PACE", "cancel asked", "33"
    elif away:
        yield "PACE", "", ""
    elif still > STILL:
        yield "PACE", f"still for {coarse(still)}", "33"
    else:
        yield "RATE", rate(record, layout.places.get("RATE", (0, 0))[1]), ""
        yield "LEFT", "" if shown.eta_s is None else short(shown.eta_s), ""


def short(seconds: float) -> str:
    """At most six characters: ``12s``, ``3m20s``, ``5h03m``, ``2d4h``, ``120d``."""
    whole = max(0, round(min(seconds, 1e9)))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    days = whole // 86400
    return f"{days}d{whole % 86400 // 3600}h" if days < 100 else f"{days}d"


def coarse(seconds: float) -> str:
    """A time that goes on, in words that do not change with every second once it is long."""
    whole = max(0, int(seconds))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if whole >= length:
            return f"{whole // length} {unit}"
    return f"{whole} s"


def bar(fraction: float, width: int) -> str:
    """So many cells; full when all is done, and not before."""
    halves = width * 2 if fraction >= 1 else min(int(fraction * width * 2), width * 2 - 1)
    done = FULL * (halves // 2) + HALF * (halves % 2)
    return done + REST * (width - len(done))


def rate(record: Record, width: int) -> str:
    """As short as has to be to fit; the newest speed of a producer that tells its own."""
    text = words.rate(record.progress)
    if not text and record.speeds:
        newest = record.speeds[-1]
        return newest.as_text or words.amount(newest.speed, newest.unit)
    number, _, unit = text.partition(" ")
    return text if len(text) <= width else f"{number.partition('.')[0]} {unit}"
