"""``task.listen``: who keeps up is told each post, who lags is told no less, who comes late is told it all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from taskd.dialects.ucloud import follow, listen
from taskd.dialects.ucloud.messages import CUT, TAIL
from taskd.dialects.ucloud.parts import LINES
from taskd.errors import InvalidRequest, PermissionDenied
from taskd.model import JSON, Caller, Failure
from taskd.operations import Handle, Operation, copy
from taskd.service import End, Report
from taskd.states import State
from taskd.store.memory import MemoryStore
from tests.bench import ROOT
from tests.dialects.client import Gates
from tests.dialects.cloud import (
    ALICE,
    BOB,
    UCLOUD,
    Frame,
    Screen,
    Site,
    Stream,
    collect,
    heard,
    quiet,
    site,
    stepped,
    unchanged,
    update,
)
from tests.test_runner import FullStore

FILES = {"title": "files", "current": 3, "maximum": 12}
SPEED = {"title": "Files", "speed": 4.5, "unit": "/s", "asText": "4.5 files/s"}


async def test_counting_to_three_as_the_documentation_has_it(tmp_path: Path) -> None:
    """[U04] Member for member, in its order."""
    async with site(tmp_path) as ucloud:
        id = await ucloud.create(title="We are counting to 3")
        async with ucloud.listening() as frames:
            for n in (1, 2, 3):
                await ucloud.post(id, messageToAppend=f"Count is now {n}")
            await ucloud.complete(id)

    assert frames == [
        update(id, messageToAppend="Count is now 1"),
        update(id, messageToAppend="Count is now 2"),
        update(id, messageToAppend="Count is now 3"),
        update(id, complete=True),
    ]
    assert [list(frame) for frame in frames] == [list(unchanged(id))] * 4


async def test_a_task_that_is_made_is_told_with_its_first_status(tmp_path: Path) -> None:
    """[U04's note]"""
    async with site(tmp_path) as ucloud, ucloud.listening() as frames:
        id = await ucloud.create(title="t", status="s")
        await quiet()
        plain = await ucloud.create(title="t2")
        await quiet()

    assert frames == [update(id, newTitle="t", newStatus="s"), update(plain, newTitle="t2")]


async def test_each_post_is_one_frame_word_for_word(tmp_path: Path) -> None:
    """[W09]"""
    posts: list[dict[str, JSON]] = [
        {"newTitle": "t2"},
        {"newStatus": "s2"},
        {"newStatus": ""},
        {"progress": FILES},
        {"progress": {**FILES, "current": 4}},
        {"speeds": [SPEED, {**SPEED, "title": "Bytes"}]},
        {"speeds": [SPEED]},
        {"messageToAppend": "one\n"},
        {"messageToAppend": ""},
        {"messageToAppend": "x" * 10_000},
        {},
        {"newTitle": "t3", "newStatus": "s3", "progress": {**FILES, "title": "other"}, "speeds": [SPEED],
         "messageToAppend": "two", "complete": True},
    ]  # fmt: skip
    async with site(tmp_path) as ucloud:
        id = await ucloud.create()
        async with ucloud.listening() as frames:
            for said in posts:
                await ucloud.post(id, **said)

    assert frames == [update(id, **{**said, "progress": _done(said)}) for said in posts]


def _done(said: Mapping[str, JSON]) -> JSON:
    """The progress that is told of a post: with the end all is done."""
    progress = said.get("progress")
    if isinstance(progress, dict) and said.get("complete"):
        return {**progress, "current": progress["maximum"]}
    return progress


async def test_what_is_said_again_is_not_told_again(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        id = await ucloud.create(title="t", status="s")
        await ucloud.post(id, progress=FILES)
        async with ucloud.listening() as frames:
            await quiet()
            frames.clear()
            await ucloud.post(id, newTitle="t", newStatus="s", progress=FILES)

    assert frames == [unchanged(id)]


async def test_after_the_end_nothing_is_told(tmp_path: Path) -> None:
    """[U42] Neither of what is posted late, nor of the task's being destroyed."""
    async with site(tmp_path) as ucloud:
        id = await ucloud.create()
        async with ucloud.listening() as frames:
            await ucloud.complete(id)
            await quiet()
            late = {"update": {"jobId": id, "newStatus": "late"}}
            assert (await ucloud.ask(UCLOUD, "POST /api/tasks/postStatus", late)).status == 409
            await ucloud.complete(id)
            ucloud.service.registry.touch(await ucloud.service.get(ALICE, id))
            await quiet()
            await ucloud.service.destroy(ALICE, id)

    assert frames == [update(id, complete=True)]


async def test_users_hear_of_their_own_tasks_only(tmp_path: Path) -> None:
    """[U44] Also admins, and also producers."""
    both = attrs.evolve(UCLOUD, roles=frozenset({"service", "admin"}))
    async with (
        site(tmp_path) as ucloud,
        ucloud.listening(ALICE) as alices,
        ucloud.listening(BOB) as bobs,
        ucloud.listening(ROOT) as roots,
        ucloud.listening(both) as producers,
    ):
        mine = await ucloud.create(ALICE, "a")
        await quiet()
        theirs = await ucloud.create(BOB, "b")
        await ucloud.post(mine, newStatus="s")
        await ucloud.complete(theirs)

    assert alices == [update(mine, newTitle="a"), update(mine, newStatus="s")]
    assert bobs == [update(theirs, newTitle="b"), update(theirs, complete=True)]
    assert roots == producers == []


async def test_two_listeners_are_independent(tmp_path: Path) -> None:
    """[W05] One that does not read, or goes, takes nothing from the other."""
    async with site(tmp_path) as ucloud:
        id = await ucloud.create()
        slow = ucloud.listen()
        async with aclosing(slow), ucloud.listening() as second:
            async with ucloud.listening() as first:
                await ucloud.post(id, newStatus="s")
                await quiet()
                assert first == second == [update(id, newStatus="s")]
            await ucloud.post(id, newTitle="t")
            await quiet()
            merged = await anext(slow)

    assert second == [update(id, newStatus="s"), update(id, newTitle="t")]
    assert merged == update(id, newStatus="s", newTitle="t")


async def test_who_lags_is_told_the_difference_and_not_less(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        id = await ucloud.create(title="t0", status="s0")
        ended = await ucloud.create(title="e")
        stream = ucloud.listen()
        for n in range(1, 4):
            await ucloud.post(id, newStatus=f"s{n}", messageToAppend=f"m{n} ", progress={**FILES, "current": n})
            await ucloud.post(id, speeds=[{**SPEED, "speed": n}])
        await ucloud.post(ended, messageToAppend="last words", complete=True)
        made = await ucloud.create(title="m", status="begun")
        await ucloud.post(made, newStatus="going on")
        short = await ucloud.create(title="made and done")
        await ucloud.complete(short)
        await quiet()
        async with heard(stream) as frames:
            await quiet()
            assert len(frames) == 4
            await ucloud.post(id, messageToAppend="m4")  # and from then on as it comes

    speeds = [{**SPEED, "speed": float(n)} for n in (1, 2, 3)]
    assert frames == [
        update(id, newStatus="s3", messageToAppend="m1 m2 m3 ", speeds=speeds, progress={**FILES, "current": 3}),
        update(ended, messageToAppend="last words", complete=True),
        update(made, newTitle="m", newStatus="going on"),
        update(short, newTitle="made and done", complete=True),
        update(id, messageToAppend="m4"),
    ]


@pytest.mark.parametrize("long", [0, 1])
async def test_each_frame_has_the_revision_up_to_which_all_is_told(tmp_path: Path, long: int) -> None:
    async with site(tmp_path) as ucloud:
        ids = [await ucloud.create() for _ in range(3)]
        begun = ucloud.service.registry.feed.revision
        stream = ucloud.listen(since=0)
        for id in ids:
            await ucloud.service.update(UCLOUD, id, log=["m"] * (LINES + 1 if id == ids[long] else 1))
        async with heard(stream) as frames:
            pass
        revisions = [(await ucloud.service.get(ALICE, id)).revision for id in ids]

    first = [begun, *revisions][long]  # with the first part of the long log not all of it is told
    assert [frame["rev"] for frame in frames] == sorted([first, *revisions])


async def test_a_message_is_told_with_its_own_post_however_early_it_is_stored(tmp_path: Path) -> None:
    """While what was decided before it is not shown, it is not shown either."""
    async with site(tmp_path) as ucloud:
        registry = ucloud.service.registry
        id = await ucloud.create()
        stream = ucloud.listen()
        await ucloud.post(id, newStatus="s1", messageToAppend="a")
        seen = (await ucloud.service.get(ALICE, id)).revision
        ahead = registry.take(None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(ucloud.post, id, newStatus="s2", messageToAppend="b"))
            await quiet()
            async with heard(stream) as frames, ucloud.listening(since=seen) as back, ucloud.listening() as late:
                await quiet()
                before = list(frames), list(back), list(late)
                registry.give_up(ahead)

    first = update(id, newStatus="s1", messageToAppend="a")
    second = update(id, newStatus="s2", messageToAppend="b")
    assert before == ([first], [], [{**first, "newTitle": "title"}])
    assert frames[1:] == late[1:] == [second]
    assert [{**frame, "rev": 0} for frame in back] == [{**second, "rev": 0}]


@pytest.mark.parametrize("limit", [10**6, 0], ids=["in memory", "in the store"])
async def test_a_post_that_was_lost_leaves_no_mark_in_the_next(tmp_path: Path, limit: int) -> None:
    """The producer was told (503), and says it again."""
    store = FullStore()
    async with site(tmp_path, store=store) as ucloud:
        ucloud.service.registry.logs.limit = limit
        id = await ucloud.create()
        async with ucloud.listening() as frames:
            for n in range(3):
                store.full = True
                said = {"update": {"jobId": id, "messageToAppend": f"{n}", "newTitle": f"t{n}"}}
                assert (await ucloud.ask(UCLOUD, "POST /api/tasks/postStatus", said)).status == 503
                store.full = False
                await ucloud.post(id, messageToAppend=f"{n}", newTitle=f"t{n}")
                await quiet()

    assert [frame["messageToAppend"] for frame in frames] == ["0", "1", "2"]
    assert [frame["newTitle"] for frame in frames] == ["t0", "t1", "t2"]


async def test_who_lags_behind_a_long_log_gets_it_in_parts(tmp_path: Path) -> None:
    """And the rest of what is new with the last."""
    async with site(tmp_path) as ucloud:
        id = await ucloud.create()
        stream = ucloud.listen()
        for n in range(5):
            await ucloud.service.update(UCLOUD, id, log=[f"{n}.{i};" for i in range(LINES // 2)])
        await ucloud.post(id, newStatus="s")
        async with heard(stream) as frames:
            pass

    expected = "".join(f"{n}.{i};" for n in range(5) for i in range(LINES // 2))
    assert [(frame["newStatus"], str(frame["messageToAppend"]).count(";")) for frame in frames] == [
        (None, LINES), (None, LINES), ("s", LINES // 2),
    ]  # fmt: skip
    assert "".join(str(frame["messageToAppend"]) for frame in frames) == expected


async def test_a_message_that_is_no_longer_in_memory_is_read_from_the_store(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        ucloud.service.registry.logs.limit = 0
        id = await ucloud.create()
        stream = ucloud.listen()
        await ucloud.post(id, messageToAppend="a")
        await ucloud.post(id, messageToAppend="b")
        async with heard(stream) as frames:
            await quiet()
            await ucloud.post(id, messageToAppend="c")
            await quiet()
            async with ucloud.listening() as late:
                pass

    assert [frame["messageToAppend"] for frame in frames] == ["ab", "c"]
    assert [frame["messageToAppend"] for frame in late] == ["abc"]


async def test_of_a_log_that_was_cut_the_cut_is_told(tmp_path: Path) -> None:
    async with site(tmp_path, log_lines=3) as ucloud:
        ucloud.service.registry.logs.limit = 0
        id = await ucloud.create()
        stream = ucloud.listen()
        for n in range(5):
            await ucloud.post(id, messageToAppend=str(n))
        async with heard(stream) as frames, ucloud.listening() as late:
            pass

    assert [frame["messageToAppend"] for frame in frames] == [f"{CUT}234"]
    assert [frame["messageToAppend"] for frame in late] == [f"{CUT}234"]


# Who comes late.


async def test_who_comes_late_is_told_what_was_posted_before(tmp_path: Path) -> None:
    """V1 told nothing of it. A task that was only just made is told nothing more of: it is in the list."""
    async with site(tmp_path) as ucloud:
        await ucloud.create(title="untouched", status="s")
        first, second = await ucloud.create(title="first"), await ucloud.create(title="second", status="s")
        done = await ucloud.create()
        await ucloud.complete(done)
        await ucloud.post(second, progress=FILES, speeds=[SPEED])
        await ucloud.post(first, newStatus="s1", messageToAppend="one ")
        await ucloud.post(first, messageToAppend="two")
        async with ucloud.listening() as frames, ucloud.listening(BOB) as bobs:
            await quiet()
            assert bobs == []
            await ucloud.post(first, messageToAppend=" three")

    assert frames == [
        update(second, newTitle="second", newStatus="s", progress=FILES, speeds=[SPEED]),
        update(first, newTitle="first", newStatus="s1", messageToAppend="one two"),
        update(first, messageToAppend=" three"),
    ]


async def test_of_a_long_log_who_comes_late_is_told_the_end(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        exact, longer = await ucloud.create(), await ucloud.create()
        await ucloud.post(exact, messageToAppend="a" * TAIL)
        await ucloud.post(longer, messageToAppend="b" + "a" * (TAIL - 2))
        for _ in range(2):  # over more than one look at the log
            await ucloud.service.update(UCLOUD, longer, log=["c"] * (LINES - 10))
        await ucloud.post(longer, messageToAppend="d")
        async with ucloud.listening() as frames:
            pass

    assert [frame["messageToAppend"] for frame in frames] == [
        "a" * TAIL,
        CUT + ("a" * (TAIL - 2) + "c" * 2 * (LINES - 10) + "d")[-TAIL:],
    ]


async def test_what_survives_a_restart_is_told_to_who_comes_then(tmp_path: Path) -> None:
    store = MemoryStore()
    async with site(tmp_path, store=store) as ucloud:
        id = await ucloud.create()
        await ucloud.post(id, newStatus="s", messageToAppend="m", speeds=[SPEED])
    async with site(tmp_path, store=store) as ucloud, ucloud.listening() as frames:
        await ucloud.post(id, speeds=[{**SPEED, "speed": 5.0}])

    assert frames == [
        update(id, newTitle="title", newStatus="s", messageToAppend="m", speeds=[SPEED]),
        update(id, speeds=[{**SPEED, "speed": 5.0}]),
    ]


Story = Callable[[Site], Awaitable[None]]


async def _story(ucloud: Site, *, complete: bool) -> None:
    """Two tasks of Alice's, one of Bob's, and what is posted to them."""
    first = await ucloud.create(title="first")
    await ucloud.post(first, messageToAppend="1 ", speeds=[{**SPEED, "title": "1"}])
    other = await ucloud.create(BOB, "other")
    second = await ucloud.create(title="second", status="s")
    await ucloud.post(first, newStatus="s1", messageToAppend="2 ", speeds=[{**SPEED, "title": "2"}])
    await ucloud.post(other, messageToAppend="not Alice's")
    await ucloud.post(second, progress=FILES, messageToAppend="a ")
    await ucloud.post(
        first, newTitle="t3", messageToAppend="3", speeds=[{**SPEED, "title": "3"}], complete=complete
    )
    await ucloud.post(second, messageToAppend="b", newStatus="s2")


async def _as_stored(ucloud: Site, screen: Screen, *, complete: bool) -> None:
    """What is on the screen is what the daemon has, and each message was told once."""
    first, second = sorted({**screen.rows, **screen.gone}.items(), key=lambda row: len(row[1]["messages"]))[::-1]
    assert set(screen.gone) == ({first[0]} if complete else set())
    assert (first[1]["messages"], second[1]["messages"]) == ("1 2 3", "a b")
    assert first[1]["speeds"] == ["1", "2", "3"]
    assert second[1]["progress"] == FILES
    for id, row in (first, second):
        seen = await ucloud.view(id)
        assert (row.get("title", seen["title"]), row.get("status")) == (seen["title"], seen["status"])


async def _look_and_listen(ucloud: Site, screen: Screen, frames: list[Frame]) -> None:
    stream = ucloud.listen()
    for row in await ucloud.rows():
        screen.rows[row["jobId"]] = {**row, "messages": "", "speeds": []}
    await collect(stream, frames)


@pytest.mark.parametrize("complete", [False, True], ids=["goes on", "is complete"])
async def test_nothing_falls_between_the_list_and_the_frames(tmp_path: Path, complete: bool) -> None:
    """[W07] A listener comes before each step of the posts, and asks for the list after that."""
    at = 0
    while True:
        async with site(tmp_path) as ucloud, trio.open_nursery() as nursery:
            screen, frames = Screen(), list[Frame]()

            arrive = partial(nursery.start_soon, _look_and_listen, ucloud, screen, frames)
            count = await stepped(_story(ucloud, complete=complete), at, arrive)
            await quiet()
            nursery.cancel_scope.cancel()
            for frame in frames:
                screen.add(frame)
            if at >= count:
                break
            known = {**screen.rows, **screen.gone}
            if complete and len(known) == 1:  # it came after the first was complete, and is told nothing of it
                assert [row["messages"] for row in screen.rows.values()] == ["a b"]
            else:
                await _as_stored(ucloud, screen, complete=complete)
        at += 1
    assert at > 20


@pytest.mark.parametrize("complete", [False, True], ids=["goes on", "is complete"])
async def test_whenever_who_lags_reads_again_nothing_is_missing(tmp_path: Path, complete: bool) -> None:
    at = 0
    while True:
        async with site(tmp_path) as ucloud:
            stream, frames, go = ucloud.listen(), list[Frame](), trio.Event()

            async def late(stream: Stream = stream, frames: list[Frame] = frames, go: trio.Event = go) -> None:
                await go.wait()
                await collect(stream, frames)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(late)
                count = await stepped(_story(ucloud, complete=complete), at, go.set)
                go.set()
                await quiet()
                nursery.cancel_scope.cancel()
            screen = Screen()
            for frame in frames:
                screen.add(frame)
            await _as_stored(ucloud, screen, complete=complete)
        if at >= count:
            break
        at += 1
    assert at > 20


@pytest.mark.parametrize("complete", [False, True], ids=["goes on", "is complete"])
async def test_who_comes_back_is_told_what_it_has_missed_and_no_message_twice(
    tmp_path: Path, complete: bool
) -> None:
    """Its connection breaks before each step of the posts; it has the ``rev`` of the last frame that it got."""
    at = 0
    while True:
        async with site(tmp_path) as ucloud:
            frames = list[Frame]()
            async with trio.open_nursery() as nursery:
                scope = trio.CancelScope()

                async def until(frames: list[Frame] = frames, scope: trio.CancelScope = scope) -> None:
                    with scope:
                        await collect(ucloud.listen(since=0), frames)

                nursery.start_soon(until)
                await quiet()
                count = await stepped(_story(ucloud, complete=complete), at, scope.cancel)
                await quiet()
                scope.cancel()
            revisions: list[Any] = [frame["rev"] for frame in frames]
            assert revisions == sorted(revisions)
            if frames:
                async with ucloud.listening(since=revisions[-1]) as rest:
                    pass
                screen = Screen()
                for frame in (*frames, *rest):
                    screen.add(frame)
                for row in (*screen.rows.values(), *screen.gone.values()):
                    row["speeds"] = sorted(set(row["speeds"]))  # of these some may come again
                await _as_stored(ucloud, screen, complete=complete)
        if at >= count:
            break
        at += 1
    assert at > 20


# ``rev`` and ``since``.


async def test_a_revision_is_told_to_those_who_ask_for_it(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        id = await ucloud.create()
        await ucloud.post(id, newStatus="s")
        async with ucloud.listening(since=0) as numbered, ucloud.listening() as plain:
            await ucloud.post(id, newStatus="s2")
            await quiet()
            revision = (await ucloud.service.get(ALICE, id)).revision

    assert [frame["rev"] for frame in numbered] == [revision - 1, revision]
    whole = {"rev": 0, "resync": True}
    assert [{**plain[0], **whole}, {**plain[1], "rev": 0}] == [{**frame, "rev": 0} for frame in numbered]
    assert not any("rev" in frame for frame in plain)


async def test_who_comes_back_to_where_nothing_happened_is_told_nothing(tmp_path: Path) -> None:
    """Also of what had ended before, and is destroyed meanwhile."""
    async with site(tmp_path) as ucloud:
        id, old = await ucloud.create(), await ucloud.create()
        await ucloud.complete(old)
        await ucloud.post(id, messageToAppend="a")
        await quiet()
        since = ucloud.service.registry.feed.revision
        await ucloud.service.destroy(ALICE, old)
        async with ucloud.listening(since=since) as frames:
            await quiet()
            assert frames == []
            await ucloud.post(id, messageToAppend="b")

    assert [frame["messageToAppend"] for frame in frames] == ["b"]


async def test_who_comes_back_learns_of_what_ended_and_is_gone(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        id = await ucloud.create()
        since = ucloud.service.registry.feed.revision
        await ucloud.complete(id)
        await quiet()
        await ucloud.service.destroy(ALICE, id)
        async with ucloud.listening(since=since) as frames:
            pass

    assert [(frame["jobId"], frame["complete"]) for frame in frames] == [(id, True)]


@pytest.mark.parametrize("since", [0, 10**15])
async def test_a_revision_that_is_not_covered_begins_anew(tmp_path: Path, since: int) -> None:
    async with site(tmp_path) as ucloud:
        ucloud.service.registry.feed.limit = 1
        id = await ucloud.create()
        await ucloud.post(id, newStatus="s", messageToAppend="m")
        await ucloud.create(BOB)
        async with ucloud.listening(since=since) as frames:
            pass

    assert [{**frame, "rev": 0} for frame in frames] == [
        {**update(id, newTitle="title", newStatus="s", messageToAppend="m"), "rev": 0, "resync": True}
    ]


@pytest.mark.parametrize("payload", [{"since": "1"}, {"since": True}, {"since": 1.5}, {"since": -1}, [], None])
async def test_a_payload_that_cannot_be_read_is_refused(tmp_path: Path, payload: JSON) -> None:
    async with site(tmp_path) as ucloud:
        with pytest.raises(InvalidRequest):
            listen(ucloud.service, ALICE, payload)


async def test_a_service_does_not_listen(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        with pytest.raises(PermissionDenied):
            listen(ucloud.service, UCLOUD, {})


# When more has happened than the feed keeps.


async def test_who_lags_too_far_is_told_what_is_now(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        ucloud.service.registry.feed.limit = 2
        goes_on, ended, still = [await ucloud.create(title=title) for title in ("goes on", "ended", "still")]
        destroyed = await ucloud.create(title="destroyed")
        stream = ucloud.listen()
        await ucloud.post(goes_on, newStatus="s1", messageToAppend="1 ")
        await ucloud.post(goes_on, messageToAppend="2")
        await ucloud.post(ended, newStatus="done", messageToAppend="bye", complete=True)
        await ucloud.complete(destroyed)
        made = await ucloud.create(title="made")
        await quiet()
        await ucloud.service.destroy(ALICE, destroyed)
        for _ in range(3):
            await ucloud.create(BOB)
        async with heard(stream) as frames:
            await quiet()
            await ucloud.post(still, messageToAppend="x")

    assert frames == [
        update(goes_on, newStatus="s1", messageToAppend="1 2"),
        update(ended, newStatus="done", messageToAppend="bye", complete=True),
        update(made, newTitle="made"),
        update(destroyed, complete=True),
        update(still, messageToAppend="x"),
    ]


async def test_who_lags_too_far_is_told_of_what_was_made_and_ended_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not of what had ended before, nor of Bob's."""
    monkeypatch.setattr(follow, "PAGE", 2)
    async with site(tmp_path) as ucloud:
        ucloud.service.registry.feed.limit = 2
        await ucloud.complete(await ucloud.create(title="old"))
        still, ends = await ucloud.create(title="still"), await ucloud.create(title="ends")
        stream = ucloud.listen()
        short = [await ucloud.create(title=title) for title in "abc"]
        await ucloud.complete(ends)
        for id in short:
            await ucloud.post(id, newStatus="done", messageToAppend="bye", complete=True)
        for _ in range(3):
            await ucloud.complete(await ucloud.create(BOB))
        async with heard(stream) as frames:
            await quiet()
            await ucloud.post(still, messageToAppend="x")

    said = {"newStatus": "done", "messageToAppend": "bye", "complete": True}
    assert frames == [
        *(update(id, newTitle=title, **said) for id, title in zip(short, "abc", strict=True)),
        update(ends, complete=True),
        update(still, messageToAppend="x"),
    ]


@pytest.mark.parametrize("complete", [False, True], ids=["goes on", "is complete"])
async def test_nothing_is_lost_however_little_the_feed_keeps(tmp_path: Path, complete: bool) -> None:
    for at in range(0, 60, 7):
        async with site(tmp_path) as ucloud:
            ucloud.service.registry.feed.limit = 1
            stream, frames, go = ucloud.listen(), list[Frame](), trio.Event()

            async def late(stream: Stream = stream, frames: list[Frame] = frames, go: trio.Event = go) -> None:
                await go.wait()
                await collect(stream, frames)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(late)
                await stepped(_story(ucloud, complete=complete), at, go.set)
                go.set()
                await quiet()
                nursery.cancel_scope.cancel()
            screen = Screen()
            for frame in frames:
                screen.add(frame)
            await _as_stored(ucloud, screen, complete=complete)


# What taskd runs itself, and what others ask of a task.


async def test_of_what_taskd_runs_only_what_is_seen_is_told(tmp_path: Path) -> None:
    """A journal entry, a state between, is none of it."""
    go = trio.Event()

    async def run(params: object, handle: Handle) -> JSON:
        await handle.journal("undo")
        handle.progress(2**30, 2**33)
        await handle.log("a line")
        await go.wait()
        handle.progress(2**30 + 1, 2**33)  # no whole MiB more
        await handle.journal("undo")
        return None

    kind = attrs.evolve(Gates().operation(copy.OPERATION), run=run, verbs={"undo": quiet})
    async with site(tmp_path, kind) as ucloud, ucloud.listening() as frames:
        task = await ucloud.service.start(
            ROOT, "copy", {"source": "/s", "target": "/t"}, label="a copy", owner=ALICE.user
        )
        await quiet()
        before = len(frames)
        go.set()
        await quiet()

    screen = Screen()
    for frame in frames:
        screen.add(frame)
    mib = {"title": "MiB", "current": 8192, "maximum": 8192}
    assert screen.gone == {task.id: {"title": "a copy", "messages": "a line\n", "speeds": [], "progress": mib}}
    assert {**mib, "current": 1024} in [frame["progress"] for frame in frames]
    assert all(frame != unchanged(task.id) for frame in frames)
    assert frames[before:] == [update(task.id, progress=mib, complete=True)]


@pytest.mark.parametrize("end", [State.FAILED, State.CANCELLED])
async def test_how_a_task_ended_is_told_with_its_end(tmp_path: Path, end: State) -> None:
    async with site(tmp_path) as ucloud:
        id = await ucloud.create(status="going well")
        async with ucloud.listening() as frames:
            await ucloud.service.update(UCLOUD, id, end=End(end, error=Failure("CODE", "no more paper")))

    status = "Cancelled" if end is State.CANCELLED else "Failed: no more paper"
    assert frames == [update(id, newStatus=status, complete=True)]


async def test_what_a_user_asks_for_is_no_post_of_the_producers(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        id = await ucloud.create()
        async with ucloud.listening() as frames:
            await ucloud.service.cancel(ALICE, id)
            await quiet()
            await ucloud.service.annotate(ALICE, id, lambda notes: {"folder": "x"})
            await quiet()
            await ucloud.service.destroy_when_ended(ALICE, id)
            await quiet()
            ucloud.service.registry.touch(await ucloud.service.get(ALICE, id))
            await quiet()
            assert frames == []
            await ucloud.post(id)
            await quiet()
            await ucloud.complete(id)

    assert frames == [unchanged(id), update(id, complete=True)]


async def test_a_task_that_was_made_elsewhere_is_told_too(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud, ucloud.listening() as frames:
        task = await ucloud.service.start(ALICE, "external", {}, label="mine")
        await quiet()
        await ucloud.service.update(ALICE, task.id, progress=Report(fraction=0.25))

    percent = {"title": "%", "current": 25, "maximum": 100}
    assert frames == [update(task.id, newTitle="mine"), update(task.id, progress=percent)]


async def test_a_listener_that_goes_leaves_nothing_behind(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        async with ucloud.listening():
            pass
        stream = ucloud.listen()
        await stream.aclose()  # before it has begun
        assert not ucloud.service.registry.feed._bells


async def test_a_listener_waits_for_its_own_user_only(tmp_path: Path) -> None:
    """What happens to others does not even wake it."""
    woken = 0

    class Counting(trio.abc.Instrument):
        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            nonlocal woken
            woken += task.name.endswith("collect")

    async with site(tmp_path) as ucloud, ucloud.listening(ALICE):
        id = await ucloud.create(BOB)
        instrument = Counting()
        trio.lowlevel.add_instrument(instrument)
        for _ in range(10):
            await ucloud.post(id, newStatus="s")
        await quiet()
        trio.lowlevel.remove_instrument(instrument)

    assert woken == 0


async def test_posts_that_come_at_once_are_all_told(tmp_path: Path) -> None:
    callers: list[Caller] = [UCLOUD]
    async with site(tmp_path) as ucloud:
        ids = [await ucloud.create(title=str(n)) for n in range(5)]
        async with ucloud.listening() as frames:
            async with trio.open_nursery() as nursery:
                for n in range(8):
                    for id in ids:
                        nursery.start_soon(partial(ucloud.post, id, messageToAppend=f"{n} "))
            await quiet()
        screen = Screen()
        for frame in frames:
            screen.add(frame)
        logs = [await ucloud.service.log(callers[0], id) for id in ids]

    assert [screen.rows[id]["messages"] for id in ids] == ["".join(line.line for line in log) for log in logs]
    assert all(len(log) == 8 for log in logs)
    assert isinstance(copy.OPERATION, Operation)
