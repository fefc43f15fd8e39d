"""Lines of a terminal made of cells at fixed places, whatever the texts in them; sans-IO.

In a narrow terminal columns give way, in a wide one others come. The label is the last one: there a character that
the terminal thinks wider than we do moves nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

import attrs

from taskd.cli import words

# Characters of an id; enough to tell one from another by the eye.
SHORT: Final = 8

# The columns before the label: name, width, and the terminal's width from which on it is there.
COLUMNS: Final = (
    ("ID", SHORT, 0),
    ("STATE", 9, 0),
    ("PROGRESS", 10, 72),
    ("%", 5, 0),
    ("DONE", 23, 140),
    ("RATE", 10, 62),
    ("LEFT", 6, 52),
    ("OWNER", 8, 100),
    ("OPERATION", 9, 116),
)
RIGHT: Final = frozenset({"%", "DONE", "RATE", "LEFT"})

# What a text may take instead of several columns: the first and the last of them.
SPANS: Final = {"STORY": ("PROGRESS", "%", "DONE", "RATE", "LEFT"), "PACE": ("RATE", "LEFT")}

# Styles that are no colours: bold, dim, underlined, reversed.
PLAIN: Final = frozenset("1247")


class Cell(NamedTuple):
    """``text`` from column ``x`` on; ``style`` is a list of SGR's numbers, "" for none."""

    x: int
    text: str
    style: str = ""


# Cells one after the other, that together are as wide as the terminal.
Line: TypeAlias = tuple[Cell, ...]


@attrs.frozen
class Layout:
    """Where columns and spans are in a terminal of ``width`` columns, and how wide; the label has what is left."""

    width: int
    places: Mapping[str, tuple[int, int]]

    @staticmethod
    @lru_cache(maxsize=8)
    def of(width: int) -> Layout:
        x, places = 1, {}
        for name, wide, least in COLUMNS:
            if width >= least and x + wide < width:
                places[name] = (x, wide)
                x += wide + 1
        for span, names in SPANS.items():
            there = [places[name] for name in names if name in places]
            if there:
                places[span] = (there[0][0], sum(there[-1]) - there[0][0])
        places["LABEL"] = (x, max(0, width - x))
        return Layout(width, places)

    def line(self, parts: Iterable[tuple[str, str, str]], *, mark: str = "") -> Line:
        """Texts by column, or span, in their order, each with its style; ``mark`` is every cell's."""
        cells = [Cell(0, ">" if mark else " ", mark)]
        for name, text, style in parts:
            x, width = self.places.get(name, (0, 0))
            if width:
                end = 0 if name == "LABEL" else 1
                aligned = text.rjust(width) if name in RIGHT else text
                placed = cut(aligned, width) if name in SPANS else fit(aligned, width)
                cells.append(Cell(x, placed + " " * end, mark or coloured(style)))
        return tuple(cells)

    def heading(self, sorted_by: str) -> Line:
        """The line above the tasks; the column that they are sorted by is bold."""
        names = [name for name, _, _ in COLUMNS if name in self.places]
        line = self.line((name, name, "") for name in [*names, "LABEL"])
        titles = {"progress": {"PROGRESS", "%"}}.get(sorted_by, {sorted_by.upper()})
        return tuple(Cell(x, text, "1;4" if text.strip() in titles else "4") for x, text, _ in line)


def coloured(style: str) -> str:
    """``style``, without colours where NO_COLOR asks for that."""
    if not os.environ.get("NO_COLOR"):
        return style
    return ";".join(part for part in style.split(";") if part in PLAIN)


@lru_cache(maxsize=1024)
def fit(text: str, width: int) -> str:
    """``text``, made harmless, in exactly so many cells of a terminal; one that is too long loses its middle."""
    text = words.middle(words.printable(text), width)
    return text + " " * (width - words.cells(text))


def cut(text: str, width: int) -> str:
    """As ``fit``, for sentences: one that is too long loses its end."""
    text = words.printable(text)
    if words.cells(text) <= width:
        return fit(text, width)
    return fit(words.start(text, width - 1) + "…", width) if width > 0 else ""


def spread(left: str, right: str, width: int, style: str = "") -> Line:
    """One text at the start of a line, and one at its end, which gives way last."""
    right = right.strip()
    room = max(0, width - words.cells(words.printable(right)) - 1)
    return (Cell(0, fit(left, room), coloured(style)), Cell(room, fit(f" {right}", width - room)))
