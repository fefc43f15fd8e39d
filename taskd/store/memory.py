"""The honest twin: a store in memory that keeps the contract and hides no gap.

Every verb yields before its effect and after it, so that a test that stops, cancels or photographs between
any two steps sees each state that a real store could be in. (A twin that yielded only before let broken
runners pass.) It lives as long as its process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import attrs
import trio

from taskd.codec import dumps
from taskd.errors import Conflict
from taskd.model import LogLine, Task, Token
from taskd.states import State
from taskd.store import Forgotten, Query, ignore, shares


@attrs.define(eq=False)
class MemoryStore:
    """See ``taskd.store.Store``."""

    _tasks: dict[str, Task] = attrs.field(factory=dict)
    _logs: dict[str, list[LogLine]] = attrs.field(factory=dict)
    _log_ends: dict[str, int] = attrs.field(factory=dict)
    _next_seq: int = 1
    _next_revision: int = 1
    _tokens: dict[str, Token] = attrs.field(factory=dict)

    def photograph(self) -> MemoryStore:
        """What a crash at this moment would leave behind: a store of its own with the same rows."""
        return MemoryStore(
            dict(self._tasks),
            {id: list(lines) for id, lines in self._logs.items()},
            dict(self._log_ends),
            self._next_seq,
            self._next_revision,
            dict(self._tokens),
        )

    @asynccontextmanager
    async def _effect(self) -> AsyncIterator[None]:
        await trio.lowlevel.checkpoint()
        yield
        await trio.lowlevel.checkpoint()

    async def reserve(self, count: int) -> int:
        async with self._effect():
            first = self._next_revision
            self._next_revision += count
        return first

    async def create(self, task: Task) -> Task:
        async with self._effect():
            existing = self._find(task.owner, task.request_id)
            if existing is None and task.id in self._tasks:
                raise Conflict(f"there is a task {task.id} already")
            if existing is None:
                existing = self._tasks[task.id] = attrs.evolve(task, seq=self._next_seq)
                self._next_seq += 1
        return existing

    def _find(self, owner: str, request_id: str | None) -> Task | None:
        if request_id is None:
            return None
        wanted = (owner, request_id)
        return next((t for t in self._tasks.values() if (t.owner, t.request_id) == wanted), None)

    async def write(self, task: Task, *, expect: State, log: Sequence[LogLine] = (), keep: int = 0) -> None:
        async with self._effect():
            stored = self._tasks.get(task.id)
            if stored is None or stored.state is not expect:
                found = "nothing" if stored is None else stored.state.value
                raise Conflict(f"task {task.id}: expected {expect}, found {found}")
            self._tasks[task.id] = task
            self._append(task.id, log, keep)

    async def delete(self, id: str) -> None:
        async with self._effect():
            self._tasks.pop(id, None)
            self._logs.pop(id, None)
            self._log_ends.pop(id, None)

    async def get(self, id: str) -> Task | None:
        async with self._effect():
            task = self._tasks.get(id)
        return task

    async def requested(self, owner: str, request_id: str) -> Task | None:
        async with self._effect():
            task = self._find(owner, request_id)
        return task

    async def list(self, query: Query) -> Sequence[Task]:
        async with self._effect():
            found = [task for task in self._in_order() if _matches(task, query)]
        if query.newest_first:
            found.reverse()
        return found[: query.limit]

    def _in_order(self) -> Sequence[Task]:
        return sorted(self._tasks.values(), key=lambda task: task.seq)

    async def ids(self, *, owner: str | None = None, operation: str | None = None) -> Sequence[str]:
        async with self._effect():
            found = self._ids(owner, operation)
        return found

    async def ids_text(self, *, owner: str | None = None, operation: str | None = None) -> bytes:
        return dumps(await self.ids(owner=owner, operation=operation))

    def ids_at_hand(self, *, owner: str | None = None, operation: str | None = None) -> bytes:
        return dumps(self._ids(owner, operation))

    def _ids(self, owner: str | None, operation: str | None) -> Sequence[str]:
        return [
            task.id
            for task in self._in_order()
            if owner in (None, task.owner) and operation in (None, task.operation)
        ]

    async def owners(self) -> Mapping[str, int]:
        async with self._effect():
            found = Counter(task.owner for task in self._tasks.values())
        return found

    async def open_tasks(self) -> Sequence[Task]:
        async with self._effect():
            found = [task for task in self._in_order() if task.open]
        return found

    async def append_log(self, id: str, lines: Sequence[LogLine], *, keep: int) -> None:
        async with self._effect():
            self._append(id, lines, keep)

    def _append(self, id: str, lines: Sequence[LogLine], keep: int) -> None:
        if id in self._tasks and lines:
            log = self._logs.setdefault(id, [])
            log.extend(lines)
            del log[: max(0, len(log) - keep)]
            self._log_ends[id] = lines[-1].n + 1

    async def log(self, id: str, start: int, limit: int) -> Sequence[LogLine]:
        async with self._effect():
            lines = [line for line in self._logs.get(id, ()) if line.n >= start]
        return lines[:limit]

    async def log_end(self, id: str) -> int:
        async with self._effect():
            end = self._log_ends.get(id, 0)
        return end

    async def prune(self, *, before: float, keep: int, forgotten: Forgotten = ignore) -> int:
        async with self._effect():
            ended = [task for task in self._tasks.values() if not task.open]
            ended.sort(key=lambda task: (task.finished_at or 0.0, task.seq), reverse=True)
            fresh = [task for task in ended if (task.finished_at or 0.0) >= before]
            left = shares(Counter(task.owner for task in fresh), keep)
            spared: set[str] = set()
            for task in fresh:
                if left[task.owner]:
                    left[task.owner] -= 1
                    spared.add(task.id)
            doomed = [task for task in reversed(ended) if task.id not in spared]
            for task in doomed:
                del self._tasks[task.id]
                self._logs.pop(task.id, None)
                self._log_ends.pop(task.id, None)
            forgotten(doomed)
        return len(doomed)

    async def tokens(self) -> Sequence[Token]:
        async with self._effect():
            found = [*self._tokens.values()]
        return found

    async def add_token(self, token: Token) -> None:
        async with self._effect():
            if token.id in self._tokens:
                raise Conflict(f"there is a token {token.id} already")
            self._tokens[token.id] = token

    async def delete_token(self, id: str) -> bool:
        async with self._effect():
            gone = self._tokens.pop(id, None)
        return gone is not None

    async def close(self) -> None:
        await trio.lowlevel.checkpoint()


def _matches(task: Task, query: Query) -> bool:
    if query.after is not None:
        past = task.seq < query.after if query.newest_first else task.seq > query.after
        if not past:
            return False
    return (
        (query.states is None or task.state in query.states)
        and (query.operations is None or task.operation in query.operations)
        and query.owner in (None, task.owner)
        and query.label in (None, task.label)
        and (query.since is None or task.revision > query.since or not task.state.ended)
    )
