"""How much of a log goes in one frame.

The law: a frame ends where a change ends, so that its revision says how much was told; but of a change too long
for one frame. That one is told in parts, alone, and of who comes back before it nobody knows how much it has.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Final

from taskd.model import LogLine
from taskd.service import Kept

# The most lines, and about the most characters, of a log in one frame; the rest is in those after it.
LINES: Final = 50
CHARS: Final = 65536


def fitting(lines: Sequence[LogLine]) -> int:
    """How many of the first of ``lines`` go in one frame, one at least where there is one."""
    chars = 0
    for count, line in enumerate(lines[:LINES]):
        chars += len(line.line)
        if count and chars > CHARS:
            return count
    return min(len(lines), LINES)


def whole_changes(kept: Sequence[Kept]) -> Sequence[Kept]:
    """The first of ``kept`` that go in one frame: whole changes, or some of one that is too long."""
    count = fitting([each.line for each in kept[: LINES + 1]])
    if count < len(kept) and kept[count].revision == kept[count - 1].revision:
        broken = kept[count].revision
        before = sum(1 for each in kept[:count] if each.revision != broken)
        count = before or count
    return kept[:count]


def one_frame(kept: Sequence[Kept]) -> bool:
    """The first change of ``kept``, if any, goes in one frame."""
    change = [each.line for each in takewhile(lambda each: each.revision == kept[0].revision, kept)]
    return fitting(change) == len(change)
