"""``rev`` and ``since`` of ``task.listen``: who comes back has missed nothing, and has nothing twice.

What a client makes of the frames is what ``Screen`` does: one marked ``resync`` replaces the row.
"""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from taskd.dialects.ucloud import parts
from taskd.dialects.ucloud.listen import listen
from taskd.dialects.ucloud.parts import CHARS, LINES
from taskd.errors import StoreError
from taskd.model import JSON, LogLine, Task, Undo
from taskd.operations import Handle
from taskd.registry import AT_HAND
from taskd.service import Report
from taskd.states import State
from taskd.store import Query, Store
from taskd.store.memory import MemoryStore
from taskd.store.sqlite import SqliteStore
from tests.bench import ROOT, bounded
from tests.dialects.cloud import ALICE, BOB, UCLOUD, Frame, Screen, Site, heard, quiet, site, update
from tests.test_runner import operation

SPEED = {"title": "Files", "speed": 4.5, "unit": "/s", "asText": "4.5 files/s"}


def seen(frames: Sequence[Frame]) -> Screen:
    screen = Screen()
    for frame in frames:
        screen.add(frame)
    return screen


async def back(ucloud: Site, frames: list[Frame]) -> list[Frame]:
    """What is told to one who comes back after the last of ``frames``; all are on its screen then."""
    since = frames[-1]["rev"]
    assert isinstance(since, int)
    async with ucloud.listening(since=since) as rest:
        await quiet()
    frames += rest
    return rest


# One that has lagged, and is told what was merged.


@pytest.mark.parametrize("count", [1, 2, 3, 4])
async def test_who_lagged_and_breaks_off_anywhere_has_every_message_once(tmp_path: Path, count: int) -> None:
    """Of two tasks, posted in turns."""
    async with site(tmp_path) as ucloud:
        b, c = await ucloud.create(title="b"), await ucloud.create(title="c")
        stream = ucloud.listen(since=0)
        for id, said in ((c, "c1 "), (c, "c2 "), (b, "b1 "), (c, "c3 "), (b, "b2 ")):
            await ucloud.post(id, messageToAppend=said)
        frames = [await anext(stream) for _ in range(count)]
        await stream.aclose()
        await back(ucloud, frames)

    assert {id: row["messages"] for id, row in seen(frames).rows.items()} == {b: "b1 b2 ", c: "c1 c2 c3 "}
    assert not any("resync" in frame for frame in frames)


async def test_who_lagged_learns_of_an_end_before_what_came_after_it(tmp_path: Path) -> None:
    """It is destroyed after that, and the listener breaks off in between."""
    async with site(tmp_path) as ucloud:
        b, c = await ucloud.create(title="b"), await ucloud.create(title="c")
        stream = ucloud.listen(since=0)
        await ucloud.complete(c)
        await ucloud.post(b, newStatus="s")
        await ucloud.service.destroy(ROOT, c)
        first = await anext(stream)
        await stream.aclose()
        rest = await back(ucloud, [first])

    assert (first["jobId"], first["complete"]) == (c, True)
    assert [(frame["jobId"], frame["complete"]) for frame in rest] == [(b, False)]


