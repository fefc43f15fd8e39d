"""The numbers of a task's log lines: counted from 0, never given twice, not even where a line is lost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from taskd.model import LogLine, now
from taskd.registry import Live

# The longest line of a log, in characters; a longer one is cut into several.
LINE: Final = 4096


def numbered(live: Live, lines: Iterable[str], keep: int) -> list[LogLine]:
    """The next lines of a task's log, of more than ``keep`` the newest; whoever writes them holds the lock."""
    cut = [line[at : at + LINE] for line in lines for at in range(0, max(1, len(line)), LINE)]
    new = [LogLine(n, now(), line) for n, line in enumerate(cut, live.log_end)][-keep:]
    live.log_end += len(cut)
    return new
