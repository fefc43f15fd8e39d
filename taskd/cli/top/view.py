"""What is on the screen: keys and news go in, lines and wishes come out; sans-IO.

The calm: the window stays where it is while tasks come, go and change places in it. The chosen task is followed as
long as it stays in the window; when it leaves, the line stays, and whatever stands there now is chosen. A question
keeps the task that it was asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum, unique
from typing import Final

import attrs

from taskd.cli import words
from taskd.cli.top import row
from taskd.cli.top.cells import SHORT, Cell, Layout, Line, coloured, cut, fit, spread
from taskd.cli.top.page import Page
from taskd.cli.top.sorts import SORTS
from taskd.cli.top.tasks import Tasks
from taskd.client import Record

# Lines above the tasks, and the fewest lines that a terminal has for all three of them.
HEAD: Final = 3
LOW: Final = 7

# Seconds that a note stays.
NOTE: Final = 6.0

# Characters of a filter.
LONGEST: Final = 200

FOOT: Final = (
    ("q", "quit"), ("h", "help"), ("c", "cancel"), ("enter", "detail"), ("f", "filter"), ("s", "sort"),
    ("r", "reverse"), ("a", "ended"),
)  # fmt: skip
HELPED: Final = (("esc", "back"), ("↑↓", "scroll"))
BACK: Final = (*HELPED, ("c", "cancel"))

ENDS: Final = {"completed": "", "failed": "31", "cancelled": ""}


@unique
class Verb(Enum):
    """What only who has a connection can do."""

    QUIT = "quit"
    CANCEL = "cancel"
    RECALL = "recall"
    OPEN = "open"
    CLOSE = "close"
    REPAINT = "repaint"


@attrs.frozen
class Wish:
    """``id`` is the task of CANCEL and OPEN. RECALL is of those that ended before; CLOSE ends what OPEN began."""

    verb: Verb
    id: str = ""


@attrs.define(eq=False)
class View:
    """See the module. ``about`` names the daemon; ``away`` is since when it does not answer, if so."""

    tasks: Tasks
    about: str
    width: int = 80
    height: int = 24
    away: float | None = None
    page: Page | None = None
    _top: int = 0
    _line: int = 0
    _chosen: str | None = None
    _asked: str | None = None
    _typing: bool = False
    _note: tuple[str, float] = ("", 0.0)

    @property
    def asks(self) -> bool:
        """A question is open."""
        return self._asked is not None

    @property
    def body(self) -> int:
        """How many lines there are for tasks."""
        return max(0, self.height - 1 - len(self._heads()))

    def _heads(self) -> range:
        return range(HEAD) if self.height >= LOW else range(HEAD - 1, HEAD) if self.height > 1 else range(0)

    def note(self, text: str, now: float) -> None:
        """A sentence for the person, instead of the keys, for a while."""
        self._note = (text, now + NOTE)

    def key(self, key: str, now: float) -> Wish | None:
        """What a key asks for, if it is not done by being pressed."""
        if key == "\x0c":
            return Wish(Verb.REPAINT)
        if self._asked is not None:
            asked, self._asked = self._asked, None
            return Wish(Verb.CANCEL, asked) if key in ("y", "Y") else None
        self._note = ("", 0.0)
        if self._typing:
            self._type(key)
            return None
        if self.page is not None:
            return self._read(self.page, key, now)
        if key in MOVES:
            self._move(MOVES[key](self.body))
        elif key in ACTS:
            return ACTS[key](self, now)
        return None

    def _move(self, step: int) -> None:
        self._settle()
        last = len(self.tasks) - 1
        at = min(max(0, self._top + self._line + step), max(0, last))
        if not self._top <= at < self._top + self.body:
            self._top = at if step < 0 else max(0, at - self.body + 1)
        self._line = at - self._top
        self._choose()

    def _choose(self) -> None:
        found = self.tasks.rows(self._top + self._line, self._top + self._line + 1)
        self._chosen = found[0].id if found else None

    def _settle(self) -> None:
        """Find the chosen task again, or another one in its place."""
        self._top = min(self._top, max(0, len(self.tasks) - self.body))
        at = None if self._chosen is None else self.tasks.index(self._chosen)
        if at is not None and self._top <= at < self._top + self.body:
            self._line = at - self._top
            return
        self._line = max(0, min(self._line, self.body - 1, len(self.tasks) - 1 - self._top))
        self._choose()

    def _first(self) -> None:
        self._top = self._line = 0
        self._chosen = None

    def _type(self, key: str) -> None:
        text = self.tasks.filter
        match key:
            case "enter":
                self._typing = False
                return
            case "esc":
                self._typing, text = False, ""
            case "backspace":
                text = text[:-1]
            case _ if len(key) == 1 and len(text) < LONGEST:
                text += key
        self.tasks.arrange(filter=text)
        self._first()

    def _read(self, page: Page, key: str, now: float) -> Wish | None:
        if key in ("esc", "enter", "left", "q"):
            self.page = None
            return Wish(Verb.CLOSE)
        if key in MOVES:
            page.scroll(MOVES[key](self.body))
        elif key == "c" and page.id is not None:
            self._ask(self.tasks.known.get(page.id), now)
        return None

    def quit(self, now: float) -> Wish:
        return Wish(Verb.QUIT)

    def cancel(self, now: float) -> None:
        self._settle()
        self._ask(self.tasks.known.get(self._chosen or ""), now)

    def _ask(self, record: Record | None, now: float) -> None:
        if record is None:
            return
        if record.ended or not record.cancellable:
            self.note(f"too late to cancel {record.id[:SHORT]}: it is {record.state}", now)
        else:
            self._asked = record.id

    def open(self, now: float) -> Wish | None:
        self._settle()
        if self._chosen is None:
            return None
        self.page = Page(self._chosen)
        return Wish(Verb.OPEN, self._chosen)

    def help(self, now: float) -> None:
        self.page = Page(None)

    def type(self, now: float) -> None:
        self._typing = True

    def clear(self, now: float) -> None:
        if self.tasks.filter:
            self.tasks.arrange(filter="")
            self._first()

    def sort(self, step: int) -> None:
        """The next one of the orders, or the one before."""
        at = SORTS.index(self.tasks.sort) + step
        self.tasks.arrange(sort=SORTS[at % len(SORTS)])
        self._first()

    def reverse(self, now: float) -> None:
        self.tasks.arrange(backwards=not self.tasks.backwards)
        self._first()

    def everything(self, now: float) -> Wish | None:
        self.tasks.arrange(everything=not self.tasks.everything)
        self._first()
        return Wish(Verb.RECALL) if self.tasks.everything else None

    def frame(self, now: float) -> list[Line]:
        """The whole screen, line by line."""
        self.tasks.settle(now)
        self._settle()
        heads = [self._name(now), self._counts(), self._heading()]
        return [*(heads[i] for i in self._heads()), *self._body(now), self._foot(now)][: self.height]

    def _heading(self) -> Line:
        if self.page is None:
            return Layout.of(self.width).heading(self.tasks.sort.name)
        record = self.tasks.known.get(self.page.id or "")
        title = "Help" if self.page.id is None else "" if record is None else record.label or record.operation
        return (Cell(0, fit(f" {title}", self.width), "1;4"),)

    def _name(self, now: float) -> Line:
        if self.away is not None:
            text = f" the daemon is away for {row.short(now - self.away)}; waiting for it, q quits"
            return (Cell(0, fit(text, self.width), coloured("1;31")),)
        order = f"by {self.tasks.sort.name}{', reversed' if self.tasks.backwards else ''}"
        filter = f"{len(self.tasks)} with {fit(self.tasks.filter, min(20, len(self.tasks.filter)))}"
        said = [filter if self.tasks.filter else "", "ended too" if self.tasks.everything else "", order]
        return spread(f" {self.about}", "  ".join(part for part in said if part), self.width, "1")

    def _counts(self) -> Line:
        """What runs and waits, in its place; then what ended, which only grows; then what is on its way."""
        counts, ends = self.tasks.counts, self.tasks.ends
        said = [(f" {counts[name]} {name}".ljust(len(name) + 8), "") for name in ("running", "queued")]
        said += [(f" +{ends[name]} {name} ", coloured(ENDS[name])) for name in ENDS if ends[name]]
        others = [name for name in counts if name not in ("running", "queued") and counts[name]]
        said += [(f" {counts[name]} {name} ", "") for name in sorted(others)]
        cells, x = [], 0
        for text, style in said:
            if x + len(text) <= self.width:
                cells.append(Cell(x, text, style))
                x += len(text)
        return (*cells, Cell(x, " " * (self.width - x)))

    def _body(self, now: float) -> list[Line]:
        blank: Line = (Cell(0, " " * self.width),)
        if self.page is not None:
            lines = self.page.lines(self.tasks.known, self.width - 2, self.body)
            return [(Cell(0, fit(f" {text}", self.width)),) for text in lines]
        layout, away = Layout.of(self.width), self.away is not None
        found = self.tasks.rows(self._top, self._top + self.body)
        if not found:
            none = "no task has that" if self.tasks.filter else "no task is unfinished"
            return [(Cell(0, fit(f" {none}", self.width), "2"),), *[blank] * self.body][: self.body]
        rows = [
            row.line(record, layout, now, away=away, chosen=place == self._line)
            for place, record in enumerate(found)
        ]
        return rows + [blank] * (self.body - len(rows))

    def _foot(self, now: float) -> Line:
        text, until = self._note
        if self._asked is not None:
            record = self.tasks.known.get(self._asked)
            name = self._asked[:SHORT] + ("" if record is None else f"  {words.name(record)}")
            end = " ? y/n "
            room = max(0, self.width - len(end))
            return (Cell(0, fit(f" cancel {name}", room) + cut(end, self.width - room), "1;7"),)
        if self._typing:
            end = "  enter keeps it, esc drops it"
            return (Cell(0, fit(f" filter: {self.tasks.filter}▏{end}", self.width), "1"),)
        if now < until:
            return (Cell(0, fit(f" {text}", self.width), coloured("1;33")),)
        return keys(FOOT if self.page is None else HELPED if self.page.id is None else BACK, self.width)


def keys(table: Sequence[tuple[str, str]], width: int) -> Line:
    """The keys, as many as fit; help has them all."""
    cells, x = [], 0
    for key, what in table:
        if x + len(key) + len(what) + 3 <= width:
            cells += [Cell(x, f" {key}", "1"), Cell(x + 1 + len(key), f" {what} ", "2")]
            x += len(key) + len(what) + 3
    return (*cells, Cell(x, " " * (width - x)))


MOVES: Final[Mapping[str, Callable[[int], int]]] = {
    "up": lambda body: -1,
    "k": lambda body: -1,
    "down": lambda body: 1,
    "j": lambda body: 1,
    "pgup": lambda body: -max(1, body - 1),
    "pgdn": lambda body: max(1, body - 1),
    " ": lambda body: max(1, body - 1),
    "home": lambda body: -(1 << 30),
    "g": lambda body: -(1 << 30),
    "end": lambda body: 1 << 30,
    "G": lambda body: 1 << 30,
}

ACTS: Final[Mapping[str, Callable[[View, float], Wish | None]]] = {
    "q": View.quit,
    "c": View.cancel,
    "enter": View.open,
    "f": View.type,
    "/": View.type,
    "esc": View.clear,
    "s": lambda view, now: view.sort(1),
    ">": lambda view, now: view.sort(1),
    "<": lambda view, now: view.sort(-1),
    "r": View.reverse,
    "a": View.everything,
    "h": View.help,
    "?": View.help,
}