async def test_with_the_first_of_what_there_is_not_all_is_told(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        b, c = await ucloud.create(title="b"), await ucloud.create(title="c")
        for id, said in ((c, "c1 "), (b, "b1 "), (c, "c2 ")):
            await ucloud.post(id, messageToAppend=said)
        stream = ucloud.listen(since=0)
        frames = [await anext(stream)]
        await stream.aclose()
        await back(ucloud, frames)

    assert {id: row["messages"] for id, row in seen(frames).rows.items()} == {b: "b1 ", c: "c1 c2 "}


# What somebody has of a log.


async def test_who_comes_back_after_a_part_of_many_changes_goes_on_there(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        id = await ucloud.create()
        stream = ucloud.listen(since=0)
        for n in range(LINES + 10):
            await ucloud.post(id, messageToAppend=f"{n};")
        frames = [await anext(stream)]
        await stream.aclose()
        rest = await back(ucloud, frames)

    assert seen(frames).rows[id]["messages"] == "".join(f"{n};" for n in range(LINES + 10))
    assert [str(frame["messageToAppend"]).count(";") for frame in rest] == [10]


async def test_who_comes_back_after_a_part_of_one_change_has_it_replaced(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        id = await ucloud.create()
        stream = ucloud.listen(since=0)
        await ucloud.service.update(UCLOUD, id, log=[f"{n};" for n in range(LINES + 10)])
        frames = [await anext(stream)]
        await stream.aclose()
        rest = await back(ucloud, frames)

    assert seen(frames).rows[id]["messages"] == "".join(f"{n};" for n in range(LINES + 10))
    assert [frame.get("resync") for frame in rest] == [True]


async def test_a_frame_has_not_many_long_messages(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        id = await ucloud.create()
        stream = ucloud.listen()
        await ucloud.service.update(UCLOUD, id, log=["x" * 4096] * 40)
        async with heard(stream) as frames:
            await quiet()

    lengths = [len(str(frame["messageToAppend"])) for frame in frames]
    assert max(lengths) <= CHARS
    assert sum(lengths) == 40 * 4096


async def test_what_memory_has_forgotten_is_replaced_and_not_added(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        ucloud.service.registry.logs.limit = 0
        id = await ucloud.create()
        async with ucloud.listening(since=0) as frames:
            await ucloud.post(id, messageToAppend="a")
            await quiet()
        await ucloud.post(id, newStatus="s")
        rest = await back(ucloud, frames)

    assert seen(frames).rows[id] == {"messages": "a", "speeds": [], "title": "title", "status": "s"}
    assert [frame.get("resync") for frame in rest] == [True]


@attrs.define(eq=False)
class SlowStore(MemoryStore):
    """The write of ``held`` waits for ``go``."""

    held: str = ""
    go: trio.Event = attrs.field(factory=trio.Event)

    async def write(self, task: Task, *, expect: State, log: Sequence[LogLine] = (), keep: int = 0) -> None:
        if task.id == self.held:
            await self.go.wait()
        await super().write(task, expect=expect, log=log, keep=keep)


async def test_a_message_that_waits_to_be_shown_is_not_passed_over(tmp_path: Path) -> None:
    """Memory has forgotten it, and it waits for a slow write of another task."""
    store = SlowStore()
    async with site(tmp_path, store=store) as ucloud, trio.open_nursery() as nursery:
        ucloud.service.registry.logs.limit = 0
        store.held, id = await ucloud.create(BOB, "slow"), await ucloud.create()
        async with ucloud.listening(since=0) as frames:
            await ucloud.post(id, messageToAppend="a")
            await quiet()
        nursery.start_soon(partial(ucloud.post, store.held, newStatus="s"))
        await quiet()
        nursery.start_soon(partial(ucloud.post, id, messageToAppend="b"))
        await quiet()
        since = frames[-1]["rev"]
        assert isinstance(since, int)
        async with ucloud.listening(since=since) as rest:
            await quiet()
            store.go.set()
            await quiet()

    assert seen([*frames, *rest]).rows[id]["messages"] == "ab"


# Where the feed does not go back so far.


async def test_a_since_of_another_run_tells_what_has_ended_too(tmp_path: Path) -> None:
    store = MemoryStore()
    async with site(tmp_path, store=store) as ucloud:
        ends, goes, old = [await ucloud.create(title=title) for title in ("ends", "goes", "old")]
        await ucloud.complete(old)
        async with ucloud.listening(since=0) as frames:
            await ucloud.post(ends, messageToAppend="a")
            await ucloud.post(goes, messageToAppend="b")
            await quiet()
        await ucloud.complete(ends)
    async with site(tmp_path, store=store) as ucloud:
        rest = await back(ucloud, frames)

    screen = seen(frames)
    assert {id: row["messages"] for id, row in screen.rows.items()} == {goes: "b"}
    assert {id: row["messages"] for id, row in screen.gone.items()} == {ends: "a"}
    assert all(frame["resync"] is True for frame in rest)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_who_lags_too_far_is_told_no_speed_twice(tmp_path: Path, kind: str) -> None:
    """A task that has ended comes from the store: its speeds are equal, and not the same."""
    store: Store = MemoryStore() if kind == "memory" else await SqliteStore.open(tmp_path / "db")
    async with site(tmp_path, store=store) as ucloud:
        ucloud.service.registry.feed.limit = 2
        id = await ucloud.create(title="t")
        await ucloud.post(id, speeds=[SPEED, SPEED])
        stream = ucloud.listen()
        frames = [await anext(stream)]
        await ucloud.post(id, speeds=[{**SPEED, "title": "last"}], complete=True)
        for _ in range(4):
            await ucloud.create(BOB)
        async with heard(stream) as rest:
            await trio.sleep(0.1)
    await store.close()

    assert [row["speeds"] for row in seen([*frames, *rest]).gone.values()] == [["Files", "Files", "last"]]


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_who_breaks_off_in_a_gap_has_what_was_made_and_ended_in_it(tmp_path: Path, count: int) -> None:
    async with site(tmp_path) as ucloud:
        ucloud.service.registry.feed.limit = 2
        goes = await ucloud.create(title="goes")
        stream = ucloud.listen(since=0)
        short = [await ucloud.create(title=title) for title in "ab"]
        for id in short:
            await ucloud.post(id, messageToAppend="m", complete=True)
        await ucloud.post(goes, messageToAppend="g")
        for _ in range(3):
            await ucloud.create(BOB)
        with bounded():
            frames = [await anext(stream) for _ in range(count)]
        await stream.aclose()
        await back(ucloud, frames)
        await back(ucloud, frames)

    screen = seen(frames)
    assert {id: row["messages"] for id, row in screen.gone.items()} == dict.fromkeys(short, "m")
    assert {id: row["messages"] for id, row in screen.rows.items()} == {goes: "g"}


@attrs.define(eq=False)
class Deaf(MemoryStore):
    """Cannot tell, for a time."""

    deaf: bool = False

    async def get(self, id: str) -> Task | None:
        self._check()
        return await super().get(id)

    async def list(self, query: Query) -> Sequence[Task]:
        self._check()
        return await super().list(query)

    def _check(self) -> None:
        if self.deaf:
            raise StoreError("the store cannot read: for a time")


@pytest.mark.parametrize("known", [True, False])
async def test_how_a_task_ended_is_told_when_the_store_can_tell_again(
    tmp_path: Path, autojump_clock: trio.abc.Clock, known: bool
) -> None:
    """The listener has known of it, or it was made in the gap."""
    store = Deaf()
    async with site(tmp_path, store=store) as ucloud:
        ucloud.service.registry.feed.limit = 1
        stream = ucloud.listen()
        id = await ucloud.create()
        if known:
            stream = ucloud.listen()
        await ucloud.post(id, newStatus="done", complete=True)
        for _ in range(AT_HAND + 1):  # since when so many others have ended
            await ucloud.complete(await ucloud.create(BOB))
        store.deaf = True
        async with heard(stream) as frames:
            await trio.sleep(5)
            assert frames == []
            store.deaf = False
            await trio.sleep(5)

    title = None if known else "title"
    assert frames == [update(id, newTitle=title, newStatus="done", complete=True)]


async def test_who_comes_back_learns_of_a_task_that_was_given_up(
    tmp_path: Path, autojump_clock: trio.abc.Clock
) -> None:
    """It was committed, and could not be finished."""

    async def run(params: object, handle: Handle) -> JSON:
        await handle.commit(None, [Undo("finish")])
        return None

    async def finish() -> None:
        raise OSError(16, "busy")

    kind = operation(run, verbs={"finish": finish}, roles=frozenset({"admin", "user"}))
    async with site(tmp_path, kind) as ucloud:
        service = ucloud.service
        id = (await service.start(ALICE, "toy", {}, label="x")).id
        live = service.registry.get(id)
        assert live is not None
        while not live.task.residue:
            await live.changed()
        since = service.registry.feed.revision
        await service.destroy(ROOT, id, force=True)
        async with ucloud.listening(since=since) as frames:
            await trio.sleep(1)

    assert [(frame["jobId"], frame["complete"]) for frame in frames] == [(id, True)]


# What a listener keeps.


async def test_a_listener_that_waits_keeps_nothing_of_what_it_was_asked_or_has_told(tmp_path: Path) -> None:
    class Payload(dict[str, JSON]):
        pass

    async with site(tmp_path) as ucloud:
        id = await ucloud.create()
        payload = Payload(since=0, unknown="x" * 1000)
        asked = weakref.ref(payload)
        stream = listen(ucloud.service, ALICE, payload)
        del payload
        await ucloud.post(id, messageToAppend="m")
        async with heard(stream):
            await quiet()
            told = weakref.ref(await ucloud.service.get(ALICE, id))
            await ucloud.complete(id)
            await quiet()
            ucloud.service.registry.feed.limit = 1
            await ucloud.create(BOB)
            await quiet()
            gc.collect()
            assert asked() is None
            assert told() is None


# All at once.


async def _comes_and_goes(ucloud: Site, rng: random.Random, frames: list[Frame]) -> None:
    while True:
        since = frames[-1]["rev"] if frames else 0
        assert isinstance(since, int)
        stream, budget = ucloud.listen(since=since), rng.randrange(1, 60)
        try:
            async for frame in stream:
                frames.append(frame)
                await trio.sleep(rng.choice([0, 0, 0.01, 0.5]))
                budget -= 1
                if not budget:
                    break
        finally:
            with trio.CancelScope(shield=True):
                await stream.aclose()
        await trio.sleep(rng.random() * 0.3)


async def _produces(ucloud: Site, rng: random.Random) -> None:
    for _ in range(4):
        id = await ucloud.create()
        for n in range(rng.randrange(8)):
            await trio.sleep(rng.random() * 0.2)
            log = [f"{n}.{part} " for part in range(rng.randrange(4))]
            await ucloud.service.update(UCLOUD, id, log=log, status=f"s{n}", progress=Report(done=n, total=10))
        if rng.random() < 0.8:
            await ucloud.post(id, messageToAppend="bye", complete=True)


@pytest.mark.parametrize("seed", range(24))
async def test_whoever_comes_and_goes_has_it_all_in_the_end(
    tmp_path: Path, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """However little memory keeps of changes and of logs, however small a frame is."""
    rng = random.Random(seed)
    monkeypatch.setattr(parts, "LINES", rng.choice([1, 2, 50]))
    async with site(tmp_path) as ucloud, trio.open_nursery() as nursery:
        registry = ucloud.service.registry
        registry.logs.limit = rng.choice([0, 500, 2000, 10**6])
        registry.feed.limit = rng.choice([3, 8, 10**6])
        told: list[list[Frame]] = [[], []]
        for frames in told:
            nursery.start_soon(_comes_and_goes, ucloud, random.Random(rng.random()), frames)
        async with trio.open_nursery() as producers:
            for _ in range(3):
                producers.start_soon(_produces, ucloud, random.Random(rng.random()))
        await trio.sleep(300)
        nursery.cancel_scope.cancel()
        for frames in told:
            screen = seen(frames)
            rows = {**screen.rows, **screen.gone}
            for row in await ucloud.rows():
                assert row["modifiedAt"] == row["startedAt"] or row["jobId"] in screen.rows
            for id, row in rows.items():
                task = await ucloud.service.get(ALICE, id)
                log = await ucloud.service.log(ALICE, id)
                assert (id in screen.gone, row["messages"], row["title"], row.get("status")) == (
                    task.state.ended, "".join(line.line for line in log), task.label, task.status,
                )  # fmt: skip


@pytest.mark.parametrize("lags", [False, True])
async def test_the_last_words_of_a_task_that_is_destroyed_at_once_are_told(tmp_path: Path, lags: bool) -> None:
    """Also to one whose reader takes the frame before only now."""
    async with site(tmp_path) as ucloud:
        id = await ucloud.create()
        stream = ucloud.listen()
        await ucloud.post(id, messageToAppend="first ")
        frames = [await anext(stream)]
        if not lags:
            await ucloud.service.destroy_when_ended(ALICE, id)
        await ucloud.post(id, messageToAppend="last words", complete=True)
        if lags:
            await ucloud.service.destroy(ALICE, id)
        async with heard(stream) as rest:
            await quiet()

    assert [*frames, *rest] == [
        update(id, messageToAppend="first "),
        update(id, messageToAppend="last words", complete=True),
    ]
