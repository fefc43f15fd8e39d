"""Stores that are slow, or cannot write, when a test says so."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio

from taskd.errors import StoreUnavailable
from taskd.model import LogLine, Task
from taskd.states import State
from taskd.store.memory import MemoryStore


@attrs.define(eq=False)
class SlowStore(MemoryStore):
    """The writes to the tasks ``held`` wait for ``go``; ``waiting`` says that one does."""

    held: set[str] = attrs.field(factory=set)
    go: trio.Event = attrs.field(factory=trio.Event)
    waiting: trio.Event = attrs.field(factory=trio.Event)

    async def write(self, task: Task, *, expect: State, log: Sequence[LogLine] = (), keep: int = 0) -> None:
        if task.id in self.held:
            self.waiting.set()
            await self.go.wait()
        await super().write(task, expect=expect, log=log, keep=keep)


@attrs.define(eq=False)
class StuckStore(MemoryStore):
    """Cannot write, delete or set revisions aside while it is ``full``."""

    full: bool = False

    async def reserve(self, count: int) -> int:
        self._check()
        return await super().reserve(count)

    async def write(self, task: Task, *, expect: State, log: Sequence[LogLine] = (), keep: int = 0) -> None:
        self._check()
        await super().write(task, expect=expect, log=log, keep=keep)

    async def delete(self, id: str) -> None:
        self._check()
        await super().delete(id)

    def _check(self) -> None:
        if self.full:
            raise StoreUnavailable("no space left on device")
