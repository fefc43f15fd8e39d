"""The machine's wall clock is set while we run: said in the log, and nothing else is done about it.

The law: what lasts (deadlines, heartbeats, the pauses between tries) goes by a clock that nobody sets; what is a
date (the times of tasks, retention, when a token ends) goes by the wall clock, as everybody's does. The times of
one task never run backwards whatever the clock does (``model.Task``, ``model.later``), and the order of tasks and
of changes is told from numbers, never from times.
"""

from __future__ import annotations

import logging
import time
from typing import Final, NoReturn

import trio

logger = logging.getLogger("taskd")

# Seconds between two looks, and those by which it must be off to be told: less is how clocks are kept. The looks
# are at the full multiples, as those of ``service.health`` are: one wake is enough for both.
LOOK: Final = 2.5
JUMP: Final = 1.0


def _offset() -> float:
    """Seconds from the clock that nobody sets, and that goes on while the machine sleeps, to the wall clock."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


async def watch() -> NoReturn:
    """Say it in the log when the wall clock was set."""
    offset = _offset()
    while True:
        await trio.sleep_until((trio.current_time() // LOOK + 1) * LOOK)
        before, offset = offset, _offset()
        if abs(jump := offset - before) >= JUMP:
            way = "forward" if jump > 0 else "back"
            logger.warning(
                "the clock was set %s by %.0f seconds; dates go by it, deadlines do not", way, abs(jump)
            )
