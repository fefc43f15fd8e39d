"""Load: a daemon, and clients that do whatever can be done with it, on the stream and over HTTP.

Every answer is held against all others (``told``). Every target is looked at when its task has ended, and by
readers at any moment. A client asks again where there was no answer.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import attrs
import h11
import trio

from taskd.client import Call, NoDaemon, Record, Refused, on_trio, verbs
from taskd.client.conversation import refusal
from taskd.model import JSON
from taskd.states import State
from tests.cases import Photo, empty, photograph
from tests.process import DaemonProcess
from tests.proof.told import Told, clock

T = TypeVar("T")

# Seconds in which a task must end, and anything must be answered, kills and all.
PATIENCE: Final = 240.0

# Of the whole time, from where to where nothing is killed.
CALM: Final = (0.4, 0.7)

KIB: Final = 1024
BLOCK: Final = 16 * KIB


@attrs.frozen
class Look:
    """At the daemon, ``at`` seconds after the beginning and ``up`` after its start."""

    at: float
    up: float
    kib: int
    fds: int
    calm: bool


@attrs.define(eq=False)
class World:
    """The daemon, what it has told, and what was counted."""

    daemon: DaemonProcess
    seconds: float
    rng: random.Random
    begun: float = attrs.field(factory=clock)
    wrongs: list[str] = attrs.field(factory=list)
    ends: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    counts: Counter[str] = attrs.field(factory=Counter)
    looks: list[Look] = attrs.field(factory=list)
    starts: list[tuple[float, float]] = attrs.field(factory=list)
    started: float = 0.0
    settled: float = 0.0
    told: Told = attrs.field(init=False)
    numbers: Iterator[int] = attrs.field(factory=itertools.count)

    def __attrs_post_init__(self) -> None:
        self.told = Told(self.wrong)

    @property
    def at(self) -> float:
        return clock() - self.begun

    @property
    def over(self) -> bool:
        return self.at >= self.seconds

    @property
    def calm(self) -> bool:
        return CALM[0] <= self.at / self.seconds < CALM[1]

    def wrong(self, what: str) -> None:
        self.wrongs.append(what)
        print(f"WRONG at {self.at:.1f} s: {what}", file=sys.stderr, flush=True)


@attrs.define(eq=False)
class Client:
    """Asks on a stream, opened again when the daemon was away; with ``http``, by a request for each call."""

    world: World
    http: bool
    repeated: bool = False
    _daemon: on_trio.Daemon | None = None

    async def once(self, call: Call[T]) -> T:
        """Ask.

        Raises:
            NoDaemon: there is no answer; it may have been done.
            Refused: the answer is no.
        """
        self.world.counts["calls"] += 1
        if self.http:
            return await asked_over_http(self.world.daemon.socket, call)
        if self._daemon is None:
            self._daemon = await on_trio.connect(self.world.daemon.socket)
        try:
            return await self._daemon.ask(call)
        except NoDaemon:
            self.close()
            raise

    async def ask(self, call: Call[T]) -> T:
        """Ask until there is an answer; ``repeated`` tells whether that took more than one time."""
        self.repeated = False
        with trio.fail_after(PATIENCE):
            while True:
                try:
                    return await self.once(call)
                except NoDaemon:
                    self.world.counts["calls without an answer"] += 1
                    self.repeated = True
                    await trio.sleep(0.05)

    async def record(self, call: Call[Record], id: str = "") -> Record:
        """Ask for a record, and remember what it says. Raises Refused."""
        asked = clock()
        try:
            return self.world.told.hear(await self.ask(call), asked)
        except Refused as error:
            if error.error == "Does_not_exist" and id:
                self.world.told.unknown(id, asked)
            raise

    def close(self) -> None:
        if self._daemon is not None:
            self._daemon.close()
            self._daemon = None


async def asked_over_http(path: str, call: Call[T]) -> T:
    """One call in one request, on a connection of its own. Raises NoDaemon and Refused."""
    body = json.dumps({"jsonrpc": "2.0", "method": call.method, "params": call.params, "id": 1}).encode()
    status, said = await fetched(path, "POST", "/jsonrpc", body)
    reply = json.loads(said)
    assert status == 200, (status, said)
    if "error" in reply:
        raise refusal(reply["error"])
    return call.read(reply["result"])


async def fetched(path: str, method: str, target: str, body: bytes = b"") -> tuple[int, bytes]:
    """The status and the body. Raises NoDaemon where there is no whole response."""
    http, said, status = h11.Connection(h11.CLIENT), bytearray(), 0
    request = h11.Request(
        method=method, target=target, headers=[("Host", "taskd"), ("Content-Length", str(len(body)))]
    )
    try:
        async with await trio.open_unix_socket(path) as stream:
            for part in (request, h11.Data(data=body), h11.EndOfMessage()):
                await stream.send_all(http.send(part) or b"")
            while not isinstance(event := http.next_event(), h11.EndOfMessage):
                if isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    said += event.data
                elif event is h11.NEED_DATA:
                    http.receive_data(await stream.receive_some())
    except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError) as error:
        raise NoDaemon(path, str(error)) from None
    return status, bytes(said)


# What clients do. Each takes a folder of its own.


async def started(client: Client, operation: str, params: Mapping[str, JSON]) -> Record:
    """A task that is acknowledged."""
    number = next(client.world.numbers)
    call = verbs.start(operation, params, request_id=f"age {number}", label=f"age {number}")
    record = await client.record(call)
    client.world.told.of(record.id).acknowledged = True
    client.world.counts["acknowledged starts"] += 1
    return record


async def end_of(client: Client, id: str) -> Record:
    """The record of its end, waited for in one of the ways there are."""
    rng = client.world.rng
    with trio.move_on_after(PATIENCE):
        record = await client.record(verbs.get(id), id)
        while not record.ended:
            if rng.random() < 0.3:
                await trio.sleep(rng.random() / 5)
                record = await client.record(verbs.get(id), id)
            else:
                after = record.revision if rng.random() < 0.5 else None
                record = await client.record(verbs.wait(id, rng.random() * 5, after), id)
        client.world.told.ended(record)
        client.world.ends[record.operation, record.state] += 1
        return record
    raise AssertionError(f"{id} does not end: {client.world.told.of(id).newest.raw}")


async def cancelled_at_random(client: Client, id: str, after_s: float) -> None:
    """Ask it to stop, and remember what the answer promised."""
    await trio.sleep(after_s)
    world, asked = client.world, clock()
    try:
        await client.ask(verbs.cancel(id, must=True))
    except Refused as error:
        if error.error == "Does_not_exist":
            world.told.unknown(id, asked)
        elif error.error == "Too_late":
            world.counts["cancels that came too late"] += 1
            record = await client.record(verbs.get(id), id)
            if not record.ended and record.state != State.COMMITTED:
                world.wrong(f"{id}: its cancel is said to be too late: {record.raw}")
        return
    world.told.of(id).cancelled = True
    world.counts["accepted cancels"] += 1
    record = await client.record(verbs.get(id), id)
    if not record.cancel_requested:
        world.wrong(f"{id}: its cancel was accepted, but is not told: {record.raw}")


async def destroyed(client: Client, id: str) -> None:
    """Forget it; from then on there is no such task."""
    account = client.world.told.of(id)
    account.destroying = True
    try:
        await client.ask(verbs.destroy(id))
    except Refused as error:
        if not (error.error == "Does_not_exist" and client.repeated):
            client.world.wrong(f"{id} is ended, and is not destroyed: {error}")
            return
    account.destroyed = clock()
    client.world.counts["destroyed"] += 1
    account.told.clear()


async def looked_at(world: World, path: Path, may_be: Sequence[bytes | None]) -> None:
    """A reader: at any moment the file is one of these, whole; until cancelled."""
    while True:
        try:
            content: bytes | None = path.read_bytes()
        except FileNotFoundError:
            content = None
        world.counts["looks at targets"] += 1
        if content not in may_be:
            world.counts["half-written"] += 1
            world.wrong(f"{path} is seen half-written: {len(content or b'')} bytes")
        await trio.sleep(world.rng.random() / 10)


WAYS: Final[Mapping[str, Mapping[str, JSON]]] = {
    "new": {},
    "overwrite": {"overwrite": True, "verify": True},
    "blocks": {"overwrite": True, "blocks": {"blocksize": BLOCK, "ranges": [[0, 1], [3, 4]]}},
    "blocks in place": {"overwrite": True, "blocks": {"blocksize": BLOCK, "ranges": [[0, 1], [3, 4]]}},
}


@attrs.frozen
class Trial:
    """A task to be: its folder as it is, and as it has to be when the task has completed."""

    operation: str
    params: Mapping[str, JSON]
    folder: Path
    before: Photo
    after: Photo


def laid(rng: random.Random, way: str, folder: Path) -> Trial:
    """A copy, with its source and its target."""
    source, target = empty(folder) / "source", folder / "target"
    source.write_bytes(rng.randbytes(rng.randrange(7 * BLOCK, 40 * BLOCK)))
    if way != "new":
        target.write_bytes(rng.randbytes(rng.randrange(7 * BLOCK, 40 * BLOCK)))
    if way == "blocks in place":
        os.link(target, folder / "second name")
    before = photograph(folder)
    kind, mode, new = before["source"]
    if "blocks" in way:
        old = before["target"][2]
        new = new[:BLOCK] + old[BLOCK : 3 * BLOCK] + new[3 * BLOCK : 7 * BLOCK] + old[7 * BLOCK :]
    after = dict(before)
    for name in {"target", *before} - {"source"}:
        after[name] = (kind, mode, new)
    rate = len(new) / rng.choice((0.1, 0.5, 2.0))
    params = {"source": str(source), "target": str(target), **WAYS[way], "rate_limit": int(rate)}
    return Trial("copy", params, folder, before, after)


async def copies(client: Client, folder: Path) -> None:
    """Copies, one after the other, each cancelled by chance."""
    world, rng = client.world, client.world.rng
    while not world.over:
        way = rng.choice(tuple(WAYS))
        trial = laid(rng, way, folder)
        async with trio.open_nursery() as nursery:
            if way != "blocks in place":
                old, new = trial.before.get("target"), trial.after["target"]
                may_be = [None if old is None else old[2], new[2]]
                nursery.start_soon(looked_at, world, folder / "target", may_be)
            await disturbed(client, trial)
            nursery.cancel_scope.cancel()


SCRIPT: Final = "echo begun; echo new >made; sleep {}; echo 'progress 0.5' >&3; mv made target; echo done"


async def commands(client: Client, folder: Path) -> None:
    """Programs with an undo."""
    while not client.world.over:
        before = photograph(empty(folder))
        params = {
            "argv": ["/bin/sh", "-c", SCRIPT.format(round(client.world.rng.random(), 2))],
            "undo_argv": ["/bin/rm", "-f", "made", "target"],
            "cwd": str(folder),
        }
        after = {"target": ("file", 0o644, b"new\n")}
        await disturbed(client, Trial("command", params, folder, before, after))


async def disturbed(client: Client, trial: Trial) -> None:
    """One task, perhaps cancelled; its folder is looked at when it has ended."""
    world, rng = client.world, client.world.rng
    record = await started(client, trial.operation, trial.params)
    other = Client(world, rng.random() < 0.5)
    async with trio.open_nursery() as nursery:
        if rng.random() < 0.3:
            nursery.start_soon(cancelled_at_random, other, record.id, rng.random() * 2)
        end = await end_of(client, record.id)
        found = photograph(trial.folder)
        if found != (trial.after if end.state == State.COMPLETED else trial.before):
            world.counts["half-written"] += 1
            world.wrong(f"{trial.folder} is not as {end.raw} says; in it are {[*found]}")
    other.close()
    if rng.random() < 0.6:
        await destroyed(client, record.id)


async def productions(client: Client, folder: Path) -> None:
    """External tasks, reported on and ended by their producer, cancelled by somebody else."""
    world, rng = client.world, client.world.rng
    while not world.over:
        record = await started(client, "external", {})
        id, said, other = record.id, [], Client(world, rng.random() < 0.5)
        async with trio.open_nursery() as nursery:
            if rng.random() < 0.3:
                nursery.start_soon(cancelled_at_random, other, id, rng.random())
            for step in range(rng.randrange(1, 8)):
                line = f"line {next(world.numbers)}"
                await client.record(verbs.update(id, done=step, total=8, log=[line], status=line), id)
                said.append(line)
                await trio.sleep(rng.random() / 4)
        other.close()
        obeys = world.told.of(id).cancelled and rng.random() < 0.8
        call = verbs.fail(id, "STOPPED", "as asked") if obeys else verbs.complete(id, {"steps": len(said)})
        try:
            await client.record(call, id)
        except Refused as error:
            if not (error.error == "Already_ended" and client.repeated):
                world.wrong(f"{id}: its producer is refused: {error}")
        end = await end_of(client, id)
        if end.state != (State.CANCELLED if obeys else State.COMPLETED):
            world.wrong(f"{id} did not end as its producer said: {end.raw}")
        lines = [line.line for line in (await client.ask(verbs.log(id))).lines]
        if list(dict.fromkeys(lines)) != said:
            world.wrong(f"{id}: its log is {lines}, acknowledged were {said}")
        if rng.random() < 0.6:
            await destroyed(client, id)


async def questions(client: Client, folder: Path) -> None:
    """Lists, ids, and what is told of the daemon itself."""
    world, rng = client.world, client.world.rng
    filters: Sequence[Mapping[str, JSON]] = ({}, {"states": ["running", "undoing"]}, {"order": "oldest"})
    while not world.over:
        asked = clock()
        page = await client.ask(verbs.page_of(page_size=rng.choice((10, 200)), **rng.choice(filters)))  # type: ignore[arg-type]  # one of a table
        for record in page.tasks:
            world.told.hear(record, asked)
        must = set(world.told.kept())
        missing = must - {*await client.ask(verbs.ids())}
        for id in missing & {*world.told.kept()}:
            world.told.unknown(id, clock())
        try:
            for path in ("/healthz", "/metrics"):
                status, _ = await fetched(world.daemon.socket, "GET", path)
                if status not in (200, 503):
                    world.wrong(f"GET {path} is answered with {status}")
        except NoDaemon:
            pass
        await trio.sleep(rng.random())


async def watches(client: Client, folder: Path) -> None:
    """One who is told of everything, and goes on where it was after each death."""
    world, since = client.world, None
    while not world.over:
        try:
            async with on_trio.open(world.daemon.socket) as daemon:
                await daemon.call("Task.watch", **({} if since is None else {"since": since}))
                revision = 0
                while not world.over:
                    with trio.move_on_after(1):
                        notice = (await daemon.notification()).params
                        assert isinstance(notice, dict)
                        world.counts["told to watchers"] += 1
                        if "task" in notice:
                            record = verbs.get("").read(notice["task"])
                            # It may be under way while newer things are asked and answered.
                            world.told.hear(record, 0.0)
                        if notice["event"] in ("changed", "destroyed"):
                            if notice["revision"] <= revision:
                                world.wrong(f"a watcher is told {notice} after {revision}")
                            revision = notice["revision"]
                        if notice["event"] in ("changed", "destroyed", "synced"):
                            since = notice["revision"]
        except NoDaemon:
            await trio.sleep(0.05)


CLIENTS: Final[Sequence[tuple[Callable[[Client, Path], Awaitable[None]], int]]] = (
    (copies, 4),
    (commands, 2),
    (productions, 2),
    (questions, 1),
    (watches, 1),
)
