"""A page of KooDrive's list: what is asked for, and the walk that finds it.

The law: tasks come in order of their creation, by ``seq``, which is unique and never given again. The cursor is
the ``seq`` of the last task that was looked at, shown or not, and the next page begins after it. (The vendor's
is a creation time in whole seconds, which skips or repeats tasks made in the same second.) So a task that is
there, and fits, during the whole walk is shown exactly once, whatever others are made, end or are destroyed
meanwhile; a new one comes at the end; and the destroyed one that a cursor names does no harm.

A page may be shorter than asked, or empty, before the end: a request looks at SCANNED tasks at most and shows
about PAGE_CHARS at most. Only a page without a cursor is the last. A cursor always goes forward.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from taskd.dialects.koodrive import words
from taskd.dialects.koodrive.record import IMPORT, STATES, TRANSFER, info, status, task_type
from taskd.errors import BadParams
from taskd.model import JSON, Caller, Task
from taskd.operations.external import OPERATION as EXTERNAL
from taskd.service import Query, Service
from taskd.states import State

# The longest page, and the one of a request that does not say.
PAGE: Final = 100

# Tasks that one request looks at, and at most so many at once.
SCANNED: Final = 10_000
CHUNK: Final = 1000

# Characters of ``initParams``, which may be long, after which a page ends early.
PAGE_CHARS: Final = 1024 * 1024

LARGEST: Final = 2**63 - 1


@attrs.frozen
class Wanted:
    """What a request asks for: no ``statuses`` are all, no ``type`` is any."""

    statuses: frozenset[int] = frozenset()
    type: int | None = None
    size: int = PAGE
    after: int = 0

    def has(self, task: Task) -> bool:
        return (not self.statuses or status(task) in self.statuses) and self.type in (None, task_type(task))

    def query(self) -> Query:
        """What the store can leave out by itself; ``has`` is still to be asked of the rest."""
        states = frozenset[State]().union(*(STATES[each] for each in self.statuses or STATES))
        return Query(
            states=states if states != frozenset(State) else None,
            # Imports are only made through this dialect, and so are external.
            operations=(EXTERNAL.name,) if self.type == IMPORT else None,
            newest_first=False,
        )


def read(query: Iterable[tuple[str, str]]) -> Wanted:
    """What the query of a URL asks for; names that we do not know are passed over.

    An empty value is none. ``pageSize`` 0 is the default and above 100 is 100; ``pageCursor`` 0 is the start;
    ``status`` may be repeated and may hold several with commas between them.

    Raises:
        BadParams: the path is the name of the parameter.
    """
    given: dict[str, list[str]] = {}
    for name, value in query:
        if value:
            given.setdefault(name, []).append(value)
    statuses = [each for value in given.get("status", ()) for each in value.split(",")]
    size = _natural("pageSize", given)
    after = _natural("pageCursor", given)
    if after > LARGEST:
        raise BadParams("pageCursor", words.LONG)
    return Wanted(
        statuses=frozenset(map(_status, statuses)),
        type=_integer("taskType", given),
        size=min(size or PAGE, PAGE),
        after=after,
    )


def _status(text: str) -> int:
    if text not in map(str, STATES):
        raise BadParams("status", words.STATUS)
    return int(text)


def _natural(name: str, given: dict[str, list[str]]) -> int:
    number = _integer(name, given) or 0
    if number < 0:
        raise BadParams(name, words.POSITIVE)
    return number


def _integer(name: str, given: dict[str, list[str]]) -> int | None:
    values = given.get(name, [])
    if not values:
        return None
    if len(values) > 1:
        raise BadParams(name, words.ONCE)
    if not re.fullmatch("-?[0-9]+", values[0]):
        raise BadParams(name, words.INTEGER)
    # More than twenty digits are over every limit anyway, and Python refuses to read thousands.
    number = int(values[0].lstrip("-0")[:20] or "0")
    return -number if values[0].startswith("-") else number


async def page(service: Service, caller: Caller, wanted: Wanted) -> tuple[Sequence[dict[str, JSON]], int | None]:
    """The TaskInfos of a page, and the cursor of the next, None at the end.

    The tasks are those of ``Service.list``: whoever may see all sees all, everybody else those that they own,
    whoever minted the cursor. (A task that somebody only produces is theirs by its id, and in no list.)
    """
    shown: list[dict[str, JSON]] = []
    chars = scanned = 0
    after = wanted.after
    if wanted.type not in (None, TRANSFER, IMPORT):
        return shown, None
    query, limit = wanted.query(), wanted.size + 1
    while True:
        tasks = await service.list(caller, attrs.evolve(query, after=after, limit=limit))
        for task in tasks:
            if wanted.has(task):
                if len(shown) == wanted.size or chars > PAGE_CHARS:
                    return shown, after
                shown.append(info(task))
                chars += len(str(shown[-1]["initParams"]))
            after = task.seq
        scanned += len(tasks)
        if len(tasks) < limit:
            return shown, None
        if scanned >= SCANNED:
            return shown, after
        limit = min(CHUNK, SCANNED - scanned)
