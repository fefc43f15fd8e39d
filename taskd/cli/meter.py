"""What is shown while somebody waits: a bar in place on a terminal, else only what stays.

Three meters with one face. ``Plain`` shows no progress. ``Silent`` is for ``--json``: not even how a task
ended, because the document says it. ``Bars`` changes in place and leaves nothing behind but the lines that
the other two leave. What is shown is honest: a task that has not moved for a while says so, and one whose
daemon is away has no rate. Where a line is too narrow, the label gives way first, then the bar.
"""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final

import attrs

from taskd.cli import say, words
from taskd.client import Record

if TYPE_CHECKING:
    from rich.console import RenderableType

# Seconds without movement after which a task says so instead of naming a rate.
STILL: Final = 5.0

# The widest label beside a bar and the narrowest, in characters; and the bars, from the one that is liked.
LABEL: Final = 40
NARROW: Final = 10
BARS: Final = (24, 12, 0)


class Silent(AbstractContextManager["Silent"]):
    """Shows nothing but notes."""

    # Whether `show` wants to be called at every change.
    moving = False

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, record: Record) -> None:
        """How the task stands now."""

    def away(self, gone: bool) -> None:
        """The daemon does not answer any more, or again."""

    def line(self, text: str) -> None:
        """A line of a task's log."""

    def note(self, text: str) -> None:
        """A sentence to the person."""
        say.err(text)

    def ended(self, record: Record) -> None:
        """The task has ended: its one line."""


class Plain(Silent):
    """Shows what stays. With ``logs``, stdout is for the lines of logs alone."""

    def __init__(self, *, logs: bool) -> None:
        self._logs = logs

    def line(self, text: str) -> None:
        say.out(text)

    def ended(self, record: Record) -> None:
        if record.state == "completed":
            (self.note if self._logs else self.line)(words.ending(record))
            return
        self.note(words.ending(record))
        for each in words.residue(record):
            self.note(each)


class Bars(Plain):
    """Shows a bar a task, below everything else."""

    moving = True

    def __init__(self, *, logs: bool) -> None:
        super().__init__(logs=logs)
        # Late, and only here: most commands do without.
        from rich.console import Console
        from rich.live import Live

        self._records: dict[str, Record] = {}
        self._away = False
        # The widest words so far: what stands before them does not jump to and fro.
        self._widest = 0
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Bars:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, record: Record) -> None:
        self._records[record.id] = record
        self._refresh()

    def away(self, gone: bool) -> None:
        self._away = gone
        self._refresh()

    def line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def note(self, text: str) -> None:
        if sys.stderr.isatty():
            self.line(f"taskctl: {words.printable(text)}")
        else:
            say.err(text)

    def ended(self, record: Record) -> None:
        self._records.pop(record.id, None)
        self._refresh()
        super().ended(record)

    def _refresh(self) -> None:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        rows = [told(record, away=self._away) for record in self._records.values()]
        self._widest = max(self._widest, *(len(row.text) for row in rows), 0)
        bar, label = room(self._console.width - self._widest)
        grid = Table.grid(padding=(0, 1))
        for width in filter(None, (label, bar)):
            grid.add_column(width=width, no_wrap=True)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        for record, row in zip(self._records.values(), rows, strict=True):
            cells: list[RenderableType] = [words.middle(words.name(record), label)] if label else []
            if bar:
                shown = ProgressBar(total=1.0, completed=record.progress.fraction, width=bar)
                cells.append(shown if row.bar else "")
            grid.add_row(*cells, _joined(row.text, words.printable(record.status or "")))
        self._live.update(grid, refresh=True)


@attrs.frozen
class Row:
    """What stands beside a label: a bar or none, and the words behind it; what the task says of itself comes
    after them, where there is room.
    """

    bar: bool
    text: str


def room(left: int) -> tuple[int, int]:
    """How wide bar and label are where the words leave so many characters; 0 is none."""
    for bar in BARS:
        label = left - 1 - (bar + 1 if bar else 0)
        if label >= NARROW:
            return bar, min(label, LABEL)
    return 0, 0


def told(record: Record, now: float | None = None, *, away: bool = False) -> Row:
    """A record in a row; ``now`` is the time on the daemon's clock, which is ours; ``away``: nobody answers."""
    gone = "the daemon is away" if away else ""
    if record.state != "running":
        return Row(False, _joined(words.state(record), gone))
    shown, now = record.progress, time.time() if now is None else now
    asked = "cancel asked" if record.cancel_requested else ""
    if not shown.fraction and shown.total is None:  # it may never say how far it is
        for_so_long = f"running for {words.duration(now - (record.started_at or record.created_at))}"
        return Row(False, _joined("" if away else for_so_long, words.progress(shown), asked, gone))
    still = now - (shown.moved_at or now)
    if away:
        pace = [asked, gone]
    elif asked:
        pace = [asked]
    elif still > STILL:
        pace = [f"no movement for {words.duration(still)}"]
    else:
        pace = [words.rate(shown), "" if shown.eta_s is None else f"{words.duration(shown.eta_s)} left"]
    return Row(True, _joined(words.percent(shown.fraction), words.progress(shown), *pace))


def _joined(*parts: str) -> str:
    return "  ".join(part for part in parts if part)


def choose(*, silent: bool, logs: bool) -> Silent:
    """The meter that fits where stdout goes."""
    if silent:
        return Silent()
    return Bars(logs=logs) if say.live() else Plain(logs=logs)
