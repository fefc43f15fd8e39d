"""Programs of all native verbs, with stops and crashes between them and in them, against the law (``tests.law``).

Hypothesis makes a program up, a list of steps (``tests.programs``), and makes it shorter where it goes wrong. It
runs over the real service, runner and store. After each step everything comes to rest, and then all that can be
seen must be what the law says: records, logs, lists, what is made in the world, what those who watch were told,
and who waits still.

A ``Cut`` ends the daemon before the n-th step that trio takes from there, perhaps in the middle of a call, which
is then answered or not. What was answered holds; each task that was in motion is as it was before or after, and
recovered from there. A crash leaves what its store has at that moment: a photograph of the rows, or a copy of the
database as another process would read it. What a power cut leaves is another proof's.

Not covered: what goes by time (deadlines, heartbeats), and a store that cannot write.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import attrs
import trio
from hypothesis import HealthCheck, Phase, given, seed, settings
from trio.testing import MockClock, wait_all_tasks_blocked

from taskd import codec
from taskd.dialects import table
from taskd.errors import DoesNotExist, TaskdError
from taskd.model import JSON, Caller, Task, Undo
from taskd.operations import Handle, Operation, external
from taskd.service import Service, gate, watching
from taskd.service.watching import Kind, Notice
from taskd.states import State
from taskd.store import Store
from taskd.store.memory import MemoryStore
from taskd.store.schema import connect
from taskd.store.sqlite import SqliteStore
from tests.bench import ROOT, running, user
from tests.law import PLACES, Fact, Law, No, made
from tests.programs import PROGRAMS, Call, Cut, Happens, Prune, Step
from tests.proof import RANDOM, Outcome, Proof, Sample, Verdict
from tests.test_watching import Fold

AGENT: Final = Caller(1003, 1003, pid=1, user="agent", roles=frozenset({"service"}))
CALLERS: Final = {each.user: each for each in (ROOT, user("ann", 1001), user("bob", 1002), AGENT)}
METHODS: Final = table()

# Of trio's clock, a thousand pass in one of ours: what waits for time waits little, and threads are not outrun.
RATE: Final = 1000.0

# Of trio's seconds: in so many everything has come to rest.
PATIENCE: Final = 5.0 * RATE


# The world, and the operations that work in it.


@attrs.frozen
class TripParams:
    """Nothing to be said."""


@attrs.define(eq=False)
class World:
    """What is outside of the daemon: what tasks have made and published, and how their work is to end."""

    made: set[str] = attrs.field(factory=set)
    published: set[str] = attrs.field(factory=set)
    stuck: set[str] = attrs.field(factory=set)
    told: dict[str, str] = attrs.field(factory=dict)
    _news: dict[str, trio.Event] = attrs.field(factory=dict)

    def photograph(self) -> World:
        return World(set(self.made), set(self.published), set(self.stuck))

    def tell(self, id: str, how: str) -> None:
        self.told[id] = how
        self._news.setdefault(id, trio.Event()).set()

    def operation(self, name: str, attempt: Callable[[str], int]) -> Operation:
        """``attempt`` tells the how-manieth it is of a task: what is logged in one is not taken for another's."""

        async def run(params: TripParams, handle: Handle) -> JSON:
            await handle.journal("unmake", id=handle.id)
            self.made.add(handle.id)
            handle.progress(1, 2, "halves")
            await handle.log(made(attempt(handle.id)))
            await self._news.setdefault(handle.id, trio.Event()).wait()
            if self.told[handle.id] == "give_out":
                raise OSError(28, "No space left on device")
            await handle.commit({"done": True}, [Undo("publish", {"id": handle.id})])
            return None

        async def unmake(id: str) -> None:
            self._check(id)
            self.made.discard(id)

        async def publish(id: str) -> None:
            self._check(id)
            self.made.discard(id)
            self.published.add(id)

        verbs = {"unmake": unmake, "publish": publish}
        return Operation(name, "", TripParams, run, verbs=verbs, restartable=name == "errand")

    def _check(self, id: str) -> None:
        if id in self.stuck:
            raise OSError(16, "Device or resource busy")


