"""The line of the queued tasks: whose turn it is to run.

The law:

- At most ``total`` tasks run at a time, ``per_owner`` of one owner, and of an operation what ``per_operation``
  says. The others wait, and the line is the one place where they do.
- Owners take turns, however many tasks each has waiting. Those of one owner go in the order in which they were
  started; one that cannot go yet does not hold up the next.
- No two tasks run on one target (``claims``), and of one owner's tasks on a target the first goes first. A task
  has neither slot nor target while it waits: it keeps nobody waiting before it has its turn.
- What a task waits for is told, and holds true as long as it is told. (That its target is looked at takes a
  moment, and is not.)
- A cancel takes a task out of the line, wherever it stands.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from heapq import heappop, heappush
from typing import Final, Protocol, TypeAlias

import attrs
import trio

from taskd.errors import ConfigError
from taskd.model import Task
from taskd.runner.claims import Claims, Holder

# Seconds after which the next of an owner's tasks no longer waits for one whose target does not let itself be
# looked at: a server that is away may hold that up for ever.
LOOKING: Final = 10.0

Look: TypeAlias = Callable[[], Awaitable[frozenset[str]]]
Tell: TypeAlias = Callable[[str], None]


@attrs.define(eq=False)
class Turn:
    """A task's place in the line; ``number`` is its place among its owner's.

    ``before`` and ``after`` are its neighbours among those of its ``rank`` whose targets are not known yet: of one
    owner, those that have targets, or those that have none and wait for no disk.
    """

    holder: Holder
    operation: str
    number: int
    tell: Tell
    rank: tuple[str, bool]
    keys: frozenset[str] = frozenset()
    waiting: bool = False
    granted: trio.Event = attrs.field(factory=trio.Event)
    looked: trio.Event = attrs.field(factory=trio.Event)
    before: Turn | None = None
    after: Turn | None = None


def _number(turn: Turn) -> int:
    return turn.number


class HasLine(Protocol):
    """What has numbers of tasks that may be set, and a line that goes by them."""

    running_tasks: int
    running_per_owner: int
    line: Line


def resized(owner: HasLine, field: attrs.Attribute[int], number: int) -> int:
    """The hook of attrs for when one of these numbers is set."""
    numbers = {"running_tasks": owner.running_tasks, "running_per_owner": owner.running_per_owner}
    numbers[field.name] = number
    owner.line.resize(numbers["running_tasks"], numbers["running_per_owner"])
    return number


# By operation, a heap of those that wait for a slot only, as far as is known: the next first.
Ready: TypeAlias = dict[str, list[tuple[int, str, Turn]]]


@attrs.define(eq=False)
class Line:
    """See the module. The owner whose turn is next comes first in ``_ready``."""

    total: int
    per_owner: int
    per_operation: Mapping[str, int]
    _claims: Claims = attrs.field(factory=Claims)
    _ready: dict[str, Ready] = attrs.field(factory=dict)
    # By the id of the task that they wait for, those that have the same target.
    _blocked: dict[str, list[Turn]] = attrs.field(factory=dict)
    # By owner and key of a target, those that wait with it, in their order.
    _same: dict[tuple[str, str], list[Turn]] = attrs.field(factory=dict)
    # By rank, the last of those whose targets are not known yet.
    _last: dict[tuple[str, bool], Turn] = attrs.field(factory=dict)
    _owners: Counter[str] = attrs.field(factory=Counter)
    _operations: Counter[str] = attrs.field(factory=Counter)

    def resize(self, total: int, per_owner: int) -> None:
        """Other limits from here on: those in line move up where there is room; nobody who runs is stopped."""
        self.total, self.per_owner = total, per_owner
        self._dispatch()
        for ready in self._ready.values():
            for operation, heap in ready.items():
                for _, _, turn in heap:
                    if turn.waiting:
                        turn.tell(self._slot(operation))

    def expect(self, operations: Iterable[str]) -> None:
        """
        Raises:
            ConfigError: there is a limit for an operation that is none of these.
        """
        for name in sorted(set(self.per_operation) - set(operations)):
            raise ConfigError("running_per_operation", f"there is no operation {name!r}")

    def enter(self, task: Task, tell: Tell, *, has_target: bool) -> Turn:
        """Join the line, behind those of its owner that were started before; ``tell`` is called with what the task
        waits for. Whoever enters leaves, or is waited for in vain.
        """
        rank = (task.owner, has_target)
        turn = Turn(Holder(task.id, task.owner), task.operation, task.seq, tell, rank)
        # A start enters those that were interrupted when each is undone.
        before, after = self._last.get(rank), None
        while before is not None and before.number > turn.number:
            before, after = before.before, before
        turn.before, turn.after = before, after
        if before is not None:
            before.after = turn
        if after is not None:
            after.before = turn
        else:
            self._last[rank] = turn
        return turn

    @asynccontextmanager
    async def running(self, turn: Turn, look: Look) -> AsyncIterator[None]:
        """Wait for a slot, and for the keys that ``look`` finds; inside, the task has them. The slot is given back
        at the end, the keys are let go of by ``let_go``.
        """
        try:
            while True:
                turn.keys = await look()
                await self._in_order(turn)
                self._settle([turn])
                await turn.granted.wait()
                # While it waited, another file may have taken the target's name.
                if await look() == turn.keys:
                    break
                self.leave(turn)
                self.let_go(turn.holder.id)
            yield
        finally:
            self.leave(turn)

    def leave(self, turn: Turn) -> None:
        """Out of the line, or give back the slot; twice is fine."""
        self._known(turn)
        if turn.waiting:
            self._stop_waiting(turn)
            self._reconsider(turn.holder.id)
        elif turn.granted.is_set():
            turn.granted = trio.Event()
            self._owners[turn.holder.owner] -= 1
            self._operations[turn.operation] -= 1
            self._owners += Counter()  # drops owners that have none left
            self._dispatch()

    def hold(self, task: Task, keys: frozenset[str]) -> None:
        """Take the keys, also what another has: the task has worked there before this daemon came."""
        self._claims.hold(Holder(task.id, task.owner), keys)

    def let_go(self, id: str) -> None:
        """The task ``id`` owes its targets nothing more; having none is fine."""
        self._claims.release(id)
        self._reconsider(id)

    # Which targets: known in the order in which the tasks of an owner came, though threads look for them, and
    # though all go on at once when a start has recovered.

    async def _in_order(self, turn: Turn) -> None:
        with trio.move_on_after(LOOKING):
            while turn.before is not None:
                await turn.before.looked.wait()
        while turn.before is not None:
            self._known(turn.before)
        self._known(turn)

    def _known(self, turn: Turn) -> None:
        """Nobody waits for a look of this one any more."""
        if turn.looked.is_set():
            return
        turn.looked.set()
        before, after = turn.before, turn.after
        if before is not None:
            before.after = after
        if after is not None:
            after.before = before
        elif before is not None:
            self._last[turn.rank] = before
        else:
            del self._last[turn.rank]
        turn.before = turn.after = None

    # Whose turn.

    def _settle(self, turns: Iterable[Turn]) -> None:
        """Put these in the line, let go on who can, and tell the others of these what they wait for."""
        told = [(turn, self._put(turn)) for turn in turns]
        self._dispatch()
        for turn, text in told:
            if turn.waiting and text is not None:
                turn.tell(text)

    def _put(self, turn: Turn) -> str | None:
        """Where it waits, and what is to be told of that; None where it was told."""
        if not turn.waiting:
            turn.waiting, turn.granted = True, trio.Event()
            for key in turn.keys:
                insort(self._same.setdefault((turn.holder.owner, key), []), turn, key=_number)
        if self._block(turn):
            return None
        ready = self._ready.setdefault(turn.holder.owner, {})
        heappush(ready.setdefault(turn.operation, []), (turn.number, turn.holder.id, turn))
        return self._slot(turn.operation)

    def _block(self, turn: Turn) -> bool:
        """Let it wait for another with the same target, if there is one; and tell."""
        other = self._first(turn)
        if other is None:
            return False
        self._blocked.setdefault(other.id, []).append(turn)
        own = other.owner == turn.holder.owner
        turn.tell(f"{f'task {other.id}' if own else 'a task of another owner'}, which has the same target")
        return True

    def _first(self, turn: Turn) -> Holder | None:
        """Who goes before it on its target: the one ahead of it among its owner's, or who works there."""
        for key in sorted(turn.keys):
            same = self._same[turn.holder.owner, key]
            place = bisect_left(same, turn.number, key=_number)
            if place > 0:
                return same[place - 1].holder
        return self._claims.against(turn.keys, turn.holder.id)

    def _slot(self, operation: str) -> str:
        """What is told of a limit holds true whichever of them it is just now."""
        limits = [f"{self.total} run at a time"]
        if operation in self.per_operation:
            limits.append(f"{self.per_operation[operation]} of {operation}")
        if self.per_owner < self.total:
            limits.append(f"{self.per_owner} of one owner")
        return f"a free slot: {', '.join(limits)}"

    def _dispatch(self) -> None:
        """Give out what is free, to one owner after the other."""
        while self._owners.total() < self.total:
            for owner in tuple(self._ready):
                turn = self._next(owner)
                ready = self._ready[owner]
                if not ready or turn is not None:
                    del self._ready[owner]
                if ready and turn is not None:
                    self._ready[owner] = ready  # behind all others
                if turn is not None:
                    self._grant(turn)
                    break
            else:
                return

    def _next(self, owner: str) -> Turn | None:
        """The first of an owner's tasks that can go now; it is taken off those that are ready."""
        ready = self._ready[owner]
        if self._owners[owner] >= self.per_owner:
            return None
        heads = []
        for operation, heap in tuple(ready.items()):
            if self._operations[operation] >= self.per_operation.get(operation, self.total):
                continue
            # Those that have left, and those whose target was taken while they were waiting here.
            while heap and (not heap[0][2].waiting or self._block(heap[0][2])):
                heappop(heap)
            if heap:
                heads.append(heap[0])
            else:
                del ready[operation]
        if not heads:
            return None
        turn = min(heads)[2]
        heappop(ready[turn.operation])
        if not ready[turn.operation]:
            del ready[turn.operation]
        return turn

    def _grant(self, turn: Turn) -> None:
        self._stop_waiting(turn)
        self._owners[turn.holder.owner] += 1
        self._operations[turn.operation] += 1
        self._claims.hold(turn.holder, turn.keys)
        turn.granted.set()

    def _stop_waiting(self, turn: Turn) -> None:
        turn.waiting = False
        for key in turn.keys:
            place = (turn.holder.owner, key)
            self._same[place].remove(turn)
            if not self._same[place]:
                del self._same[place]

    def _reconsider(self, id: str) -> None:
        """Those that waited for task ``id`` need not any more."""
        blocked = self._blocked.pop(id, [])
        self._settle(sorted((turn for turn in blocked if turn.waiting), key=_number))
