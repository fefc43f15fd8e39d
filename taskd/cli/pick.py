"""Which task is meant: an id, or the start of one that only one task has."""

from __future__ import annotations

from typing import Final

from taskd.client import Daemon
from taskd.errors import DoesNotExist, Refused

# The length of an id; nothing shorter is one.
WHOLE: Final = 36

# How many candidates a sentence names.
NAMED: Final = 5


def pick(daemon: Daemon, start: str) -> str:
    """The id that starts like this. A whole one is not looked up: the call that it is for will tell.

    Raises:
        Refused: no task's id starts like this, or more than one does.
    """
    if len(start) >= WHOLE:
        return start
    found = [id for id in daemon.ids() if id.startswith(start.lower())]
    if len(found) == 1:
        return found[0]
    if not found:
        none = DoesNotExist("task", start)
        raise Refused(none.name, str(none), none.data)
    more = "" if len(found) <= NAMED else f" and {len(found) - NAMED} more"
    raise Refused("Ambiguous", f"{start} may be {', '.join(found[:NAMED])}{more}", tuple(found))
