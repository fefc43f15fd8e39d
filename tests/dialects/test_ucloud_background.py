"""UCloud's second generation: the same tasks by number, a state of their own, and a cancel that is a request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from taskd.dialects import Reply
from taskd.dialects.ucloud import STREAMS, background, call
from taskd.errors import InvalidRequest, PermissionDenied
from taskd.model import JSON, Caller
from taskd.operations import copy
from taskd.service import Report
from taskd.states import State
from taskd.store.sqlite import SqliteStore
from tests.bench import ROOT
from tests.dialects.client import Gates
from tests.dialects.cloud import (
    ALICE,
    BOB,
    OTHER,
    Site,
    Stream,
    heard,
    quiet,
    service_of,
    site,
)

P1, P2 = service_of("p1"), service_of("p2")

NOT_FOUND = Reply(404, {"why": "Not Found", "errorCode": None})


async def create(ucloud: Site, **said: JSON) -> int:
    made = await ucloud.said(P1, "POST /api/tasks", {"user": ALICE.user, **said})
    assert isinstance(made["taskId"], int)
    return made["taskId"]


async def post(ucloud: Site, id: int, caller: Caller = P1, /, **status: JSON) -> Reply:
    nothing: Mapping[str, JSON] = dict.fromkeys(("state", "title", "body", "progress", "progressPercentage"))
    update = {"taskId": id, "modifiedAt": 0, "newStatus": {**nothing, **status}}
    return await ucloud.ask(caller, "POST /api/tasks/postStatus", {"update": update})


async def seen(ucloud: Site, id: int, caller: Caller = ALICE) -> Any:
    return await ucloud.said(caller, f"GET /api/tasks/retrieve?id={id}")


async def test_a_background_task_has_its_shape(tmp_path: Path) -> None:
    said = {"title": "t", "body": "b", "progress": "p", "canPause": False, "canCancel": True, "icon": "heroTrash"}
    async with site(tmp_path) as ucloud:
        made = await ucloud.said(P1, "POST /api/tasks", {"user": ALICE.user, **said})
        task = await ucloud.service.numbered(ALICE, made["taskId"])
        assert await seen(ucloud, made["taskId"]) == made

    created = round(task.created_at * 1000)
    assert made == {
        "taskId": task.seq,
        "createdAt": created,
        "modifiedAt": created,
        "createdBy": "User#1234",
        "provider": "p1",
        "status": {"state": "IN_QUEUE", "title": "t", "body": "b", "progress": "p", "progressPercentage": -1.0},
        "specification": {"canPause": False, "canCancel": True},
        "icon": "heroTrash",
    }
    assert (task.operation, task.label, task.status) == ("external", "t", "b")


async def test_what_is_left_out_has_the_originals_defaults(tmp_path: Path) -> None:
    nothing: dict[str, JSON] = dict.fromkeys(("title", "body", "progress", "canPause", "canCancel", "icon"))
    async with site(tmp_path) as ucloud:
        first, second = [await seen(ucloud, await create(ucloud, **said)) for said in ({}, nothing)]

    assert first["status"] == {
        "state": "IN_QUEUE",
        "title": "Background task",
        "body": None,
        "progress": "Accepted",
        "progressPercentage": -1.0,
    }
    assert (first["specification"], first["icon"]) == ({"canPause": False, "canCancel": False}, None)
    assert (second["status"], second["specification"]) == (first["status"], first["specification"])


async def test_a_task_is_seen_by_its_owner_and_its_provider(tmp_path: Path) -> None:
    """[B01] By the id's form the same path is V1's or V2's."""
    async with site(tmp_path) as ucloud:
        id = await create(ucloud)
        alices = await seen(ucloud, id)
        assert (alices["createdBy"], alices["provider"]) == (ALICE.user, "p1")
        assert await seen(ucloud, id, P1) == await ucloud.said(ALICE, f"GET /api/tasks/{id}") == alices
        for caller in (BOB, P2, ROOT):
            assert await ucloud.ask(caller, f"GET /api/tasks/retrieve?id={id}") == NOT_FOUND
        uuid = (await ucloud.service.numbered(ALICE, id)).id
        assert (await ucloud.view(uuid))["jobId"] == uuid


