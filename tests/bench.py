"""What the tests run tasks with: the real registry, runner and service over a store, and a count of steps.

A step is one turn of a task's coroutine, from one await to the next. ``Steps`` calls back before each one, so
that a test can cancel, stop or crash at every n.
"""

from __future__ import annotations

import inspect
import os
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from typing import Any, cast

import attrs
import trio
import trio.testing

from taskd import codec
from taskd.model import JSON, Caller, Task
from taskd.operations import Operation
from taskd.registry import Registry
from taskd.runner import Handle, Runner
from taskd.service import Service
from taskd.store import Store

ROOT = Caller(uid=0, gid=0, pid=1, user="root", roles=frozenset({"admin"}))


def user(name: str, uid: int = 1000, *groups: int) -> Caller:
    return Caller(uid, uid, pid=1, user=name, roles=frozenset({"user"}), groups=frozenset(groups))


def by_token(name: str) -> Caller:
    """Somebody who is no user of this machine, whatever the name."""
    return Caller(None, None, pid=1, user=name, roles=frozenset({"user"}), token="00000000")


@asynccontextmanager
async def running(
    store: Store,
    operations: Mapping[str, Operation],
    workspace: str,
    roots: tuple[str, ...] = (),
    **settings: Any,
) -> AsyncIterator[Service]:
    """A service over ``store`` whose runner has recovered what it found; leaving it stops like the daemon."""
    registry = Registry()
    runner = Runner(store, registry, operations, codec.structure, workspace, **settings)
    os.makedirs(workspace, exist_ok=True)
    async with trio.open_nursery() as background:
        await background.start(registry.keep_revisions, store.reserve)
        await background.start(runner.run)
        yield Service(store, registry, runner, operations, roots=roots)
        background.cancel_scope.cancel()


@attrs.define(eq=False)
class Steps(trio.abc.Instrument):
    """Counts the steps of all tasks' coroutines, and calls ``hook`` before step ``at``."""

    at: int | None = None
    hook: Callable[[], None] | None = None
    count: int = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task.name.startswith("task "):
            self.count += 1
            if self.count == self.at and self.hook is not None:
                self.hook()


@attrs.define(eq=False)
class Fault:
    """EIO, raised in an operation at the n-th point where what it waited for is done.

    A point is a wait of its own (a thread, a child) or a call of its handle. Inside the handle's calls the
    ground is the runner's, and inside a nursery's end or a lock it is trio's: a fault there would break them.
    """

    n: int
    points: int = 0
    thrown: bool = False

    def put_into(self, operation: Operation) -> Operation:
        run = operation.run
        assert run is not None

        async def failing(params: object, handle: Handle) -> JSON:
            return await self._drive(run(params, cast(Handle, FaultyHandle(handle, self))))

        return attrs.evolve(operation, run=failing)

    def due(self) -> bool:
        self.points += 1
        self.thrown = self.thrown or self.points == self.n
        return self.points == self.n

    @types.coroutine
    def _drive(self, work: Awaitable[JSON]) -> Generator[Any, Any, Any]:
        """Pass on what trio and the operation say to each other, until the n-th answer."""
        assert isinstance(work, Coroutine)
        resume = partial(work.send, None)
        while True:
            try:
                trap = resume()
            except StopIteration as stop:
                return stop.value
            inside = _waits_elsewhere(work)
            answer = yield trap
            due = not inside and self.due()
            resume = partial(work.throw, EIO()) if due else partial(work.send, answer)


def EIO() -> OSError:  # noqa: N802  # as errno names it
    return OSError(5, "Input/output error")


def _waits_elsewhere(work: Any) -> bool:
    while work is not None:
        code = getattr(work, "cr_code", None)
        if code is not None and (
            os.path.dirname(code.co_filename).endswith("taskd/runner")
            or code.co_name in ("__aenter__", "__aexit__", "_nested_child_finished")
        ):
            return True
        work = getattr(work, "cr_await", None)
    return False


@attrs.frozen(eq=False)
class FaultyHandle:
    """A handle whose calls do what they should, and then may be the point of a fault."""

    _handle: Handle
    _fault: Fault

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._handle, name)
        if not inspect.iscoroutinefunction(attribute):
            return attribute

        async def call(*args: Any, **kwargs: Any) -> Any:
            result = await attribute(*args, **kwargs)
            if self._fault.due():
                raise EIO()
            return result

        return call


def bounded(seconds: float = 60.0) -> AbstractContextManager[trio.CancelScope]:
    """``trio.fail_after``, in seconds of the machine also where trio's clock runs faster."""
    clock = trio.lowlevel.current_clock()
    rate = clock.rate if isinstance(clock, trio.testing.MockClock) else 1.0
    return trio.fail_after(seconds * max(rate, 1.0))


async def ended(service: Service, id: str) -> Task:
    """The task, when it has ended."""
    with bounded():
        return await service.wait(ROOT, id)