class Durable:
    """A store that outlives its daemon, as far as a daemon that ends at any moment leaves it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.memory: MemoryStore | None = MemoryStore() if kind == "memory" else None
        self.folder, self.n = folder, 0
        self.written = 0  # by a thread of the store's own

    def wrote(self, seconds: float, writes: int, *, failed: bool) -> None:
        self.written += writes

    @property
    def path(self) -> Path:
        return self.folder / f"{self.n}.sqlite"

    def photograph(self) -> None:
        """From here on this is what there is, whatever the daemon that still runs writes."""
        if self.memory is not None:
            self.memory = self.memory.photograph()
            return
        source = connect(self.path, readonly=True)
        self.n += 1
        target = sqlite3.connect(self.path)
        source.backup(target)
        source.close()
        target.close()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        if self.memory is not None:
            yield self.memory
            return
        store = await SqliteStore.open(self.path, self.wrote)
        try:
            yield store
        finally:
            await store.close()


@attrs.define(eq=False)
class Waiter:
    """Somebody who waits for the end of a task, or for its change ``after`` a revision."""

    id: str
    after: int | None
    answer: JSON = None


@attrs.define(eq=False)
class Cutter(trio.abc.Instrument):
    """Calls ``act`` before the n-th step from now."""

    n: int
    act: Callable[[], None]

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.n -= 1
        if self.n == 0:
            self.act()


@attrs.define(eq=False)
class Run:
    """A program as it is run. ``names`` are the ids of what it calls by name, ``shown`` is what was seen of each
    task last, ``ends`` how they ended; ``folds`` what those know who watch all along, ``gone`` what they were told
    to be.
    """

    kind: str
    folder: Path
    law: Law = attrs.field(factory=Law)
    world: World = attrs.field(factory=World)
    names: dict[str, str] = attrs.field(factory=dict)
    shown: dict[str, Task] = attrs.field(factory=dict)
    folds: dict[str, Fold] = attrs.field(factory=lambda: {name: Fold() for name in CALLERS})
    waiters: list[Waiter] = attrs.field(factory=list)
    ends: dict[str, State] = attrs.field(factory=dict)
    gone: set[str] = attrs.field(factory=set)
    crashed: bool = False
    cuts: int = 0
    durable: Durable = attrs.field(init=False)
    service: Service = attrs.field(init=False)
    nursery: trio.Nursery = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.durable = Durable(self.kind, self.folder)

    async def run(self, program: Sequence[Step]) -> None:
        steps = iter(program)
        hopes: dict[str, Sequence[Fact | None]] | None = None
        going = True
        while going:
            going = False
            async with self.life():
                if hopes is not None:
                    await self.at_rest(partial(self.reconciled, hopes))
                await self.at_rest(self.compared)
                for step in steps:
                    if isinstance(step, Cut):
                        hopes = await self.cut(step)
                        going = True
                        break
                    await self.step(step)
                    await self.at_rest(self.compared)

    @asynccontextmanager
    async def life(self) -> AsyncIterator[None]:
        """A daemon from its start to its end, with who watches it."""
        self.world, self.crashed = self.world.photograph(), False
        operations = {name: self.world.operation(name, self.attempt) for name in ("errand", "chore")}
        operations["external"] = external.OPERATION
        workspace = str(self.folder / "workspace")
        self.waiters = []
        for fold in self.folds.values():
            # Of what had ended, whoever comes back is not told that it is gone.
            fold.tasks = {id: task for id, task in fold.tasks.items() if not task.state.ended}
            fold.synced = trio.Event()
        async with self.durable.open() as store:
            async with running(store, operations, workspace, running_tasks=PLACES) as self.service:
                async with trio.open_nursery() as self.nursery:
                    for name, fold in self.folds.items():
                        self.nursery.start_soon(self.watch, CALLERS[name], fold)
                    yield
                    self.nursery.cancel_scope.cancel()

    def attempt(self, id: str) -> int:
        live = self.service.registry.get(id)
        assert live is not None
        return live.task.attempt

    async def watch(self, who: Caller, fold: Fold) -> None:
        watch = await watching.begin(self.service, who, since=fold.since, log=True, log_from=fold.log_from)

        async def tell(notices: Sequence[Notice]) -> None:
            if self.crashed:
                return
            for notice in notices:
                fold.take(notice)
                if notice.kind is Kind.DESTROYED and notice.task is not None:
                    self.gone.add(notice.task.id)
            await trio.lowlevel.checkpoint()

        await watch.run(tell)

    # Steps.

    def id(self, step: Call | Happens) -> str:
        return self.names.get(step.name, f"no task is called {step.name}")

    async def step(self, step: Step) -> None:
        """Do it, and hold the answer against the law's."""
        if isinstance(step, Prune):
            ended = sorted(self.shown.values(), key=lambda task: (task.finished_at or 0.0, task.seq))
            self.law.prune([task.id for task in ended], step.keep)
            await self.service.store.prune(before=0.0, keep=step.keep, forgotten=self.service.registry.forget)
        elif isinstance(step, Happens):
            self.happen(step, self.law)
        elif isinstance(step, Call):
            before, law = self.law, self.law.copy()
            hope = self.hope(step, law)
            answer = await self.answer(step)
            self.answered(step, before, law, hope, answer)

    def happen(self, step: Happens, law: Law) -> None:
        id = self.id(step)
        fact = law.facts.get(id)
        if fact is None or fact.external or (step.what in ("go", "give_out") and not fact.works):
            return
        getattr(law, step.what)(id)
        match step.what:
            case "stick":
                self.world.stuck.add(id)
            case "loosen":
                self.world.stuck.discard(id)
            case _:
                self.world.tell(id, step.what)

    def hope(self, step: Call, law: Law) -> object:
        """What the law answers: a kind of error, or what the verb gives; ``law`` is what it makes of itself."""
        who, args = CALLERS[step.who], dict(step.args)
        try:
            match step.verb:
                case "start":
                    return law.start(who, "new", **args)
                case "list":
                    return None  # looked at in ``answered``
                case "wait" | "log":
                    return getattr(law, step.verb)(who, self.id(step))
                case _:
                    return getattr(law, step.verb)(who, self.id(step), **args)
        except No as no:
            return no.kind

    async def answer(self, step: Call) -> object:
        who, id, args = CALLERS[step.who], self.id(step), dict(step.args)
        service = self.service
        try:
            match step.verb:
                case "start":
                    return await self.native(who, "start", params={}, **args)
                case "list":
                    return await self.listed(who, args)
                case "annotate":
                    await service.annotate(who, id, lambda _: args["notes"])
                    return None
                case "call_off" | "destroy_when_ended":
                    await getattr(service, step.verb)(who, id)
                    return None
                case "wait":
                    after = self.shown[id].revision if args.get("changed") and id in self.shown else None
                    await self.native(who, "get", id=id)
                    waiter = Waiter(id, after)
                    self.waiters.append(waiter)
                    self.nursery.start_soon(self.wait, who, waiter)
                    return None
                case "update":
                    done = args.pop("done", None)
                    progress = {} if done is None else {"progress": {"done": done, "total": 10}}
                    return await self.native(who, "update", id=id, **progress, **args)
                case "fail":
                    return await self.native(who, "fail", id=id, error={"code": args["code"], "message": "no"})
                case "log":
                    start, limit = args.get("start", 0), args.get("limit", 1000)
                    return await self.native(who, "log", id=id, **{"from": start, "limit": limit})
                case verb:
                    return await self.native(who, verb, id=id, **args)
        except TaskdError as error:
            return type(error)

    async def native(self, who: Caller, verb: str, **params: JSON) -> Any:
        """As it comes over the wire and goes back."""
        reply = await METHODS[f"Task.{verb}"](self.service, who, codec.loads(codec.dumps(params)))
        return codec.loads(codec.dumps(reply))

    async def wait(self, who: Caller, waiter: Waiter) -> None:
        try:
            waiter.answer = await self.native(who, "wait", id=waiter.id, after_revision=waiter.after)
        except DoesNotExist:
            waiter.answer = DoesNotExist

    async def listed(self, who: Caller, args: dict[str, Any]) -> list[list[str]]:
        """The ids on all pages."""
        if args.pop("since", False):
            args["since"] = self.middle
        pages: list[list[str]] = []
        cursor = None
        while cursor is not None or not pages:
            page = await self.native(who, "list", **args, cursor=cursor)
            pages.append([record["id"] for record in page["tasks"]])
            cursor = page["next_cursor"]
        return pages

    @property
    def middle(self) -> int:
        """A revision in the middle of all that was seen."""
        revisions = sorted(task.revision for task in self.shown.values())
        return revisions[len(revisions) // 2] if revisions else 0

    def answered(self, step: Call, before: Law, law: Law, hope: object, answer: Any) -> None:
        """The answer is the law's; ``law`` counts from here on."""
        said = f"{step} was answered {answer}, not {hope}"
        self.law = law
        if step.verb == "list":
            self.check_list(step, answer)
        elif isinstance(hope, type):
            self.law = before
            assert answer is hope, said
        elif step.verb == "start":
            assert isinstance(answer, dict), said
            id = answer["id"]
            assert id not in before.facts if hope == "new" else id == hope, said
            if hope == "new" and (fact := law.facts.pop("new", None)) is not None:
                law.facts[id] = fact
            self.names[step.name] = id
        elif step.verb == "log":
            lines = law.facts[self.id(step)].log
            start, limit = step.args.get("start", 0), step.args.get("limit", 1000)
            assert isinstance(answer, dict), said
            found = [(line["n"], line["line"]) for line in answer["lines"]]
            assert found == [*enumerate(lines)][start : start + limit], said
        else:
            assert answer is None or isinstance(answer, dict), said
            if isinstance(answer, dict) and (fact := law.facts.get(answer["id"])) is not None:
                assert answer["state"] == fact.state, said

    def check_list(self, step: Call, pages: list[list[str]]) -> None:
        args = dict(step.args)
        since, order, size = args.pop("since", False), args.pop("order", "newest"), args.pop("page_size", 100)
        newer = [id for id, task in self.shown.items() if task.revision > self.middle] if since else None
        wanted = self.law.listed(CALLERS[step.who], newer=newer, **args)
        if order == "newest":
            wanted.reverse()
        assert [id for page in pages for id in page] == wanted, step
        assert all(len(page) == size for page in pages[:-1]), (step, pages)
        assert len(pages[-1]) <= size, (step, pages)

    # Stops and crashes.

    async def cut(self, cut: Cut) -> dict[str, Sequence[Fact | None]]:
        """End this life; what each task may be in the next."""
        self.cuts += 1
        before, law = self.law, self.law.copy()
        hope: object = None
        answers: list[object] = []
        known: list[bool] = []
        if isinstance(cut.step, Call):
            hope = self.hope(cut.step, law)

        def fall() -> None:
            known.append(bool(answers))
            if cut.crash:
                self.durable.photograph()
                self.world, self.crashed = self.world.photograph(), True
            scope.cancel()

        with trio.CancelScope() as scope:
            cutter = Cutter(cut.after, fall)
            trio.lowlevel.add_instrument(cutter)
            try:
                if isinstance(cut.step, Happens):
                    self.happen(cut.step, law)
                elif isinstance(cut.step, Call):
                    answers.append(await self.answer(cut.step))
                await wait_all_tasks_blocked()
                await trio.sleep(2)
                await wait_all_tasks_blocked()
            finally:
                trio.lowlevel.remove_instrument(cutter)
        if not known:
            fall()
        if known[0] and isinstance(cut.step, Call):
            self.answered(cut.step, before, law, hope, answers[0])
            law = self.law
        self.law, law.published = law, set(before.published)
        answered = self.id(cut.step) if known[0] and isinstance(cut.step, Call) else None
        return self.hopes(before, law, answered, moving=cut.step is not None)

    def hopes(
        self, before: Law, after: Law, answered: str | None, *, moving: bool
    ) -> dict[str, Sequence[Fact | None]]:
        """By id, what may be found of a task: it is recovered from before the step, or from after, or from where
        it stood in between. The one whose step was ``answered`` is not as before.
        """
        found: dict[str, Sequence[Fact | None]] = {}
        for id in {**before.facts, **after.facts}:
            old, new = before.facts.get(id), after.facts.get(id)
            if old is not None:
                old = attrs.evolve(old, stuck=id in self.world.stuck)
            earlier = [] if id == answered and old != new else [*_recovered(old, moving=moving)]
            found[id] = [*earlier, *_recovered(new, moving=moving)]
        return found

    # At rest.

    async def at_rest(self, check: Callable[[], AsyncIterator[str]]) -> None:
        """Wait until nothing is wrong, and nothing has moved while that was looked at; what stays wrong is. When
        its time is up it is looked at once more: if we stood still meanwhile, what waited for a time has its turn
        only now.
        """
        feed, give_up, last = self.service.registry.feed, trio.current_time() + PATIENCE, False
        while True:
            await self.rest()
            before = feed.revision
            wrong = [each async for each in check()]
            if not wrong and feed.revision == before:
                return
            assert not last, "\n".join(wrong or ["it does not come to rest"])
            last = trio.current_time() >= give_up
            await trio.sleep(0.5)

    async def rest(self) -> None:
        """Nothing moves any more but what waits for a time: what the store was asked for is done, and nothing
        came of it. A write whose end is not shown, such as a journal's, may be followed by another.
        """
        feed, ours = self.service.registry.feed, 0 if self.durable.memory else 1
        before = (-1, -1)
        while before != (feed.revision, self.durable.written - ours):
            before = feed.revision, self.durable.written
            await wait_all_tasks_blocked()
            await self.service.store.reserve(0)
            await wait_all_tasks_blocked()

    async def newest(self) -> dict[str, Task]:
        """All tasks, and that what is shown of them only goes on."""
        found: dict[str, Task] = {}
        for id in await self.service.ids(ROOT):
            task = await self.service.newest(id)
            if task is not None:
                found[id] = task
        for id, task in found.items():
            known = self.shown.get(id)
            if known is not None and attrs.evolve(task, revision=0) != attrs.evolve(known, revision=0):
                assert task.revision > known.revision, f"{task} after {known}"
            elif known is not None:
                assert task.revision >= known.revision, f"{task} after {known}"
            assert self.ends.get(id) in (None, task.state), f"{task} has ended as {self.ends[id]}"
        assert not self.gone & found.keys(), f"told to be gone, and there: {self.gone & found.keys()}"
        revisions = [task.revision for task in found.values()]
        assert len(set(revisions)) == len(revisions), f"two changes have one revision: {found}"
        self.shown = found
        self.ends.update((id, task.state) for id, task in found.items() if task.state.ended)
        return found

    async def reconciled(self, hopes: Mapping[str, Sequence[Fact | None]]) -> AsyncIterator[str]:
        """After a cut each task is one of those that it may be; the law takes that up."""
        found = await self.newest()
        facts: dict[str, Fact] = {}
        strange = [id for id in found if id not in hopes]
        for id, options in hopes.items():
            task = found.get(strange[0] if id == "new" and strange else id)
            lines = await self.lines(task)
            choice = [option for option in options if _is(option, task, lines) or _has_begun(option, task, lines)]
            if not choice:
                yield f"{task} {lines}, which is none of {options}"
            elif choice[0] is not None and task is not None:
                facts[task.id] = choice[0]
        if strange[1:] or (strange and "new" not in hopes):
            yield f"nobody made {strange}"
        self.law.facts = {id: facts[id] for id in found if id in facts}
        completed = [id for id, fact in facts.items() if fact.state is State.COMPLETED and not fact.external]
        gone = [id for id in hopes if id not in found and id in self.world.published]
        self.law.published.update(completed, gone)

    async def lines(self, task: Task | None) -> Sequence[str]:
        found = () if task is None else await gate.lines(self.service, ROOT, task.id, 0, 1000)
        return [line.line for line in found]

    async def compared(self) -> AsyncIterator[str]:
        """What is not as the law says."""
        found = await self.newest()
        while begun := [id for id in self.law.next() if id in found and found[id].state is not State.QUEUED]:
            self.law.put(begun[0], self.law.facts[begun[0]].begun())
        if waiting := self.law.next():
            yield f"there is a place, and none of {waiting} has it"
        if [*found] != [*self.law.facts]:
            yield f"there are {[*found]}, not {[*self.law.facts]}"
            return
        for id, fact in self.law.facts.items():
            task = found[id]
            if not _is(fact, task, lines := await self.lines(task)):
                yield f"{task} {lines} is not {fact}"
            if (self.service.registry.get(id) is None) is not task.state.ended:
                yield f"{task} is alive or not"
            if (task.progress.fraction == 1.0) is not (task.state is State.COMPLETED):
                yield f"{task} shows {task.progress}"
            if (task.finished_at is not None) is not task.state.ended:
                yield f"{task} ended at {task.finished_at}"
        for each in (self.world_as_told(), self.waiters_answered(found)):
            for wrong in each:
                yield wrong
        for name, fold in self.folds.items():
            for wrong in self.told(CALLERS[name], fold, found):
                yield wrong

    def world_as_told(self) -> Iterator[str]:
        facts, world = self.law.facts.items(), self.world
        made = {id for id, fact in facts if fact.works}
        owed = {id for id, fact in facts if fact.owes} | self.law.left
        if not made <= world.made <= made | owed:
            yield f"in the world is {world.made}, not {made} and some of {owed}"
        if world.published != self.law.published:
            yield f"published is {world.published}, not {self.law.published}"

    def waiters_answered(self, found: Mapping[str, Task]) -> Iterator[str]:
        for waiter in self.waiters:
            task, answer = found.get(waiter.id), waiter.answer
            over = task is None or task.state.ended
            due = over or (waiter.after is not None and task is not None and task.revision > waiter.after)
            if due is not (answer is not None):
                yield f"{waiter} waits for {task}"
            if isinstance(answer, dict) and not (
                answer["finished_at"] is not None or answer["revision"] > (waiter.after or answer["revision"])
            ):
                yield f"{waiter} was answered without a reason"

    def told(self, who: Caller, fold: Fold, found: Mapping[str, Task]) -> Iterator[str]:
        if not fold.synced.is_set():
            yield f"{who} was told nothing yet"
        seen = {id: task for id, task in found.items() if who.admin or who.user in (task.owner, task.processor)}
        for id, task in seen.items():
            known = fold.tasks.get(id)
            if (known is None and not task.state.ended) or (known is not None and known != task):
                yield f"{who} was told of {known}, and not of {task}"
            if known is not None and fold.lines(id) != [*self.law.facts[id].log]:
                yield f"{who} was told of {id} {fold.lines(id)}, and not {self.law.facts[id].log}"
        if strange := [id for id in fold.tasks if id not in seen]:
            yield f"{who} still knows of {strange}"


def _recovered(fact: Fact | None, *, moving: bool) -> Iterator[Fact | None]:
    """What a start makes of it; where all was ``moving``, it may have begun, and got more or less far."""
    if fact is None:
        yield None
        return
    yield fact.recovered()
    if moving and (fact.state is State.QUEUED or fact.works):
        begun = fact.begun() if fact.state is State.QUEUED else fact
        for log in (begun.log, begun.log[:-1]):
            for stuck in (fact.stuck, False):
                again = attrs.evolve(begun, log=log, stuck=stuck).recovered()
                yield None if again is None else attrs.evolve(again, stuck=fact.stuck)


def _has_begun(fact: Fact | None, task: Task | None, log: Sequence[str]) -> bool:
    """It was queued, and has a place by now."""
    return fact is not None and fact.state is State.QUEUED and _is(fact.begun(), task, log)


def _is(fact: Fact | None, task: Task | None, log: Sequence[str]) -> bool:
    """The task is what the fact says."""
    if fact is None or task is None:
        return fact is None and task is None
    reports = fact.external and fact.state is not State.COMPLETED
    says = (
        fact.operation, fact.owner, fact.processor, fact.state, fact.label, fact.status, fact.result, fact.error,
        fact.cancel, fact.attempt, fact.owes, fact.forget, dict(fact.notes), fact.state.cancellable,
        [*fact.log], fact.done if reports else None,
    )  # fmt: skip
    is_so = (
        task.operation, task.owner, task.processor, task.state, task.label, task.status, task.result,
        task.error.code if task.error else None, task.cancel_requested, task.attempt, bool(task.residue),
        task.destroy_on_finish, dict(task.annotations), task.cancellable, [*log],
        task.progress.done if reports else None,
    )  # fmt: skip
    return says == is_so


def execute(kind: str, program: Sequence[Step]) -> Run:
    """Run a program over a store of this ``kind``, "memory" or "sqlite". Raises AssertionError."""
    with TemporaryDirectory(prefix="taskd-model-") as folder:
        run = Run(kind, Path(folder))
        try:
            trio.run(run.run, program, clock=MockClock(rate=RATE))
        except BaseExceptionGroup as group:
            wrong: BaseException = group
            while isinstance(wrong, BaseExceptionGroup) and len(wrong.exceptions) == 1:
                wrong = wrong.exceptions[0]
            raise wrong from None
        return run


# The table.


def outcomes(kind: str, *, examples: int, number: int) -> Iterator[Outcome]:
    """Of so many programs, made up from ``number``: how each task ended in them, or what is wrong with the
    shortest that goes wrong.
    """
    runs: list[Run] = []
    # That what is stuck cannot be undone is no news here, where nobody else listens.
    logging.getLogger("taskd").addHandler(logging.NullHandler())

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[*HealthCheck],
    )
    @given(PROGRAMS)
    def programs(program: Sequence[Step]) -> None:
        runs.append(execute(kind, program))

    try:
        programs()
    except AssertionError as error:
        yield Outcome(Verdict.WRONG, what="\n".join([str(error), *getattr(error, "__notes__", ())]))
        return
    for run in runs:
        for n, end in enumerate(run.ends.values()):
            verdict = Verdict.WHOLE if end is State.COMPLETED else Verdict.AS_BEFORE
            yield Outcome(verdict, faults=run.cuts if n == 0 else 0)


# So many times so many programs, over each of the stores.
ROUNDS: Final = 20
EXAMPLES: Final = {"memory": 100, "sqlite": 50}


def _all(kind: str, sample: Sample) -> Iterator[Outcome]:
    for n in range(1, ROUNDS + 1):
        if sample.takes(n):
            yield from outcomes(kind, examples=EXAMPLES[kind], number=n + ROUNDS * sample.seed)


PROOFS: Final = tuple(
    Proof(f"all verbs against the law, {kind}", "stops and crashes in any call", partial(_all, kind), RANDOM)
    for kind in EXAMPLES
)
