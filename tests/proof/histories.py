"""Several clients at once, each on a connection of its own, do what they like with the same few tasks.

A real daemon serves them in this process, on a real socket, over either store. What each does is made up from a
number, with pauses of some of trio's steps between calls, some of which are under way at once on one connection;
so a number always makes the same calls. In which order trio runs those that can run, it shuffles itself, another
time another way, and the clients' and the daemon's steps among them: what is found may take some runs to be found
again, and what is covered grows with the runs.

Checked is: each external task's calls could have happened one by one (``tests.history``), so it has one end,
decided once, and nothing of it is seen when it was destroyed; nobody is told of an older state than was told
before; who waits is answered with an end, or with a change; a watch tells changes with growing revisions, no
change of what is gone, and in the end the truth. A task that does its work itself is cancelled if its cancel was
accepted, else completed, and whole or never made accordingly. Requests made at once by all make one task.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Final

import attrs
import trio

from taskd import client, server
from taskd.client import Notification, Record, Refused, on_trio, verbs
from taskd.config import Config
from taskd.model import JSON, Undo
from taskd.operations import Handle, Operation, external
from taskd.states import State
from taskd.store import Store
from taskd.store.memory import MemoryStore
from taskd.store.sqlite import SqliteStore
from tests.history import Asked, ends, in_order, older
from tests.proof import RANDOM, Outcome, Proof, Sample, Verdict

CLIENTS: Final = 4

# Calls of each client in a run.
CALLS: Final = 40

# Seconds: a bound that no right run meets.
PATIENCE: Final = 60

NAMES: Final = "abc"

VERBS: Final = (
    "start", "get", "get", "wait", "changed", "cancel", "update", "update", "complete", "fail", "destroy", "list",
    "trip", "cancel trip",
)  # fmt: skip


@attrs.frozen
class TripParams:
    """Nothing to be said."""


@attrs.frozen
class Planned:
    """``verb`` on the newest task of that ``name``, or an older one; after some steps, and perhaps together with
    what comes next.
    """

    verb: str
    name: str
    age: int = 0
    pause: int = 0
    patient: bool = False


@attrs.define(eq=False)
class Trips:
    """A work that goes there and back where it is undone, in a world of names."""

    made: set[str] = attrs.field(factory=set)
    published: set[str] = attrs.field(factory=set)

    @property
    def operation(self) -> Operation:
        async def run(params: TripParams, handle: Handle) -> JSON:
            await handle.journal("unmake", id=handle.id)
            self.made.add(handle.id)
            for n in range(20):
                handle.progress(n, 20, "steps")
                await trio.lowlevel.checkpoint()
            await handle.commit({"there": True}, [Undo("publish", {"id": handle.id})])
            return None

        async def unmake(id: str) -> None:
            await trio.lowlevel.checkpoint()
            self.made.discard(id)

        async def publish(id: str) -> None:
            await trio.lowlevel.checkpoint()
            self.made.discard(id)
            self.published.add(id)

        return Operation("trip", "", TripParams, run, verbs={"unmake": unmake, "publish": publish})


@attrs.define(eq=False)
class Run:
    """What happens in one run, told by all clients. ``told`` is, by client, what its watch was told."""

    random: Random
    trips: Trips = attrs.field(factory=Trips)
    moment: int = 0
    names: dict[str, list[str]] = attrs.field(factory=lambda: defaultdict(list))
    asked: dict[str, list[Asked]] = attrs.field(factory=lambda: defaultdict(list))
    accepted: set[str] = attrs.field(factory=set)
    cancels: dict[str, list[Asked]] = attrs.field(factory=lambda: defaultdict(list))
    lists: list[tuple[int, int, Sequence[str]]] = attrs.field(factory=list)
    told: list[list[Mapping[str, Any]]] = attrs.field(factory=list)
    wrong: list[str] = attrs.field(factory=list)

    def now(self) -> int:
        self.moment += 1
        return self.moment

    async def run(self, path: str) -> None:
        with trio.fail_after(PATIENCE):
            async with AsyncExitStack() as connections, trio.open_nursery() as nursery:
                plans = [self.plan() for _ in range(CLIENTS)]
                async with trio.open_nursery() as waiting:
                    async with trio.open_nursery() as calling:
                        for plan in plans:
                            daemon = await connections.enter_async_context(client.open(path))
                            await daemon.call("Task.watch")
                            self.told.append([])
                            nursery.start_soon(self.watch, daemon, self.told[-1])
                            calling.start_soon(self.converse, daemon, plan, waiting)
                    await self.close(path)
                await self.check(path)
                nursery.cancel_scope.cancel()

    def plan(self) -> list[Planned]:
        pick = self.random
        first = [Planned("start", name) for name in pick.sample(NAMES, len(NAMES))]
        return first + [
            Planned(
                pick.choice(VERBS),
                pick.choice(NAMES),
                pick.choice((0, 0, 0, 0, 1)),
                pick.choice((0, 0, 1, 3, 10)),
                pick.random() < 0.6,
            )
            for _ in range(CALLS)
        ]

    async def watch(self, daemon: on_trio.Daemon, told: list[Mapping[str, Any]]) -> None:
        while True:
            notification: Notification = await daemon.notification()
            assert isinstance(notification.params, dict)
            told.append(notification.params)

    async def converse(self, daemon: on_trio.Daemon, plan: Sequence[Planned], waiting: trio.Nursery) -> None:
        async with trio.open_nursery() as nursery:
            for planned in plan:
                for _ in range(planned.pause):
                    await trio.lowlevel.checkpoint()
                if planned.verb in ("wait", "changed"):
                    waiting.start_soon(self.call, daemon, planned)
                elif planned.patient:
                    await self.call(daemon, planned)
                else:
                    nursery.start_soon(self.call, daemon, planned)

    async def close(self, path: str) -> None:
        """Where only those are left who wait, end what they wait for."""
        async with client.open(path) as daemon:
            for id in [id for name in NAMES for id in self.names[name]]:
                await self.ask(id, "complete", daemon.complete(id))

    async def call(self, daemon: on_trio.Daemon, planned: Planned) -> None:
        verb, ids = planned.verb, self.names["trip" if planned.verb == "cancel trip" else planned.name]
        id = ids[max(0, len(ids) - 1 - planned.age)] if ids else None
        match verb:
            case "start":
                await self.start(daemon, planned.name)
            case "trip":
                self.names["trip"].append((await daemon.start("trip")).id)
            case "list":
                begin = self.now()
                listed = await daemon.ids()
                self.lists.append((begin, self.now(), listed))
            case _ if id is None:
                pass
            case "changed":
                await self.changed(daemon, id)
            case "cancel trip":
                await self.cancel_trip(daemon, id)
            case "cancel":
                await self.ask(id, verb, daemon.cancel(id, must=True))
            case "update":
                label = str(self.now())
                await self.ask(id, verb, daemon.update(id, label=label), label=label)
            case "fail":
                await self.ask(id, verb, daemon.fail(id, "X", "no"))
            case "wait":  # by the daemon's verb: the client's own asks again where the answer is none
                await self.ask(id, verb, daemon.ask(verbs.wait(id)))
            case _:
                await self.ask(id, verb, getattr(daemon, verb)(id))

    async def ask(self, id: str, verb: str, call: Any, **args: str) -> Record | str | None:
        begin = self.now()
        answer = await _answer(call)
        self.asked[id].append(Asked(verb, begin, self.now(), answer, args))
        return answer

    async def start(self, daemon: on_trio.Daemon, name: str) -> None:
        begin = self.now()
        record = await daemon.start("external", label="made", request_id=name)
        if record.id not in self.names[name]:
            self.names[name].append(record.id)
        self.asked[record.id].append(Asked("start", begin, self.now(), record))

    async def changed(self, daemon: on_trio.Daemon, id: str) -> None:
        known = await self.ask(id, "get", daemon.get(id))
        if isinstance(known, Record):
            answer = await _answer(daemon.ask(verbs.wait(id, after_revision=known.revision)))
            if isinstance(answer, Record) and not (answer.ended or answer.revision > known.revision):
                self.wrong.append(f"a wait for a change of {known} was answered with {answer}")

    async def cancel_trip(self, daemon: on_trio.Daemon, id: str) -> None:
        begin = self.now()
        answer = await _answer(daemon.cancel(id, must=True))
        self.cancels[id].append(Asked("cancel", begin, self.now(), answer))
        if answer is None:
            self.accepted.add(id)

    # Whether it is right.

    async def check(self, path: str) -> None:
        async with client.open(path) as daemon:
            finals: dict[str, Record] = {}
            for id in self.names["trip"]:
                finals[id] = await daemon.wait(id)
            for id in self.asked:
                if isinstance(last := await self.ask(id, "get", daemon.get(id)), Record):
                    finals[id] = last
        self.wrong += [wrong for id in self.asked for wrong in self.history(id)]
        self.wrong += [wrong for id in self.names["trip"] for wrong in self.trip(id, finals[id])]
        for begin, end, ids in self.lists:
            self.wrong += self.listed(begin, end, ids)
        with trio.move_on_after(PATIENCE / 2):
            while any(_known(told) != _revisions(finals, _known(told)) for told in self.told):
                await trio.sleep(0.01)
        for told in self.told:
            self.wrong += self.watched(told, finals)

    def history(self, id: str) -> Iterator[str]:
        history = self.asked[id]
        if in_order(history) is None:
            yield "cannot have happened one by one:\n" + "\n".join(map(str, history))
        if len(ends(history)) > 1:
            yield f"{id} ended as {ends(history)}"
        yield from older(history)

    def trip(self, id: str, final: Record) -> Iterator[str]:
        wanted = State.CANCELLED if id in self.accepted else State.COMPLETED
        if final.state != wanted:
            yield f"{final} should be {wanted}"
        if any(each.answer not in (None, "Too_late") for each in self.cancels[id]):
            yield f"cancels of {id} were answered {self.cancels[id]}"
        if id in self.trips.made or (id in self.trips.published) is not (final.state == State.COMPLETED):
            yield f"{final} is half made"

    def listed(self, begin: int, end: int, ids: Sequence[str]) -> Iterator[str]:
        for id, history in self.asked.items():
            made = min(each.end for each in history if each.verb == "start")
            destroys = [each for each in history if each.verb == "destroy" and each.answer is None]
            if id in ids and any(each.end < begin for each in destroys):
                yield f"{id} was listed when it was destroyed"
            if id not in ids and made < begin and all(each.begin > end for each in destroys):
                yield f"{id} was not listed when it was there"

    def watched(self, told: Sequence[Mapping[str, Any]], finals: Mapping[str, Record]) -> Iterator[str]:
        moved = [each["revision"] for each in told if each["event"] in ("changed", "destroyed")]
        if moved != sorted(set(moved)):
            yield f"a watch was told the revisions {moved}"
        gone: set[str] = set()
        end: dict[str, str] = {}
        for each in told:
            if each["event"] == "destroyed":
                gone.add(each["id"])
            elif each["event"] in ("snapshot", "changed"):
                task = each["task"]
                if task["id"] in gone:
                    yield f"a watch was told of {task} when it was gone"
                if task["finished_at"] is not None and end.setdefault(task["id"], task["state"]) != task["state"]:
                    yield f"a watch was told that {task} ended as {end[task['id']]}"
        known = _known(told)
        if known != _revisions(finals, known):
            yield f"a watch knows in the end {known}, not {_revisions(finals, known)}"


def _known(told: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """What a watch knows in the end: the revisions of what is there."""
    known: dict[str, int] = {}
    for each in told:
        if each["event"] == "destroyed":
            known.pop(each["id"], None)
        elif each["event"] in ("snapshot", "changed"):
            known[each["task"]["id"]] = each["task"]["revision"]
    return known


def _revisions(finals: Mapping[str, Record], known: Mapping[str, int]) -> dict[str, int]:
    return {id: record.revision for id, record in finals.items()}


async def _answer(call: Any) -> Record | str | None:
    try:
        answer = await call
    except Refused as error:
        return error.error
    return answer if isinstance(answer, Record) else None


@asynccontextmanager
async def _store(kind: str, folder: Path) -> AsyncIterator[Store]:
    if kind == "memory":
        yield MemoryStore()
        return
    store = await SqliteStore.open(folder / "taskd.sqlite")
    try:
        yield store
    finally:
        await store.close()


async def _run(kind: str, number: int, folder: Path) -> list[str]:
    run = Run(Random(number))
    operations = {each.name: each for each in (external.OPERATION, run.trips.operation)}
    settings = Config(socket=str(folder / "s"), state=str(folder / "state"))
    async with _store(kind, folder) as store:
        with server.lock(Path(settings.state)):
            async with trio.open_nursery() as nursery:
                await nursery.start(server.serve, settings, operations, store)
                await run.run(settings.socket)
                nursery.cancel_scope.cancel()
    return run.wrong


def outcome(kind: str, number: int) -> Outcome:
    """What a run over a store of this ``kind``, "memory" or "sqlite", shows."""
    with TemporaryDirectory(prefix="taskd-histories-") as folder:
        wrong = trio.run(_run, kind, number, Path(folder))
    if wrong:
        return Outcome(Verdict.WRONG, faults=0, what=f"run {number}: " + "\n".join(wrong))
    return Outcome(Verdict.WHOLE, faults=CLIENTS * CALLS)


RUNS: Final = 500


def _all(kind: str, sample: Sample) -> Iterator[Outcome]:
    return (outcome(kind, n) for n in range(1, RUNS + 1) if sample.takes(n))


PROOFS: Final = tuple(
    Proof(f"the same tasks, {kind}", f"calls of {CLIENTS} clients at once", partial(_all, kind), RANDOM)
    for kind in ("memory", "sqlite")
)
