"""The Store protocol: what is durable about tasks, and about tokens, in few verbs, each atomic.

A store keeps rows; it knows no lifecycle. Every verb either happened, durably, when it returns, or did not
happen and raises. Two stores keep one contract, held to it by ``tests/store/test_contract.py``: ``sqlite``,
and ``memory``, the honest twin that lets everything else run between any two effects.

Nothing above the store may assume that it is alone: ids are unique across hosts, and a task says where it
is resident.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol, TypeAlias

import attrs

from taskd.model import LogLine, Task, Token
from taskd.states import State


@attrs.frozen
class Query:
    """Which tasks to list: every filter that is set must hold.

    ``since`` keeps those whose revision is higher, and every task that has not ended (its newest revision may
    live in memory only). ``after`` is the ``seq`` of the last task of the page before.
    """

    states: Collection[State] | None = None
    operations: Collection[str] | None = None
    owner: str | None = None
    label: str | None = None
    since: int | None = None
    newest_first: bool = True
    after: int | None = None
    limit: int = 100


Forgotten: TypeAlias = Callable[[Sequence[Task]], None]


def ignore(tasks: Sequence[Task]) -> None:
    """Nobody is to be told."""


def shares(held: Mapping[str, int], keep: int) -> dict[str, int]:
    """How many of its ended tasks each owner (to how many it has) keeps, where all together may keep ``keep``.

    Nobody loses one before all who have more are down to as many: who leaves many takes nothing from others.
    """
    found: dict[str, int] = {}
    for n, (owner, count) in enumerate(sorted(held.items(), key=lambda item: (item[1], item[0]))):
        found[owner] = min(count, -(-keep // (len(held) - n)))
        keep -= found[owner]
    return found


class Store(Protocol):
    """Where tasks are kept. All verbs may raise ``StoreError``; writing ones ``StoreUnavailable``."""

    async def reserve(self, count: int) -> int:
        """Set aside ``count`` revisions that were never given before, durably; return the first."""

    async def create(self, task: Task) -> Task:
        """Add a new task and give it the next ``seq``, higher than any ever given, also to destroyed tasks.

        Where its owner already has a task with the same ``request_id``, nothing is added and that task is
        returned; so whoever calls compares the ids.
        """

    async def write(self, task: Task, *, expect: State, log: Sequence[LogLine] = (), keep: int = 0) -> None:
        """Replace the row of ``task`` if its stored state is ``expect``, and add to its ``log`` (``append_log``).

        State, journal and log lines change together or not at all.

        Raises:
            Conflict: the stored state is another, or there is no such task.
        """

    async def delete(self, id: str) -> None:
        """Forget a task and its log; not there is fine."""

    async def get(self, id: str) -> Task | None:
        """The task as last written."""

    async def requested(self, owner: str, request_id: str) -> Task | None:
        """The task that ``owner`` made with ``request_id``."""

    async def list(self, query: Query) -> Sequence[Task]:
        """At most ``query.limit`` tasks in order of ``seq``."""

    async def ids(self, *, owner: str | None = None, operation: str | None = None) -> Sequence[str]:
        """The ids of all tasks (of that owner, of that operation), oldest first."""

    async def ids_text(self, *, owner: str | None = None, operation: str | None = None) -> bytes:
        """``ids`` in JSON: of a million, a list of strings takes three times the memory, and long to make."""

    def ids_at_hand(self, *, owner: str | None = None, operation: str | None = None) -> bytes | None:
        """What ``ids_text`` would give, where that is known without waiting; else None."""

    async def owners(self) -> Mapping[str, int]:
        """How many tasks each owner has; owners of none are left out."""

    async def open_tasks(self) -> Sequence[Task]:
        """All tasks that there is still work on (``Task.open``), oldest first."""

    async def append_log(self, id: str, lines: Sequence[LogLine], *, keep: int) -> None:
        """Add lines to a task's log and forget all but its newest ``keep``."""

    async def log(self, id: str, start: int, limit: int) -> Sequence[LogLine]:
        """At most ``limit`` lines from number ``start`` on."""

    async def log_end(self, id: str) -> int:
        """The number that the next line of this log will have."""

    async def prune(self, *, before: float, keep: int, forgotten: Forgotten = ignore) -> int:
        """Forget ended tasks that owe nothing: those that ended before ``before`` (seconds since the epoch),
        then the oldest ones of each owner that are more than its share (``shares``) of ``keep``. Return how many.

        ``forgotten`` is called with tasks, some at a time, when it is durable that they are no more.
        """

    async def tokens(self) -> Sequence[Token]:
        """All tokens, in the order in which they were added."""

    async def add_token(self, token: Token) -> None:
        """Add a token.

        Raises:
            Conflict: there is one of that id.
        """

    async def delete_token(self, id: str) -> bool:
        """Forget a token; whether it was there."""

    async def close(self) -> None:
        """Everything acknowledged is on disk; no verb may be called afterwards."""