@pytest.mark.parametrize("id", ["0", "2", str(2**63 - 1), str(2**63), "9" * 40, "9" * 4000])
async def test_a_number_that_is_no_task_is_not_found(tmp_path: Path, id: str) -> None:
    async with site(tmp_path) as ucloud:
        await create(ucloud)
        assert await ucloud.ask(ALICE, f"GET /api/tasks/retrieve?id={id}") == NOT_FOUND
        if len(id) < 20:  # JSON has no longer integer
            assert await post(ucloud, int(id)) == NOT_FOUND
            assert await ucloud.ask(P1, "POST /api/tasks/markAsComplete", {"id": int(id)}) == NOT_FOUND
            body = {"id": int(id), "requestedState": "CANCELLED"}
            assert await ucloud.ask(ALICE, "POST /api/tasks/pauseOrCancel", body) == NOT_FOUND


async def test_a_listener_is_told_the_whole_task_at_each_change(tmp_path: Path) -> None:
    """[B03]"""
    async with site(tmp_path) as ucloud, heard(whole(ucloud)) as frames:
        id = await create(ucloud)
        await quiet()
        said: dict[str, JSON] = {
            "title": "Working",
            "body": "Halfway",
            "progress": "50%",
            "progressPercentage": 50.0,
        }
        assert await post(ucloud, id, P1, state="RUNNING", **said) == Reply(200, {})
        await quiet()
        assert await post(ucloud, id, P2, state="SUCCESS") == NOT_FOUND
        now = await seen(ucloud, id)

    assert [frame["status"] for frame in frames] == [
        {"state": "IN_QUEUE", "title": "Background task", "body": None, "progress": "Accepted",
         "progressPercentage": -1.0},
        {"state": "RUNNING", **said},
    ]  # fmt: skip
    assert frames[1] == now


@pytest.mark.parametrize("payload", [{}, {"since": 0}])
async def test_who_lags_too_far_is_told_of_what_was_made_and_ended_meanwhile(
    tmp_path: Path, payload: JSON
) -> None:
    async with site(tmp_path) as ucloud:
        ucloud.service.registry.feed.limit = 2
        stream = whole(ucloud, payload=payload)
        id, start = await create(ucloud), ucloud.service.registry.feed.revision
        await post(ucloud, id, P1, state="SUCCESS")
        for _ in range(3):
            await ucloud.create(BOB)
        async with heard(stream) as frames:
            other = await create(ucloud)
        ended = await seen(ucloud, id)

    assert frames[0] == ({**ended, "rev": start - 1} if payload else ended)
    assert [frame["taskId"] for frame in frames] == [int(id), int(other)]


def whole(ucloud: Site, caller: Caller = ALICE, payload: JSON = None) -> Stream:
    return STREAMS["tasks.listen"](ucloud.service, caller, payload or {})


