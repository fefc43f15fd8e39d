"""The numbers of a task's log lines: counted from 0, never given twice, not even where a line is lost.

A line that was refused, with the whole change that it came with, is not lost: it has no number.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from taskd.model import LogLine, Task, now
from taskd.registry import Live, Registry
from taskd.store import Store

# The longest line of a log, in characters; a longer one is cut into several.
LINE: Final = 4096


def numbered(live: Live, lines: Iterable[str], keep: int) -> list[LogLine]:
    """The next lines of a task's log, of more than ``keep`` the newest; whoever writes them holds the lock."""
    cut = [line[at : at + LINE] for line in lines for at in range(0, max(1, len(line)), LINE)]
    kept, moment = cut[-keep:], now()
    live.log_end += len(cut)
    return [LogLine(n, moment, line) for n, line in enumerate(kept, live.log_end - len(kept))]


async def revived(store: Store, registry: Registry, task: Task) -> Live:
    """A task that was found at the start: its log goes on where it ended, and it is shown with a new revision.

    A crash forgets progress that was shown with a higher revision than the one on disk, and revisions do not go
    back.
    """
    end = await store.log_end(task.id)
    live = Live(task, log_end=end, log_kept=end)
    registry.add(live)
    registry.tell(live)
    return live
