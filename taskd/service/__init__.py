"""The one API behind every dialect: start, get, list, wait, cancel, update, log, recover, destroy.

Verbs on one task are ``gated``: the gate looks the task up and asks ``access`` before the verb is called, so
that no verb can forget to. A verb answers with the newest snapshot; what it says is durable when it says it.
"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import trio

from taskd import access, codec
from taskd.errors import (
    AlreadyEnded,
    BadParams,
    DoesNotExist,
    HasResidue,
    NoResidue,
    NotExternal,
    TaskInProgress,
    TooLate,
)
from taskd.metrics import Metrics
from taskd.model import JSON, Caller, Draft, Failure, LogLine, Speed, Task, now
from taskd.operations import Operations, find
from taskd.registry import Change, Feed, Kept, Live, Registry
from taskd.registry.feed import of
from taskd.runner import Answer, Runner, producer
from taskd.runner.producer import End
from taskd.service import bounds, destroying, making, notes
from taskd.service.deputy import rights_of
from taskd.service.foreign import check, label_of
from taskd.service.gate import gated, lines, listed, page
from taskd.service.health import Health
from taskd.service.report import Report, joined, reported
from taskd.service.tokens import OVER, Tokens
from taskd.service.turns import Turns
from taskd.service.unread import Unread
from taskd.states import State
from taskd.store import Query, Store

__all__ = [
    "OVER", "PROCESSOR", "Change", "End", "Feed", "Kept", "Live", "Query", "Report", "Service", "Unread",
    "gated", "of",
]  # fmt: skip

# What is in `processor` of a task that this daemon runs itself, for nobody is its producer.
# No user can have this name: a colon ends it in the list of users.
PROCESSOR = "taskd:"


@attrs.define(eq=False)
class Service:
    """See the module; ``tasks_per_owner``, ``max_text`` and ``max_result_bytes`` are limits of law L10, which may
    be set anew at any time. ``roots`` are the folders that who comes by a token may act beneath. ``tokens`` has
    the verbs about tokens, ``health`` tells how the daemon is.
    """

    store: Store
    registry: Registry
    runner: Runner
    operations: Operations
    tasks_per_owner: int = 10_000
    max_text: int = 4096
    max_result_bytes: int = 65536
    roots: tuple[str, ...] = ()
    host: str = attrs.field(factory=socket.gethostname)
    making: dict[str, trio.Event] = attrs.field(factory=dict, init=False)
    turns: Turns = attrs.field(factory=Turns, init=False)
    unread: Unread = attrs.field(factory=Unread, init=False)
    metrics: Metrics = attrs.field(factory=Metrics)
    health: Health = attrs.field(default=attrs.Factory(Health.of, takes_self=True))
    tokens: Tokens = attrs.field(
        default=attrs.Factory(lambda own: Tokens(own.store, own.max_text), takes_self=True)
    )

    def allow(self, caller: Caller, method: str) -> None:
        """The gate of every method. Raises PermissionDenied, and Unauthenticated, also of a token taken back."""
        self.tokens.check(caller)
        access.check_call(caller, method)

    async def newest(self, id: str) -> Task | None:
        """The newest snapshot, for whoever has asked the gate."""
        if (made := self.making.get(id)) is not None:
            await made.wait()
        return self.registry.newest(id) or await self.store.get(id)

    async def start(
        self,
        caller: Caller,
        operation: str,
        params: JSON,
        *,
        label: str | None = None,
        description: str = "",
        owner: str | None = None,
        request_id: str | None = None,
        deadline_s: float | None = None,
        destroy_on_finish: bool = False,
        dbg: str = "",
        parent: str | None = None,
        annotations: Mapping[str, str] | None = None,
        status: str | None = None,
    ) -> Task:
        """Make a task and start it; it is on disk when this returns.

        A ``request_id`` that the caller used before for that owner returns the task it made then, whatever else
        is asked.
        ``deadline_s`` is seconds from now until the task fails with DEADLINE_EXCEEDED unless it is committed.
        ``parent`` is the id of a task that this one is said to be a part of, ``annotations`` are its first notes,
        ``status`` what its producer says of it first.

        Raises:
            BadParams: the operation or its params are wrong; nothing was made.
            Refusal: the operation's own check says that it is impossible; nothing was made.
            TooManyTasks, PermissionDenied, StoreUnavailable: nothing was made.
        """
        kind = find(self.operations, operation)
        owner = owner or caller.user
        named = {"label": label, "description": description, "owner": owner, "request_id": request_id, "dbg": dbg}
        bounds.texts(self.max_text, {**named, "status": status})
        access.check_start(caller, owner, operation, kind.roles)
        if request_id is not None:
            # Two callers' ids are two ids: what one asked for is not to be had, or passed off, by the other's. No
            # user has a NUL in its name.
            request_id = f"{caller.user}\0{request_id}"
        if request_id is not None and (made := await self.store.requested(owner, request_id)) is not None:
            return await self.newest(made.id) or made
        if request_id is not None and destroy_on_finish:
            raise BadParams("params.destroy_on_finish", "what is forgotten has no request_id")
        structured = codec.structure(params, kind.params, "params.params")
        if deadline_s is not None and not deadline_s > 0:
            raise BadParams("params.deadline_s", "must be more than 0 seconds")
        noted = notes.changed({}, lambda _: annotations or {})
        with self.registry.quota.claimed(
            owner, self.tasks_per_owner, params, noted, status, *named.values()
        ) as claim:
            rights = await rights_of(caller, kind, structured, self.roots)
            await check(kind, structured, rights)
            task = Task(
                id=str(uuid.uuid4()),
                operation=operation,
                params=_object(codec.unstructure(structured)),
                owner=owner,
                processor=caller.user if kind.run is None else PROCESSOR,
                resident_on=self.host,
                created_at=now(),
                label=label_of(kind, structured) if label is None else label,
                description=description,
                debug_info=dbg,
                request_id=request_id,
                deadline_s=deadline_s,
                destroy_on_finish=destroy_on_finish,
                parent=parent,
                annotations=noted,
                status=status,
                rights=rights,
                **({} if kind.run is not None else producer.begun()),
            )
            return await making.make(self, task, claim)

    @gated("get")
    async def get(self, caller: Caller, task: Task) -> Task:
        """The newest snapshot."""
        return task

    async def numbered(self, caller: Caller, seq: int) -> Task:
        """The newest snapshot of the task with that ``seq``. Raises DoesNotExist."""
        async with self.turns.of(caller, "read"):
            found = await self.store.list(Query(newest_first=False, after=seq - 1, limit=1))
        task = await self.newest(found[0].id) if found and found[0].seq == seq else None
        return access.check(caller, "get", task, str(seq))

    async def list(self, caller: Caller, query: Query) -> Sequence[Task]:
        """A page of the tasks that the caller may see, newest snapshots."""
        return await page(self, caller, query)

    def sees(self, caller: Caller, task: Task) -> bool:
        """The caller may know of this task (law L11)."""
        return access.may(caller, "get", task)

    def count(self, caller: Caller) -> int:
        """How many tasks the caller's lists have, at the feed's revision."""
        return self.registry.feed.count(listed(caller))

    async def ids(self, caller: Caller, operation: str | None = None) -> Sequence[str]:
        """The ids of all tasks that the caller may see, oldest first."""
        async with self.turns.of(caller, "read"):
            return await self.store.ids(owner=listed(caller), operation=operation)

    @gated("wait")
    async def wait(
        self, caller: Caller, task: Task, timeout_s: float | None = None, after_revision: int | None = None
    ) -> Task:
        """The snapshot when the task ended, or changed after that revision, or the seconds are over.

        Raises:
            DoesNotExist: it was destroyed meanwhile, by force.
        """
        live = self.registry.get(task.id)
        if live is None:
            return task
        with trio.move_on_after(float("inf") if timeout_s is None else max(0.0, timeout_s)):
            if after_revision is None:
                await live.ended()
            while not live.task.state.ended and live.task.revision <= (after_revision or 0):
                await self._next(live)
        if live.forgotten:
            raise DoesNotExist("task", task.id)
        return live.task

    async def _next(self, live: Live) -> None:
        await live.changed()
        if live.forgotten:
            raise DoesNotExist("task", live.task.id)

    @gated("cancel")
    async def cancel(self, caller: Caller, task: Task, *, must: bool = False) -> Answer:
        """Ask the task to stop; returns at once, durably, with the truth.

        Raises:
            TooLate: ``must``, and the task is committed, or has ended otherwise than cancelled.
            StoreUnavailable: the task is being cancelled, but a crash would forget it.
        """
        live = self.registry.get(task.id)
        answer = Answer.ENDED if live is None else await self.runner.cancel(live)
        newest = task if live is None else live.task
        if must and answer is not Answer.ACCEPTED and newest.state is not State.CANCELLED:
            raise TooLate(task.id)
        return answer

    async def destroy(self, caller: Caller, id: str, *, force: bool = False) -> None:
        """Forget an ended task; with ``force`` also one that left residue.

        Raises:
            TaskInProgress: it has not ended, or its residue is being recovered right now.
            HasResidue: it left residue, and there is no ``force``.
        """
        await self._destroy_with_force(caller, id) if force else await self._destroy(caller, id)

    @gated("destroy")
    async def _destroy(self, caller: Caller, task: Task) -> None:
        if task.state.ended and task.journal:
            raise HasResidue(task.id)
        await destroying.forget(self, task)

    @gated("destroy with force")
    async def _destroy_with_force(self, caller: Caller, task: Task) -> None:
        live = self.registry.get(task.id)
        if live is not None and task.state is State.COMMITTED and task.residue:
            await destroying.give_up(self, live)
        else:
            await destroying.forget(self, task)

    @gated("destroy")
    async def destroy_when_ended(self, caller: Caller, task: Task) -> None:
        """Forget the task, as soon as it has ended where it has not; durable when this returns, whatever comes.

        Raises:
            HasResidue: it has ended and left residue. Where it will, it is kept until that is recovered.
        """
        live = self.registry.get(task.id)
        if live is not None and not task.state.ended:
            async with live.lock:
                if not live.task.state.ended:
                    if not live.task.destroy_on_finish:
                        await self.runner.write(live, destroy_on_finish=True)
                    return
        await self._destroy(caller, task.id)

    @gated("annotate")
    async def annotate(self, caller: Caller, task: Task, change: notes.Change) -> None:
        """Replace the notes on a task. Raises AlreadyEnded, TooManyTasks, and what ``notes.changed`` raises."""
        live = self.registry.get(task.id)
        if live is None:
            raise AlreadyEnded(task.id)
        async with live.lock:
            if live.forgotten:
                raise DoesNotExist("task", task.id)
            if live.task.state.ended:
                raise AlreadyEnded(task.id)
            new = notes.changed(live.task.annotations, change)
            if new != live.task.annotations:
                self.registry.quota.grow(live, attrs.evolve(live.task, annotations=new), self.tasks_per_owner)
                await self.runner.write(live, annotations=new)

    @gated("update")
    async def update(
        self,
        caller: Caller,
        task: Task,
        *,
        progress: Report | None = None,
        label: str | None = None,
        status: str | None = None,
        speeds: Sequence[Speed] | None = None,
        draft: Callable[[Draft], Draft] | None = None,
        log: Sequence[str] = (),
        more_speeds: Sequence[Speed] = (),
        annotations: notes.Change | None = None,
        end: End | Callable[[Draft], End] | None = None,
    ) -> Task:
        """The producer of an external task reports; an empty report is a sign of life.

        ``draft`` makes of what was said about the outcome what is to be said now. ``more_speeds`` are added to
        those that were said before (``report.joined``). With ``end`` the task ends in the same change; it may
        be made of what was said about the outcome. For ``annotations`` see ``annotate``.

        Raises:
            NotExternal, AlreadyEnded: it is no task to report on.
            TooManyTasks: with what it says its owner's tasks would hold too much. Not where it ends.
        """
        live = self._reported(task)
        titles = {f"speeds[{n}].title": each.title for n, each in enumerate((*(speeds or ()), *more_speeds))}
        unit = {"progress.unit": progress.unit if progress else None}
        bounds.texts(self.max_text, {"label": label, "status": status, **titles, **unit})
        if isinstance(end, End):
            bounds.result(self.max_result_bytes, "result", end.result)
            bounds.result(self.max_result_bytes, "error", codec.unstructure(end.error))
        texts = {"label": label, "status": status}
        changes: dict[str, Any] = {name: text for name, text in texts.items() if text is not None}
        async with live.lock:
            if live.task.state.ended:  # the first end stays; and what it took of its owner's quota is given back
                raise AlreadyEnded(task.id)
            if speeds is not None or more_speeds:
                said = live.task.speeds if speeds is None else ()
                changes["speeds"] = joined(said, (*(speeds or ()), *more_speeds), self.max_result_bytes)
            if progress is not None:
                changes["progress"] = reported(live.progress, progress)
            if annotations is not None:
                changes["annotations"] = notes.changed(live.task.annotations, annotations)
            if draft is not None:
                changes["draft"] = draft(live.task.draft)
                bounds.result(self.max_result_bytes, "draft", codec.unstructure(changes["draft"]))
            said_last = end(changes.get("draft", live.task.draft)) if callable(end) else end
            if said_last is None:
                self.registry.quota.grow(live, attrs.evolve(live.task, **changes), self.tasks_per_owner)
            await producer.report(self.runner, live, changes, log=log, end=said_last)
            return live.task

    @gated("complete")
    async def complete(self, caller: Caller, task: Task, result: JSON = None) -> Task:
        """The producer of an external task is done."""
        return await self.update(caller, task.id, end=End(State.COMPLETED, result=result))

    @gated("fail")
    async def fail(self, caller: Caller, task: Task, error: Failure) -> Task:
        """The producer of an external task has failed; after a cancel this is its obedience."""
        return await self.update(caller, task.id, end=End(State.FAILED, error=error))

    @gated("fail")
    async def call_off(self, caller: Caller, task: Task) -> Task:
        """The producer of an external task has stopped, asked or not, and left nothing: it is cancelled."""
        return await self.update(caller, task.id, end=End(State.CANCELLED))

    def _reported(self, task: Task) -> Live:
        kind = self.operations.get(task.operation)
        if kind is None or kind.run is not None:
            raise NotExternal(task.id)
        live = self.registry.get(task.id)
        if live is None:
            raise AlreadyEnded(task.id)
        return live

    @gated("log")
    async def log(self, caller: Caller, task: Task, start: int = 0, limit: int = 1000) -> Sequence[LogLine]:
        """At most ``limit`` lines of the task's log from number ``start`` on."""
        return await lines(self, caller, task.id, start, limit)

    @gated("recover")
    async def recover(self, caller: Caller, task: Task) -> Task:
        """Try a failed undo, or the finish of a committed task, again, and say what is left.

        Raises:
            NoResidue: the task owes nothing.
            TaskInProgress: its undo is being tried right now.
        """
        if not task.residue:
            raise NoResidue(task.id)
        if (live := self.registry.get(task.id)) is not None:
            if task.state is not State.COMMITTED:
                raise TaskInProgress(task.id)
            live.wake()
            await self._next(live)
            return live.task
        live = Live.again(task)
        await self.runner.recover(live)
        return live.task


def _object(value: JSON) -> dict[str, JSON]:
    assert isinstance(value, dict)
    return value