async def test_null_leaves_what_was_told(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        id = await create(ucloud, title="t", body="b", progress="p", icon="i", canCancel=True)
        await post(ucloud, id)
        assert (await seen(ucloud, id))["status"]["state"] == "IN_QUEUE"
        await post(ucloud, id, state="RUNNING", progressPercentage=25.5)
        before = await seen(ucloud, id)
        await post(ucloud, id)
        after = await seen(ucloud, id)
        await post(ucloud, id, title="", body="", progress="")
        emptied = await seen(ucloud, id)

    assert {**after, "modifiedAt": 0} == {**before, "modifiedAt": 0}
    assert after["status"] == {
        "state": "RUNNING", "title": "t", "body": "b", "progress": "p", "progressPercentage": 25.5,
    }  # fmt: skip
    assert emptied["status"] == {**after["status"], "title": "", "body": "", "progress": ""}


async def test_a_status_is_one_durable_change(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        id = await create(ucloud)
        before = ucloud.service.registry.revision
        await post(ucloud, id, state="SUCCESS", title="t", body="b", progress="p", progressPercentage=99.0)

        assert ucloud.service.registry.revision == before + 1


@pytest.mark.parametrize("state", ["IN_QUEUE", "SUSPENDED", "RUNNING"])
async def test_a_task_under_way_is_what_its_producer_says(tmp_path: Path, state: str) -> None:
    async with site(tmp_path) as ucloud:
        id = await create(ucloud)
        await post(ucloud, id, state="RUNNING")
        await post(ucloud, id, state=state)
        await ucloud.service.cancel(ALICE, (await ucloud.service.numbered(ALICE, id)).id)
        await post(ucloud, id, progress="still")
        assert (await seen(ucloud, id))["status"]["state"] == state


@pytest.mark.parametrize(
    ("state", "ours", "v1"),
    [
        ("SUCCESS", State.COMPLETED, "b"),
        ("FAILURE", State.FAILED, "Failed: b"),
        ("CANCELLED", State.CANCELLED, "Cancelled"),
    ],
)
@pytest.mark.parametrize("asked", [False, True], ids=["unasked", "after a cancel"])
async def test_an_end_is_what_its_producer_says_and_stays(
    tmp_path: Path, state: str, ours: State, v1: str, asked: bool
) -> None:
    """[B09] (R9) A failure is one although a cancel was asked for."""
    async with site(tmp_path) as ucloud:
        id = await create(ucloud, canCancel=True)
        uuid = (await ucloud.service.numbered(ALICE, id)).id
        cancel = {"id": id, "requestedState": "CANCELLED"}
        if asked:
            assert await ucloud.ask(ALICE, "POST /api/tasks/pauseOrCancel", cancel) == Reply(200, {})
            assert (await ucloud.service.get(P1, uuid)).cancel_requested  # which the producer can see
            assert (await seen(ucloud, id))["status"]["state"] == "IN_QUEUE"
        await post(ucloud, id, state=state, body="b", progress="p", progressPercentage=40)
        await quiet()
        ended = await seen(ucloud, id)
        assert (await ucloud.service.get(ALICE, uuid)).state is ours
        assert (await ucloud.view(uuid))["status"] == v1
        assert (await post(ucloud, id, state="RUNNING")).status == 409
        for requested in ("CANCELLED", "SUSPENDED"):
            body = {"id": id, "requestedState": requested}
            assert await ucloud.ask(ALICE, "POST /api/tasks/pauseOrCancel", body) == Reply(200, {})
        assert await ucloud.ask(P1, "POST /api/tasks/markAsComplete", {"id": id}) == Reply(200, {})
        assert await seen(ucloud, id) == ended

    percentage = 100.0 if state == "SUCCESS" else 40.0
    assert ended["status"] == {
        "state": state, "title": "Background task", "body": "b", "progress": "p", "progressPercentage": percentage,
    }  # fmt: skip


async def test_mark_as_complete_is_success(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        id = await create(ucloud)
        assert await ucloud.ask(P2, "POST /api/tasks/markAsComplete", {"id": id}) == NOT_FOUND
        assert await ucloud.ask(P1, "POST /api/tasks/markAsComplete", {"id": id}) == Reply(200, {})
        status = (await seen(ucloud, id))["status"]

    assert (status["state"], status["progressPercentage"]) == ("SUCCESS", 100.0)


async def test_a_failure_without_words_has_some(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        id = await create(ucloud)
        await post(ucloud, id, state="FAILURE")
        assert (await seen(ucloud, id))["status"]["body"] == "its producer has failed"


@pytest.mark.parametrize(
    ("told", "shown", "fraction"),
    [
        (50, 50.0, 0.5),
        (33.3, 33.3, 0.333),
        (7, 7.0, 0.07),
        (-1, -1.0, 0.0),
        (-7, -1.0, 0.0),
        (0, 0.0, 0.0),
        (250, 100.0, 1.0),
    ],
)
async def test_a_percentage_is_a_progress_too(tmp_path: Path, told: float, shown: float, fraction: float) -> None:
    async with site(tmp_path) as ucloud:
        id = await create(ucloud)
        await post(ucloud, id, progressPercentage=told)
        status = (await seen(ucloud, id))["status"]
        task = await ucloud.service.numbered(ALICE, id)

    assert status["progressPercentage"] == shown
    assert task.progress.fraction == pytest.approx(fraction)


async def test_a_percentage_does_not_stay_behind_what_others_report(tmp_path: Path) -> None:
    """Nor goes it back, but to not being known."""
    async with site(tmp_path) as ucloud:
        id = await create(ucloud)
        uuid = (await ucloud.service.numbered(ALICE, id)).id
        shown = []
        for told in (50.0, 20.0, None, -1.0):
            if told is None:
                await ucloud.service.update(P1, uuid, progress=Report(fraction=0.75))
            else:
                await post(ucloud, id, progressPercentage=told)
            shown.append((await seen(ucloud, id))["status"]["progressPercentage"])

    assert shown == [50.0, 50.0, 75.0, -1.0]


async def test_notes_that_others_wrote_do_no_harm(tmp_path: Path) -> None:
    """They may write whatever they like, also under our names."""
    async with site(tmp_path) as ucloud:
        id = await create(ucloud)
        uuid = (await ucloud.service.numbered(ALICE, id)).id
        for percentage in ("x", "nan", "inf", "1e999", ""):
            wild = {"ucloud.state": "SUCCESS", "ucloud.progressPercentage": percentage}

            def annotate(_: object, wild: dict[str, str] = wild) -> dict[str, str]:
                return wild

            await ucloud.service.annotate(ALICE, uuid, annotate)
            status = (await seen(ucloud, id))["status"]
            assert (status["state"], status["progressPercentage"]) == ("RUNNING", -1.0)


async def test_what_taskd_runs_is_in_the_state_that_it_is_in(tmp_path: Path) -> None:
    async with site(tmp_path, Gates().operation(copy.OPERATION)) as ucloud:
        params = {"source": "/s", "target": "/t"}
        task = await ucloud.service.start(ROOT, "copy", params, owner=ALICE.user)
        await quiet()
        await ucloud.service.annotate(ALICE, task.id, lambda _: {"ucloud.state": "SUSPENDED"})
        assert (await seen(ucloud, task.seq))["status"]["state"] == "RUNNING"


async def test_only_its_producer_posts_to_a_task(tmp_path: Path) -> None:
    """Not its owner, whatever roles that has."""
    async with site(tmp_path) as ucloud:
        id = (await ucloud.said(P1, "POST /api/tasks", {"user": P2.user}))["taskId"]
        assert await post(ucloud, id, P2, title="mine") == NOT_FOUND
        assert await ucloud.ask(P2, "POST /api/tasks/markAsComplete", {"id": id}) == NOT_FOUND
        assert (await seen(ucloud, id, P1))["status"]["title"] == "Background task"


async def test_a_sign_of_life_is_told(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        id = await create(ucloud)
        async with heard(whole(ucloud)) as frames:
            await post(ucloud, id)
            await quiet()
            await ucloud.service.cancel(ALICE, (await ucloud.service.numbered(ALICE, id)).id)

    assert [frame["taskId"] for frame in frames] == [id]


async def test_numbers_that_no_store_could_keep_are_no_tasks(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "taskd.sqlite")
    async with site(tmp_path, store=store) as ucloud:
        id = await create(ucloud)
        assert (await seen(ucloud, id))["taskId"] == id
        for wrong in (0, id + 1, 2**63 - 1, 2**63, 2**64):
            assert await ucloud.ask(ALICE, f"GET /api/tasks/retrieve?id={wrong}") == NOT_FOUND
    await store.close()


async def test_pages_go_from_the_newest_to_the_oldest(tmp_path: Path) -> None:
    """[B05] Also what has ended, and each task once, whatever comes meanwhile."""
    async with site(tmp_path) as ucloud:
        ids = [await create(ucloud, title=f"t{n}") for n in range(5)]
        await ucloud.said(P1, "POST /api/tasks", {"user": BOB.user, "title": "Bob's"})
        await post(ucloud, ids[1], state="SUCCESS")
        await quiet()
        titles, nexts, query = [], [], ""
        for _ in range(3):
            page = await ucloud.said(ALICE, f"GET /api/tasks/browse?itemsPerPage=2{query}")
            assert list(page) == ["itemsPerPage", "items", "next"]
            titles.append([item["status"]["title"] for item in page["items"]])
            nexts.append(page["next"])
            query = f"&next={page['next']}"
            await create(ucloud, title="new")

    assert titles == [["t4", "t3"], ["t2", "t1"], ["t0"]]
    assert [isinstance(each, str) for each in nexts] == [True, True, False]
    assert nexts[2] is None


async def test_an_admin_browses_their_own_too(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        await create(ucloud)
        assert (await ucloud.said(ROOT, "GET /api/tasks/browse"))["items"] == []


@pytest.mark.parametrize(
    ("query", "size"),
    [("", 50), ("itemsPerPage=0", 50), ("itemsPerPage=-3", 50), ("itemsPerPage=7", 7), ("itemsPerPage=1000", 1000),
     ("itemsPerPage=1001", 1000), ("itemsPerPage=3&next=", 3), ("itemsPerPage=5&itemsToSkip=9&consistency=x", 5)],
)  # fmt: skip
async def test_a_page_has_the_size_that_is_asked_for(tmp_path: Path, query: str, size: int) -> None:
    async with site(tmp_path) as ucloud:
        ids = [await create(ucloud) for _ in range(2)]
        page = await ucloud.said(ALICE, f"GET /api/tasks/browse?{query}")

    assert page["itemsPerPage"] == size
    assert [item["taskId"] for item in page["items"]] == ids[::-1]


@pytest.mark.parametrize("query", ["next=garbage", "next=-1", "next=1.5", "next=²", "next=" + "9" * 19])
async def test_a_next_that_is_none_is_refused(tmp_path: Path, query: str) -> None:
    """[B07] V3 began again from the first page, for ever."""
    async with site(tmp_path) as ucloud:
        reply: Any = await ucloud.ask(ALICE, f"GET /api/tasks/browse?{query}")

    assert (reply.status, reply.body["why"]) == (400, "next: is no next of a page before")


async def test_who_may_ask_for_a_cancel(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        id = (await ucloud.said(ROOT, "POST /api/tasks", {"user": ALICE.user, "canCancel": True}))["taskId"]
        body = {"id": id, "requestedState": "CANCELLED"}
        for caller in (BOB, ROOT):  # nor its producer
            assert await ucloud.ask(caller, "POST /api/tasks/pauseOrCancel", body) == NOT_FOUND
        assert not (await ucloud.service.numbered(ALICE, id)).cancel_requested


@pytest.mark.parametrize("route", ["V1", "V2"])
async def test_what_cannot_be_cancelled_or_paused_says_so(tmp_path: Path, route: str) -> None:
    async with site(tmp_path) as ucloud:
        if route == "V2":
            id = await create(ucloud, canCancel=False, canPause=True)
        else:
            id = (await ucloud.service.get(ALICE, await ucloud.create())).seq
        replies: list[Any] = [
            await ucloud.ask(ALICE, "POST /api/tasks/pauseOrCancel", {"id": id, "requestedState": state})
            for state in ("CANCELLED", "SUSPENDED", "RUNNING")
        ]
        assert not (await ucloud.service.numbered(ALICE, id)).cancel_requested

    assert [reply.status for reply in replies] == [400] * 3
    assert [reply.body["why"] for reply in replies] == [
        "Task cannot be cancelled", "Task cannot be paused", "Task cannot be paused",
    ]  # fmt: skip


async def test_what_taskd_runs_is_cancelled_for_its_owner(tmp_path: Path) -> None:
    gates = Gates()
    async with (
        site(tmp_path, gates.operation(copy.OPERATION), running_tasks=1) as ucloud,
        heard(whole(ucloud)) as frames,
    ):
        ids = []
        for n in range(2):
            params = {"source": "/s", "target": f"/t{n}"}
            ids.append((await ucloud.service.start(ROOT, "copy", params, owner=ALICE.user)).seq)
        await quiet()
        states = [(await seen(ucloud, id))["status"]["state"] for id in ids]
        running = await seen(ucloud, ids[0])
        body = {"id": ids[0], "requestedState": "CANCELLED"}
        assert await ucloud.ask(ALICE, "POST /api/tasks/pauseOrCancel", body) == Reply(200, {})
        gates.undo.set()
        await quiet()
        ended = await seen(ucloud, ids[0])
        assert (await post(ucloud, ids[1], OTHER)) == NOT_FOUND

    assert states == ["RUNNING", "IN_QUEUE"]
    assert running["specification"] == {"canPause": False, "canCancel": True}
    assert (running["provider"], running["status"]["progress"]) == ("taskd:", "1 of 2 bytes")
    assert running["status"]["progressPercentage"] == 50.0
    assert (ended["status"]["state"], ended["status"]["body"]) == ("CANCELLED", None)
    told = [frame["status"] for frame in frames if frame["taskId"] == ids[0]]
    assert told[-1] == ended["status"]
    assert all(before != after for before, after in pairwise(told))


async def test_a_failure_of_what_taskd_runs_is_its_body(tmp_path: Path) -> None:
    gates = Gates(fails=True)
    gates.work.set()
    gates.undo.set()
    async with site(tmp_path, gates.operation(copy.OPERATION)) as ucloud:
        params = {"source": "/s", "target": "/t"}
        task = await ucloud.service.start(ROOT, "copy", params, owner=ALICE.user)
        await ucloud.service.wait(ALICE, task.id)
        status = (await seen(ucloud, task.seq))["status"]

    assert (status["state"], status["body"]) == (
        "FAILURE",
        "/the/target exists; with overwrite=true it is replaced",
    )


async def test_who_comes_late_is_told_what_has_been_posted_to(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        posted, untouched, done = [await create(ucloud, title=str(n)) for n in range(3)]
        await post(ucloud, posted, body="b")
        await post(ucloud, done, state="SUCCESS")
        async with heard(whole(ucloud)) as frames, heard(whole(ucloud, payload={"since": 0})) as numbered:
            await quiet()
            await post(ucloud, untouched, body="b")
            await ucloud.service.annotate(ALICE, (await ucloud.service.numbered(ALICE, posted)).id, lambda _: {})
            await quiet()
        expected = [await seen(ucloud, id) for id in (posted, untouched)]

    assert [frame["taskId"] for frame in frames] == [posted, untouched, posted]  # the notes were told ones, too
    assert frames[1:] == expected[::-1]
    assert [{**frame, "rev": 0} for frame in numbered] == [{**frame, "rev": 0} for frame in frames]
    revisions: list[Any] = [frame["rev"] for frame in numbered]
    assert revisions == sorted(set(revisions))


async def test_a_revision_that_is_not_covered_tells_what_has_ended_too(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        goes, done, old = [await create(ucloud, title=str(n)) for n in range(3)]
        await post(ucloud, old, state="SUCCESS")
        since = ucloud.service.registry.feed.revision
        await post(ucloud, goes, body="b")
        await post(ucloud, done, state="SUCCESS")
        ucloud.service.registry.feed.limit = 1
        await create(ucloud, user=BOB.user)
        async with heard(whole(ucloud, payload={"since": since})) as frames:
            await quiet()
        expected = [await seen(ucloud, id) for id in (done, goes)]

    assert [{**frame, "rev": 0} for frame in frames] == [{**task, "rev": 0, "resync": True} for task in expected]


async def test_who_lags_is_told_the_newest(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        id = await create(ucloud)
        stream = whole(ucloud)
        for n in range(3):
            await post(ucloud, id, body=str(n))
        async with aclosing(stream):
            assert await anext(stream) == await seen(ucloud, id)


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("POST /api/tasks", {}),
        ("POST /api/tasks", {"user": 1}),
        ("POST /api/tasks", {"user": "a", "canCancel": "true"}),
        ("POST /api/tasks/postStatus", {"update": {"taskId": 1}}),
        ("POST /api/tasks/postStatus", {"update": {"taskId": "1", "newStatus": {}}}),
        ("POST /api/tasks/postStatus", {"update": {"taskId": 1, "newStatus": {"state": "DONE"}}}),
        ("POST /api/tasks/postStatus", {"update": {"taskId": 1, "newStatus": {"progressPercentage": "5"}}}),
        ("POST /api/tasks/markAsComplete", {"id": 1.0}),
        ("POST /api/tasks/pauseOrCancel", {"id": 1}),
        ("POST /api/tasks/pauseOrCancel", {"id": 1, "requestedState": "GONE"}),
        ("POST /api/tasks/pauseOrCancel", {"id": "1", "requestedState": "CANCELLED"}),
        ("GET /api/tasks/browse?itemsPerPage=x", None),
    ],
)
async def test_what_cannot_be_read_is_refused(tmp_path: Path, route: str, body: JSON) -> None:
    async with site(tmp_path) as ucloud:
        reply: Any = await ucloud.ask(ROOT, route, body)
        assert reply.status == 400
        assert reply.body["why"].startswith("Invalid request received (wrong type): ")


@pytest.mark.parametrize(
    ("field", "said"),
    [("user", {"user": ""}), ("title", {"title": "x" * 5000}), ("body", {"body": "x" * 5000}),
     ("annotations", {"progress": "x" * 70_000})],
)  # fmt: skip
async def test_a_text_that_does_not_fit_is_named(tmp_path: Path, field: str, said: dict[str, JSON]) -> None:
    async with site(tmp_path) as ucloud:
        reply: Any = await ucloud.ask(P1, "POST /api/tasks", {"user": ALICE.user, **said})
        id = await create(ucloud)
        posted: Any = await post(ucloud, id, P1, **said)

    assert reply.status == 400
    assert reply.body["why"].startswith(f"{field}: ")
    if field in ("title", "body"):
        assert posted.body["why"].startswith(f"update.newStatus.{field}: ")


async def test_its_calls_have_names_of_their_own(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        made: Any = await call(ucloud.service, P1, "tasks.create", {"user": ALICE.user})
        id = made.body["taskId"]
        assert await call(ucloud.service, ALICE, "tasks.retrieve", {"id": id}) == made
        said = {"update": {"taskId": id, "newStatus": {"state": "RUNNING"}}}
        assert await call(ucloud.service, P1, "tasks.postStatus", said) == Reply(200, {})
        page: Any = await call(ucloud.service, ALICE, "tasks.browse", {"itemsPerPage": 10})
        assert [item["status"]["state"] for item in page.body["items"]] == ["RUNNING"]
        ask = {"id": id, "requestedState": "SUSPENDED"}
        assert (await call(ucloud.service, ALICE, "tasks.pauseOrCancel", ask)).status == 400
        assert await call(ucloud.service, P1, "tasks.markAsComplete", {"id": id}) == Reply(200, {})
        with pytest.raises(PermissionDenied):
            background.listen(ucloud.service, P1, {})
        with pytest.raises(InvalidRequest):
            background.listen(ucloud.service, ALICE, {"since": "x"})


async def test_a_page_ends_early_where_its_tasks_are_long(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        for n in range(40):
            said = {"user": ALICE.user, "title": str(n), "progress": "p" * 50_000 + "\0" * 1000}
            await ucloud.said(P1, "POST /api/tasks", said)
        titles: list[str] = []
        following: str | None = ""
        pages = 0
        while following is not None:
            page = await ucloud.said(ALICE, f"GET /api/tasks/browse?itemsPerPage=1000&next={following}")
            titles += [task["status"]["title"] for task in page["items"]]
            following, pages = page["next"], pages + 1
            assert len(json.dumps(page)) < 2**20 + 10_000

    assert titles == [str(n) for n in reversed(range(40))]
    assert pages == 3
