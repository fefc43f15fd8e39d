"""Runs operations as tasks: scope, journal, commit, unwind, recover.

The law (laws L1 to L6 of the design):

- A task's coroutine looks at where the task stands and does what that state asks for, until it has ended. The
  same loop serves a new task and one found after a crash: recovery is not a second road.
- Every durable change goes through ``Runner.change``, the one place that moves, stores and shows, under the
  task's lock. What is decided is decided from the newest snapshot.
- The undo of an act is durable before the act. The journal is unwound last to first, each undone step taken
  off durably, so that a crash repeats at most the step it fell into; and steps are idempotent.
- Commit: honour a cancel that was accepted, close the door, write once. Between the check and the door there
  is no await. Durable writes are shielded, so that memory and disk agree when a cancel falls into them.
- Whoever cancels says so in the task. ``trio.Cancelled`` alone says nothing: it is also how the daemon stops,
  and stopping leaves a task as a crash would.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

import attrs
import trio

from taskd.errors import (
    CancelAsked,
    DeadlineExceeded,
    IllegalMove,
    Interrupted,
    OperationMissing,
    StoreUnavailable,
    UndoFailed,
)
from taskd.model import JSON, Failure, Progress, Residue, Undo, later, now
from taskd.registry import Live, Registry
from taskd.runner import producer, recovery
from taskd.runner.ending import bury
from taskd.runner.handle import ALMOST, TaskHandle, completed, contained, describe
from taskd.runner.journal import do, residue_of
from taskd.runner.line import Line, Turn, resized
from taskd.runner.log import numbered, revived
from taskd.runner.operation import Answer, Handle, Operation, Verb
from taskd.runner.rights import acting
from taskd.runner.targets import has_target, targets_of
from taskd.states import Event, State, after
from taskd.store import Store

__all__ = ["ATTEMPTS", "Answer", "Handle", "Operation", "Runner", "Verb", "contained", "producer"]

logger = logging.getLogger("taskd.runner")

# How often an interrupted, restartable task is run before it is given up (law L6).
ATTEMPTS: Final = 3

# Seconds between two tries of a write, or of a finish, that must happen before the task can end.
PATIENCE: Final = 5.0

# The longest of the growing pauses between two rounds of a finish.
LONG: Final = 300.0


@attrs.define(eq=False)
class Runner:
    """Runs tasks.

    ``structure`` turns stored params into the operation's params (the codec's, handed in so that this room
    stays without it). ``workspace`` is a folder for files that journals name; ``log_lines`` how many lines of
    a task's log are kept; how many tasks run at once, in all, of one owner and of each operation, is said by
    ``running_tasks``, ``running_per_owner`` and ``running_per_operation``: the rest is queued. All these numbers
    but the last may be set anew.
    """

    store: Store
    registry: Registry
    operations: Mapping[str, Operation]
    structure: Callable[[JSON, type[Any]], Any]
    workspace: str
    log_lines: int = 10_000
    running_tasks: int = attrs.field(default=64, on_setattr=resized)
    running_per_owner: int = attrs.field(default=32, on_setattr=resized)
    running_per_operation: Mapping[str, int] = attrs.field(factory=dict)
    _nursery: trio.Nursery | None = None
    line: Line = attrs.field(init=False)
    recovered: trio.Event = attrs.field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        """Raises ConfigError: there is a limit for an operation that there is not."""
        self.line = Line(self.running_tasks, self.running_per_owner, self.running_per_operation)
        self.line.expect(self.operations)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take up every open task, kill what a crashed daemon left running, then run tasks until cancelled.

        Started when the surviving children are dead and every open task can be seen and cancelled. New work
        waits until what was interrupted is undone (``recovery.settled``).
        """
        async with trio.open_nursery() as self._nursery:
            self.registry.feed.count_from(await self.store.owners())
            found = [await revived(self.store, self.registry, each) for each in await self.store.open_tasks()]
            await recovery.kill_survivors(self, found)
            await recovery.hold_targets(self, found, self._nursery)
            interrupted = recovery.interrupted(found)
            for live in found:
                self.adopt(live)
            task_status.started()
            await recovery.settled(self, interrupted)
            self.recovered.set()
            await trio.sleep_forever()

    def adopt(self, live: Live) -> None:
        """Care for a task, from where it stands, in the background. A queued one has its place from now on."""
        assert self._nursery is not None, "the runner is not running"
        turn = self._enter(live) if live.task.state is State.QUEUED else None
        self._nursery.start_soon(self._attend, live, turn, name=f"task {live.task.id}")

    async def _attend(self, live: Live, turn: Turn | None) -> None:
        assert self._nursery is not None
        try:
            if live.task.state is State.FAILED:
                await self._clear(live)
            while not (live.task.state.ended or live.forgotten):
                operation = self.operations.get(live.task.operation)
                match live.task.state:
                    case State.RUNNING if operation is not None and operation.run is None:
                        await producer.listen(self, live, operation)
                    case State.QUEUED:
                        await self._work(live, operation, turn or self._enter(live))
                        turn = None
                    case State.RUNNING:
                        # Found so after a crash. That there is no error says that it was interrupted.
                        await self._insist(live, Event.STOPPED)
                    case State.UNDOING:
                        await self._unwind(live)
                    case State.COMMITTED:
                        await self._finish(live)
            await bury(self, live, self._nursery)
        except Exception:
            # A fault of ours. The task stays as it is on disk, and the next start takes it up again.
            logger.exception("could not be attended", extra=live.task.about)

    async def change(self, live: Live, *events: Event, best_effort: bool = False, **changes: Any) -> None:
        """Move, store and show: the one road of every durable change.

        With ``best_effort`` a store that cannot write is passed over: the change is shown, and stored with the
        next one. Raises StoreUnavailable otherwise, with nothing changed, and where no revision is left for it.
        """
        async with live.lock:
            await self.write(live, *events, best_effort=best_effort, **changes)

    async def write(
        self, live: Live, *events: Event, best_effort: bool = False, log: Iterable[str] = (), **changes: Any
    ) -> None:
        """``change`` under a lock that is held, with lines for the ``log``; nothing of what is forgotten."""
        if live.forgotten:
            return
        end, state = live.log_end, after(live.task.state, *events)
        ticket = self.registry.take(live, best_effort=best_effort)
        lines = numbered(live, log, self.log_lines)
        if events and state.ended:
            changes["finished_at"] = now()
            if state is not State.COMPLETED:
                made = changes.get("progress", live.progress)
                changes["progress"] = attrs.evolve(made, fraction=min(made.fraction, ALMOST))
        if state.ended and not changes.get("journal", live.task.journal):
            changes["targets"] = ()
        changes.setdefault("cancel_requested", live.cancel_asked or live.task.cancel_requested)
        task = attrs.evolve(
            live.task,
            state=state,
            revision=ticket.revision,
            cancellable=state.cancellable,
            modified_at=later(live.task.modified),
            waits_for=None,
            **changes,
        )
        with trio.CancelScope(shield=True):
            try:
                await self.store.write(task, expect=live.stored, log=lines, keep=self.log_lines)
                live.stored = state
                self.registry.logged(live, lines, ticket.revision, self.log_lines)
            except BaseException as error:
                if not (best_effort and isinstance(error, StoreUnavailable)):
                    live.log_end = end
                    self.registry.give_up(ticket)
                    raise
            if "progress" in changes:
                live.progress = task.progress
            self.registry.show(ticket, task)
            await self.registry.shown(live, ticket)

    async def _insist(self, live: Live, *events: Event, **changes: Any) -> None:
        """``change``, as soon as the store can write."""
        await self.decided(live, partial(self.write, live, *events, **changes))

    async def decided(self, live: Live, decide: Callable[[], Awaitable[None]]) -> None:
        """Under the lock, decide from the newest snapshot and write; again, until the store can write."""
        while True:
            try:
                async with live.lock:
                    return await decide()
            except StoreUnavailable as error:
                logger.error("waits for the store: %s", error, extra=live.task.about)
            await trio.sleep(PATIENCE)

    async def log(self, live: Live, *lines: str) -> None:
        """Append to a task's log, under its lock, in one write. Raises StoreUnavailable: they are lost."""
        new = numbered(live, lines, self.log_lines)
        with trio.CancelScope(shield=True):
            await self.store.append_log(live.task.id, new, keep=self.log_lines)
        self.registry.logged(live, new, live.reported or self.registry.revision + 1, self.log_lines)
        self.registry.report(live, live.progress)

    # The states, in the order of a life.

    async def _work(self, live: Live, operation: Operation | None, turn: Turn) -> None:
        """Queued: wait for its turn, run the operation, commit; or say why not."""
        failure: Failure | None = None
        limit = trio.CancelScope(deadline=self.deadline(live))
        try:
            with trio.CancelScope() as live.scope, limit:
                if live.cancel_asked:
                    live.scope.cancel()
                if not self.recovered.is_set():
                    turn.tell("the recovery of tasks that were interrupted")
                await self.recovered.wait()
                self._tell(live, None)
                async with self.line.running(turn, partial(targets_of, self, live)):
                    live.waits_for = None
                    new = {"attempt": live.task.attempt + 1, "started_at": now(), "progress": Progress()}
                    await self._insist(live, Event.STARTED, targets=tuple(sorted(turn.keys)), **new)
                    await self._run(live, operation)
        except CancelAsked:
            pass
        except Exception as error:
            failure = describe(error, live)
        live.scope = live.waits_for = None
        self.line.leave(turn)
        if limit.cancelled_caught:
            failure = describe(DeadlineExceeded(live.task.deadline_s or 0.0), live)
        if live.task.state is State.QUEUED and failure is None:
            await self._insist(live, Event.CALLED_OFF, cancel_requested=True)
        elif live.task.state is State.QUEUED:
            await self._insist(live, Event.STARTED, Event.STOPPED, error=failure)
        elif live.task.state is State.RUNNING:
            # Best effort: when the disk is full of what this task wrote, the undo has to come first.
            await self.change(live, Event.STOPPED, error=failure, best_effort=True)

    def _enter(self, live: Live) -> Turn:
        return self.line.enter(live.task, partial(self._tell, live), has_target=has_target(self, live))

    def _tell(self, live: Live, waits_for: str | None) -> None:
        if live.waits_for != waits_for:
            live.waits_for = waits_for
            self.registry.report(live, live.progress)

    async def _run(self, live: Live, operation: Operation | None) -> None:
        if operation is None or operation.run is None:
            raise OperationMissing(live.task.operation)
        handle = TaskHandle(self, live, operation)
        with contained(live.task.about), acting(live.task.rights):
            params = self.structure(live.task.params, operation.params)
            result = await operation.run(params, handle)
        if live.task.state is State.RUNNING:
            await self.commit(live, result, stopped=True)

    def deadline(self, live: Live) -> float:
        """The moment, on trio's clock, when the task's time is up."""
        if live.task.deadline_s is None:
            return float("inf")
        return trio.current_time() + live.task.created_at + live.task.deadline_s - time.time()

    async def commit(self, live: Live, result: JSON, finish: Iterable[Undo] = (), stopped: bool = False) -> None:
        # Where the work has stopped and nothing is left to finish, both moves are one durable write.
        more = [Event.FINISHED] if stopped else []
        done: dict[str, Any] = {"progress": completed(live.progress)} if stopped else {}
        async with live.lock:
            if live.cancel_asked:
                raise CancelAsked(live.task.id)
            if live.task.state is not State.RUNNING:
                raise IllegalMove(live.task.state.value, Event.COMMITTED.value)
            self._door(live, open=False)
            try:
                await self.write(live, Event.COMMITTED, *more, result=result, journal=tuple(finish), **done)
            except BaseException:
                self._door(live, open=True)
                raise

    def _door(self, live: Live, *, open: bool) -> None:
        """Show whether a cancel is still accepted; what makes it so is the lock that ``commit`` holds."""
        self.registry.tell(live, attrs.evolve(live.task, cancellable=open))

    async def _unwind(self, live: Live) -> None:
        """Undoing: undo what is journaled, last to first; then, and only then, decide how it ended."""
        journal, residue = await self._undo(live)
        await self.decided(live, partial(self._end, live, journal, residue))

    async def _end(self, live: Live, journal: tuple[Undo, ...], residue: tuple[Residue, ...]) -> None:
        task = live.task
        operation = self.operations.get(task.operation)
        if journal:
            cause = f" (the task had stopped because: {task.error.message})" if task.error else ""
            error = describe(UndoFailed(residue[0].reason + cause), live)
            await self.write(live, Event.FAILED, journal=journal, residue=residue, error=error)
        elif live.cancel_asked:
            await self.write(live, Event.CANCELLED, journal=(), error=None, cancel_requested=True)
        elif task.error is not None:
            await self.write(live, Event.FAILED, journal=())
        elif operation is not None and operation.restartable and task.attempt < ATTEMPTS:
            await self.write(live, Event.REQUEUED, journal=(), started_at=None)
            self.line.let_go(task.id)  # its next turn claims anew
        else:
            error = describe(Interrupted(task.attempt), live)
            await self.write(live, Event.FAILED, journal=(), error=error)

    async def _undo(self, live: Live) -> tuple[tuple[Undo, ...], tuple[Residue, ...]]:
        """Unwind the journal as far as it goes: what is left of it, and why.

        It stops at the first step that fails: a later one (the pre-image is deleted) may rely on it (the
        device is put back).
        """
        journal = live.task.journal
        while journal:
            reason = await do(live, journal[-1], self.operations.get(live.task.operation))
            if reason is not None:
                return journal, residue_of(journal, reason)
            journal = journal[:-1]
            if journal:
                await self.change(live, journal=journal, best_effort=True)
        return (), ()

    def release(self, id: str) -> None:
        """A task was destroyed with what it owed: others may work on its target."""
        self.line.let_go(id)

    async def recover(self, live: Live) -> None:
        """Try a failed undo again now; returns when it was tried. What a cancel leaves, the next try does."""
        if live.task.state is not State.FAILED:  # what a committed task owes is no undo
            raise IllegalMove(live.task.state.value, "recovered")
        assert self._nursery is not None, "the runner is not running"
        self.registry.add(live)
        try:
            await self._clear(live)
        finally:
            await bury(self, live, self._nursery)

    async def _clear(self, live: Live) -> None:
        """Failed with residue: try the undo again. The outcome stays, only the debt may go."""
        journal, residue = await self._undo(live)
        await self._insist(live, journal=journal, residue=residue)

    async def _finish(self, live: Live) -> None:
        """Committed: do the finish steps, in order, until they are done; there is no other way out."""
        operation, pause = self.operations.get(live.task.operation), PATIENCE
        for step in live.task.journal:
            while not live.forgotten and (reason := await do(live, step, operation)) is not None:
                residue = (Residue(step.verb, step.args, reason),)
                await self.change(live, residue=residue, best_effort=True)
                with trio.move_on_after(0 if live.forgotten else pause):
                    await live.woken()
                pause = min(2 * pause, LONG)
        await self._insist(live, Event.FINISHED, journal=(), residue=(), progress=completed(live.progress))

    # What others ask of a task.

    async def cancel(self, live: Live) -> Answer:
        """Ask a task to stop; durable when answered (law L5).

        Raises:
            StoreUnavailable: the cancel is under way, but a crash would forget it.
        """
        async with live.lock:
            if live.task.state.ended:
                return Answer.ENDED
            if not live.task.state.cancellable:
                return Answer.TOO_LATE
            live.cancel_asked = True
            if live.scope is not None:
                live.scope.cancel()
            if not live.task.cancel_requested:
                try:
                    await self.write(live, cancel_requested=True)
                except StoreUnavailable:  # shown all the same, and noted with the next change
                    self.registry.tell(live, attrs.evolve(live.task, cancel_requested=True))
                    raise
            return Answer.ACCEPTED
