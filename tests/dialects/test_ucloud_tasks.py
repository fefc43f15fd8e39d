"""UCloud's first generation over HTTP: the documented example, and what its real services got wrong.

The names in brackets are those of the conformance vectors that a test is made from.
"""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from taskd.access import CALLS
from taskd.dialects import Asked, Reply
from taskd.dialects.ucloud import FACE
from taskd.dialects.ucloud.models import progress_of
from taskd.dialects.ucloud.roles import hidden
from taskd.errors import (
    DoesNotExist,
    InternalError,
    NotExternal,
    PermissionDenied,
    Refusal,
    StoreUnavailable,
    TooManyTasks,
)
from taskd.model import JSON, Caller, Progress, Task, Time
from taskd.operations import copy
from taskd.service import End, Live, Report
from taskd.states import State
from taskd.store.memory import MemoryStore
from tests.bench import ROOT
from tests.dialects.client import Gates
from tests.dialects.cloud import ALICE, BOB, OTHER, UCLOUD, quiet, site, unchanged
from tests.test_runner import FullStore

NOT_FOUND = Reply(404, {"why": "Not Found", "errorCode": None})
FORBIDDEN = Reply(403, {"why": "Forbidden", "errorCode": None})


def unreadable(reply: Reply) -> bool:
    """V1's words for it, and then what is wrong, for a person."""
    assert isinstance(reply.body, dict)
    said = str(reply.body["why"])
    return reply.status == 400 and said.startswith("Invalid request received (wrong type): ")


NO_BODY = Reply(400, {"why": "Invalid request received (no body?)", "errorCode": None})

COUNTING = {"title": "We are counting to 3", "owner": "User#1234", "initialStatus": None}


async def test_counting_to_three_as_the_documentation_has_it(tmp_path: Path) -> None:
    """[U01, U02, U03]"""
    async with site(tmp_path) as ucloud:
        reply = await ucloud.ask(UCLOUD, "PUT /api/tasks", COUNTING)
        task: Any = reply.body
        assert reply.status == 200
        assert list(task) == [
            "jobId", "owner", "processor", "title", "status", "complete", "startedAt", "modifiedAt",
        ]  # fmt: skip
        assert uuid.UUID(task["jobId"]).version == 4
        assert (task["owner"], task["processor"], task["title"], task["status"], task["complete"]) == (
            "User#1234", "_ucloud", "We are counting to 3", None, False,
        )  # fmt: skip
        assert isinstance(task["startedAt"], int)
        assert re.fullmatch(r"1\d{12}", str(task["startedAt"]))
        assert task["startedAt"] == task["modifiedAt"]
        for n in (1, 2, 3):
            said = {**unchanged(task["jobId"]), "messageToAppend": f"Count is now {n}"}
            assert await ucloud.ask(UCLOUD, "POST /api/tasks/postStatus", {"update": said}) == Reply(200, {})
        assert await ucloud.ask(UCLOUD, "POST /api/tasks/markAsComplete", {"id": task["jobId"]}) == Reply(200, {})
        assert (await ucloud.view(task["jobId"]))["complete"] is True
        log = await ucloud.service.log(ALICE, task["jobId"])

    assert [line.line for line in log] == ["Count is now 1", "Count is now 2", "Count is now 3"]


async def test_the_initial_status_is_stored_and_answered(tmp_path: Path) -> None:
    """V1's answer dropped it. (R6)"""
    async with site(tmp_path) as ucloud:
        made = await ucloud.said(UCLOUD, "PUT /api/tasks", {**COUNTING, "initialStatus": "at 0"})

        assert made["status"] == "at 0"
        assert await ucloud.view(made["jobId"]) == made
        assert await ucloud.rows() == [made]


async def test_a_user_lists_their_own_incomplete_tasks_oldest_first(tmp_path: Path) -> None:
    """[U10] Also an admin only their own."""
    async with site(tmp_path) as ucloud:
        first = await ucloud.create(title="title", status="initStatus")
        second = await ucloud.create(title="title2", status="initStatus2")
        await ucloud.create(BOB, "title3", "initStatus3")
        gone = await ucloud.create()
        await ucloud.complete(gone)
        await ucloud.post(first, newStatus="touched last")
        page = await ucloud.said(ALICE, "GET /api/tasks")
        admins = await ucloud.said(ROOT, "GET /api/tasks")

    assert (page["itemsInTotal"], page["itemsPerPage"], page["pageNumber"]) == (2, 50, 0)
    assert list(page) == ["itemsInTotal", "itemsPerPage", "pageNumber", "items"]
    assert [item["jobId"] for item in page["items"]] == [first, second]
    assert (page["items"][-1]["status"], page["items"][-1]["title"]) == ("initStatus2", "title2")
    assert (admins["itemsInTotal"], admins["items"]) == (0, [])


@pytest.mark.parametrize(
    ("query", "size", "number"),
    [
        ("", 50, 0),
        ("itemsPerPage=12&page=0", 50, 0),  # U20
        ("itemsPerPage=10&page=0", 10, 0),  # U22
        ("itemsPerPage=10&page=2", 10, 2),  # U24
        ("itemsPerPage=0", 50, 0),  # U26
        ("itemsPerPage=-1", 50, 0),
        ("itemsPerPage=1000", 50, 0),
        ("itemsPerPage=25", 25, 0),
        ("itemsPerPage=100", 100, 0),
        ("itemsPerPage=250", 250, 0),  # U28
        ("itemsPerPage=10&page=-3", 10, 0),  # U30
        ("page=2147483647", 50, 2147483647),  # U32: V1 fell over here
        ("page=9223372036854775807&itemsPerPage=250", 250, 9223372036854775807),
        ("itemsPerPage=10&itemsPerPage=25", 10, 0),
        ("page=1", 50, 1),
    ],
)
async def test_a_page_is_normalised(tmp_path: Path, query: str, size: int, number: int) -> None:
    async with site(tmp_path) as ucloud:
        ids = [await ucloud.create() for _ in range(3)]
        page = await ucloud.said(ALICE, f"GET /api/tasks?{query}")

    assert (page["itemsPerPage"], page["pageNumber"], page["itemsInTotal"]) == (size, number, 3)
    assert [item["jobId"] for item in page["items"]] == (ids if number == 0 else [])


async def test_the_pages_together_are_the_list(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        ids = [await ucloud.create() for _ in range(23)]
        pages = [await ucloud.said(ALICE, f"GET /api/tasks?itemsPerPage=10&page={n}") for n in range(3)]

    assert [len(page["items"]) for page in pages] == [10, 10, 3]
    assert [item["jobId"] for page in pages for item in page["items"]] == ids


@pytest.mark.parametrize(
    "query", ["page=x", "page=", "itemsPerPage=1.5", "itemsPerPage=ten", "page=0x1", "page=²"]
)
async def test_a_page_that_is_no_number_is_refused(tmp_path: Path, query: str) -> None:
    async with site(tmp_path) as ucloud:
        assert unreadable(await ucloud.ask(ALICE, f"GET /api/tasks?{query}"))


async def test_what_is_posted_is_stored(tmp_path: Path) -> None:
    """[U40] V1 stored nothing of it."""
    speed = {"title": "Files", "speed": 4, "unit": "/s", "asText": "4 files/s"}
    async with site(tmp_path) as ucloud:
        id = await ucloud.create(status="s1")
        progress = {"title": "files", "current": 3, "maximum": 12}
        await ucloud.post(id, newTitle="t2", newStatus="s2", progress=progress, speeds=[speed])
        seen = await ucloud.view(id)
        task = await ucloud.service.get(ALICE, id)
        await ucloud.post(id, newTitle=None, newStatus="")
        emptied = await ucloud.view(id)

    assert (seen["title"], seen["status"]) == ("t2", "s2")
    assert (task.progress.done, task.progress.total, task.progress.unit) == (3, 12, "files")
    assert [(s.title, s.speed, s.unit, s.as_text) for s in task.speeds] == [("Files", 4.0, "/s", "4 files/s")]
    assert (emptied["title"], emptied["status"]) == ("t2", "")  # null leaves it, "" does not


async def test_an_update_is_one_durable_change(tmp_path: Path) -> None:
    """Also with its messages, and with the end in it. (R3)"""
    async with site(tmp_path) as ucloud:
        id = await ucloud.create()
        before = ucloud.service.registry.revision
        await ucloud.post(id, newTitle="t", newStatus="s", messageToAppend="m", complete=True)
        after = ucloud.service.registry.revision
        seen = await ucloud.view(id)

    assert after == before + 1
    assert (seen["title"], seen["status"], seen["complete"]) == ("t", "s", True)


async def test_a_ping_is_seen_in_modified_at_only(tmp_path: Path) -> None:
    """[U14]"""
    async with site(tmp_path) as ucloud:
        id = await ucloud.create(status="s")
        before = await ucloud.view(id)
        for _ in range(3):
            await ucloud.post(id)
            after = await ucloud.view(id)
            assert after["modifiedAt"] > before["modifiedAt"]
            assert {**after, "modifiedAt": before["modifiedAt"]} == before
            before = after
        await ucloud.complete(id)
        assert (await ucloud.view(id))["modifiedAt"] > before["modifiedAt"]


async def test_what_is_complete_stays_as_it_is(tmp_path: Path) -> None:
    """[U42] (R4)"""
    async with site(tmp_path) as ucloud:
        id = await ucloud.create()
        await ucloud.post(id, newStatus="done", complete=True)
        await quiet()
        before = await ucloud.view(id)
        refused = await ucloud.ask(
            UCLOUD, "POST /api/tasks/postStatus", {"update": {"jobId": id, "newStatus": "late"}}
        )
        await ucloud.complete(id)  # once more is well
        assert await ucloud.view(id) == before
        assert [line.line for line in await ucloud.service.log(ALICE, id)] == []

    assert refused == Reply(409, {"why": "Task is already complete", "errorCode": "TASK_COMPLETE"})


async def test_mark_as_complete_ends_a_task_once_whoever_is_first(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        id = await ucloud.create()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ucloud.complete, id)
        revision = (await ucloud.service.get(ALICE, id)).revision
        await ucloud.complete(id)
        assert (await ucloud.service.get(ALICE, id)).revision == revision


@pytest.mark.parametrize("caller", [UCLOUD, ROOT])
async def test_a_task_that_is_not_there_is_not_found(tmp_path: Path, caller: Caller) -> None:
    """[U34]"""
    id = str(uuid.uuid4())
    async with site(tmp_path) as ucloud:
        for route, body in (
            (f"GET /api/tasks/retrieve?id={id}", None),
            (f"GET /api/tasks/{id}", None),
            ("GET /api/tasks/retrieve?id=", None),
            ("POST /api/tasks/postStatus", {"update": {"jobId": id}}),
            ("POST /api/tasks/markAsComplete", {"id": id}),
        ):
            assert await ucloud.ask(caller, route, body) == NOT_FOUND, route


async def test_a_task_is_viewed_by_its_owner_and_its_producer(tmp_path: Path) -> None:
    """(R5) V1 showed everybody's to everybody; an admin has other ways to see it."""
    async with site(tmp_path) as ucloud:
        id = await ucloud.create()
        for caller in (ALICE, UCLOUD):
            assert (await ucloud.said(caller, f"GET /api/tasks/retrieve?id={id}"))["jobId"] == id
            assert (await ucloud.said(caller, f"GET /api/tasks/{id}"))["jobId"] == id
        for caller in (BOB, OTHER, ROOT):
            assert await ucloud.ask(caller, f"GET /api/tasks/retrieve?id={id}") == NOT_FOUND


async def test_only_its_producer_posts_to_a_task(tmp_path: Path) -> None:
    """(R5) Not its owner, whatever roles that has, nor an admin."""
    async with site(tmp_path) as ucloud:
        id = await ucloud.create(OTHER)
        for caller in (OTHER, ROOT):
            for route, body in (
                ("POST /api/tasks/postStatus", {"update": {"jobId": id, "newTitle": "mine"}}),
                ("POST /api/tasks/markAsComplete", {"id": id}),
            ):
                assert await ucloud.ask(caller, route, body) == NOT_FOUND
        task = await ucloud.service.get(UCLOUD, id)

    assert (task.label, task.state, task.modified_at) == ("title", State.RUNNING, None)


def test_what_is_refused_on_one_task_is_no_task() -> None:
    task = Task("x", "external", {}, "o", "p", "h", Time(0.0))
    for error in (PermissionDenied("update"), NotExternal("x")):
        with pytest.raises(DoesNotExist), hidden(task):
            raise error


async def test_a_task_that_has_ended_and_is_still_looked_after_is_in_no_list(tmp_path: Path) -> None:
    """As one whose undo is tried again."""
    async with site(tmp_path) as ucloud:
        id = await ucloud.create()
        await ucloud.complete(id)
        await quiet()
        ucloud.service.registry.add(Live(await ucloud.service.get(ALICE, id)))
        assert await ucloud.rows() == []


async def test_nobody_posts_to_what_taskd_runs(tmp_path: Path) -> None:
    gates = Gates()
    async with site(tmp_path, gates.operation(copy.OPERATION)) as ucloud:
        task = await ucloud.service.start(ROOT, "copy", {"source": "/s", "target": "/t"})
        liar = attrs.evolve(ROOT, user=task.processor)  # a name that no user has
        for caller in (ROOT, liar):
            for route, body in (
                ("POST /api/tasks/postStatus", {"update": {"jobId": task.id}}),
                ("POST /api/tasks/markAsComplete", {"id": task.id}),
            ):
                assert await ucloud.ask(caller, route, body) == NOT_FOUND


EVERY_ROUTE = [
    ("PUT /api/tasks", COUNTING, "Tasks.create"),
    ("GET /api/tasks", None, "Tasks.list"),
    ("GET /api/tasks?page=x", None, "Tasks.list"),
    ("GET /api/tasks/retrieve?id=x", None, "Tasks.view"),
    ("GET /api/tasks/retrieve?id=1", None, "Tasks.retrieve"),
    ("GET /api/tasks/x", None, "Tasks.view"),
    ("POST /api/tasks/postStatus", {"update": {"jobId": "x"}}, "Tasks.postStatus"),
    ("POST /api/tasks/postStatus", None, "Tasks.postStatus"),
    ("POST /api/tasks/markAsComplete", {"id": "x"}, "Tasks.markAsComplete"),
    ("POST /api/tasks", {"user": "alice"}, "Tasks.create"),
    ("GET /api/tasks/browse", None, "Tasks.browse"),
    ("GET /api/tasks/browse?itemsPerPage=x", None, "Tasks.browse"),
    ("POST /api/tasks/pauseOrCancel", {"id": 1, "requestedState": "CANCELLED"}, "Tasks.pauseOrCancel"),
]


@pytest.mark.parametrize(("route", "body", "name"), EVERY_ROUTE)
@pytest.mark.parametrize("role", ["user", "service", "admin", "nobody"])
async def test_each_route_is_for_the_roles_of_its_call(
    tmp_path: Path, route: str, body: JSON, name: str, role: str
) -> None:
    """[U12] Nothing else is looked at before."""
    caller = Caller(uid=5, gid=5, pid=1, user="somebody", roles=frozenset({role}))
    async with site(tmp_path) as ucloud:
        reply = await ucloud.ask(caller, route, body)

    assert (reply == FORBIDDEN) is (role not in CALLS[name])


def test_producers_post_and_users_look() -> None:
    users, services = frozenset({"user", "admin"}), frozenset({"service", "admin"})

    assert {name: roles for name, roles in CALLS.items() if name.startswith("Tasks.")} == {
        "Tasks.list": users, "Tasks.listen": users, "Tasks.browse": users, "Tasks.pauseOrCancel": users,
        "Tasks.view": users | services, "Tasks.retrieve": users | services,
        "Tasks.create": services, "Tasks.postStatus": services, "Tasks.markAsComplete": services,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("PUT /api/tasks", b"["),  # U36
        ("PUT /api/tasks", b"[]"),
        ("PUT /api/tasks", b'"x"'),
        ("PUT /api/tasks", b'{"owner": "o"}'),
        ("PUT /api/tasks", b'{"title": "t"}'),
        ("PUT /api/tasks", b'{"title": null, "owner": "o"}'),
        ("PUT /api/tasks", b'{"title": 1, "owner": "o"}'),
        ("PUT /api/tasks", b'{"title": "t", "owner": "o", "initialStatus": 5}'),
        ("PUT /api/tasks", b"\xff"),
        ("POST /api/tasks/postStatus", b"{}"),
        ("POST /api/tasks/postStatus", b'{"update": {}}'),
        ("POST /api/tasks/postStatus", b'{"update": {"jobId": null}}'),
        ("POST /api/tasks/postStatus", b'{"update": [{"jobId": "x"}]}'),
        ("POST /api/tasks/postStatus", b'{"update": {"jobId": "x", "complete": "true"}}'),
        ("POST /api/tasks/postStatus", b'{"update": {"jobId": "x", "complete": 1}}'),
        ("POST /api/tasks/postStatus", b'{"update": {"jobId": "x", "newTitle": 1}}'),
        ("POST /api/tasks/postStatus", b'{"update": {"jobId": "x", "progress": {"title": "t", "current": 1}}}'),
        (
            "POST /api/tasks/postStatus",
            b'{"update": {"jobId": "x", "progress": {"title": "t", "current": 1, "maximum": 2147483648}}}',
        ),
        (
            "POST /api/tasks/postStatus",
            b'{"update": {"jobId": "x", "progress": {"title": "t", "current": -2147483649, "maximum": 1}}}',
        ),
        (
            "POST /api/tasks/postStatus",
            b'{"update": {"jobId": "x", "progress": {"title": "t", "current": 0.5, "maximum": 1}}}',
        ),
        ("POST /api/tasks/postStatus", b'{"update": {"jobId": "x", "speeds": {}}}'),
        ("POST /api/tasks/postStatus", b'{"update": {"jobId": "x", "speeds": [null]}}'),
        ("POST /api/tasks/postStatus", b'{"update": {"jobId": "x", "speeds": [{"title": "t", "speed": 1}]}}'),
        ("POST /api/tasks/markAsComplete", b"{}"),
        ("POST /api/tasks/markAsComplete", b'{"id": true}'),
        ("POST /api/tasks/markAsComplete", b'{"id": ["x"]}'),
        ("GET /api/tasks/retrieve", b""),
    ],
)
async def test_what_cannot_be_read_is_refused(tmp_path: Path, route: str, body: bytes) -> None:
    async with site(tmp_path) as ucloud:
        assert unreadable(await ucloud.ask(ROOT, route, raw=body))
        assert len(ucloud.service.registry) == 0


@pytest.mark.parametrize("route", [route for route, _, _ in EVERY_ROUTE if not route.startswith("GET")])
async def test_a_body_that_is_not_there_is_missed(tmp_path: Path, route: str) -> None:
    """[U36]"""
    async with site(tmp_path) as ucloud:
        assert await ucloud.ask(ROOT, route, raw=b"") == NO_BODY
        assert await ucloud.ask(ROOT, route, raw=b" \n") == NO_BODY


async def test_what_is_left_out_or_null_or_unknown_is_as_the_default(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        made = await ucloud.said(UCLOUD, "PUT /api/tasks", {"title": "t", "owner": ALICE.user, "project": "p"})
        speed = {"title": "s", "speed": 1.5, "unit": "u", "asText": "x", "colour": "red"}
        progress = {"title": "p", "current": 1, "maximum": 2, "of": "x"}
        said = {"jobId": made["jobId"], "speeds": [speed], "progress": progress, "unheard": {}}
        await ucloud.said(UCLOUD, "POST /api/tasks/postStatus", {"update": said, "more": 1})
        nothing: dict[str, JSON] = dict.fromkeys(unchanged(""))
        await ucloud.said(UCLOUD, "POST /api/tasks/postStatus", {"update": {**nothing, "jobId": made["jobId"]}})
        task = await ucloud.service.get(ALICE, made["jobId"])

    assert made["status"] is None
    assert (len(task.speeds), task.progress.done, task.state) == (1, 1, State.RUNNING)


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("title", {"title": "x" * 5000, "owner": "o"}),
        ("owner", {"title": "t", "owner": "o" * 5000}),
        ("owner", {"title": "t", "owner": ""}),
        ("initialStatus", {"title": "t", "owner": "o", "initialStatus": "x" * 5000}),
    ],
)
async def test_a_text_that_does_not_fit_is_named(tmp_path: Path, field: str, said: JSON) -> None:
    async with site(tmp_path) as ucloud:
        reply: Any = await ucloud.ask(UCLOUD, "PUT /api/tasks", said)

    assert reply.status == 400
    assert re.match(rf"{field}: (is longer than 4096 characters|must not be empty)", reply.body["why"])


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("update.newTitle", {"newTitle": "x" * 5000}),
        ("update.newStatus", {"newStatus": "x" * 5000}),
        ("update.progress.title", {"progress": {"title": "x" * 5000, "current": 1, "maximum": 2}}),
        ("update.progress", {"progress": {"title": "x", "current": -1, "maximum": 2}}),
        ("update.speeds[0].title", {"speeds": [{"title": "x" * 5000, "speed": 1, "unit": "", "asText": ""}]}),
        ("update.speeds", {"speeds": [{"title": "x", "speed": 1, "unit": "", "asText": "x" * 70_000}]}),
    ],
)
async def test_what_does_not_fit_in_an_update_is_named_and_nothing_of_it_is_done(
    tmp_path: Path, field: str, said: dict[str, JSON]
) -> None:
    async with site(tmp_path) as ucloud:
        id = await ucloud.create()
        before = await ucloud.view(id)
        update = {"jobId": id, "messageToAppend": "m", "complete": True, **said}
        reply: Any = await ucloud.ask(UCLOUD, "POST /api/tasks/postStatus", {"update": update})
        assert await ucloud.view(id) == before
        assert not await ucloud.service.log(ALICE, id)

    assert reply.status == 400
    assert reply.body["why"].startswith(f"{field}: ")


async def test_a_message_is_kept_word_for_word_however_long(tmp_path: Path) -> None:
    message = "\n".join(f"line {n}\r\t" for n in range(20_000)) + "\n"
    async with site(tmp_path) as ucloud:
        id = await ucloud.create()
        await ucloud.post(id, messageToAppend=message)
        log = await ucloud.service.log(ALICE, id)

    assert "".join(line.line for line in log) == message


async def test_refusals_of_the_daemon_have_their_statuses(tmp_path: Path) -> None:
    store = FullStore()
    async with site(tmp_path, store=store) as ucloud:
        id = await ucloud.create()
        store.full = True
        posted: Any = await ucloud.ask(
            UCLOUD, "POST /api/tasks/postStatus", {"update": {"jobId": id, "newTitle": "x"}}
        )
        store.full = False
        assert (await ucloud.view(id))["title"] == "title"

    assert posted.status == 503
    assert posted.body["why"].startswith("the store cannot write")
    many: Any = FACE.refuse(TooManyTasks(3), "")
    assert (many.status, many.body["why"]) == (
        429,
        "the owner already has 3 unfinished tasks, or fewer that hold much",
    )


async def test_an_owner_has_only_so_many_tasks(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        few = attrs.evolve(ucloud.service, tasks_per_owner=2)
        narrow = attrs.evolve(ucloud, service=few)
        for _ in range(2):
            await narrow.create()
        assert (await narrow.ask(UCLOUD, "PUT /api/tasks", COUNTING)).status == 429


@attrs.define(auto_exc=True)
class Unauthenticated(Refusal):
    """The name is what counts."""

    name = "Unauthenticated"


def test_nothing_from_inside_is_told() -> None:
    """[U38]"""
    assert FACE.refuse(Unauthenticated(), "") == Reply(401, {"why": "Unauthorized", "errorCode": None})
    assert FACE.refuse(PermissionDenied("the reason"), "") == FORBIDDEN
    assert FACE.refuse(InternalError("id"), "") == Reply(500, {"why": "Internal Server Error", "errorCode": None})
    assert FACE.refuse(StoreUnavailable("no space left"), "").status == 503


def test_the_words_that_the_second_generation_needs_are_no_ids() -> None:
    words = {"browse", "retrieve", "postStatus", "markAsComplete", "pauseOrCancel"}

    assert {path.removeprefix("/api/tasks/") for path in FACE.routes} >= words


# How tasks look that are not made here.


async def test_a_task_that_did_not_end_well_says_so(tmp_path: Path) -> None:
    """``complete`` alone would be taken for success."""
    gates = Gates(fails=True)
    async with site(tmp_path, gates.operation(copy.OPERATION)) as ucloud:
        ids = [
            (await ucloud.service.start(ROOT, "copy", {"source": "/s", "target": f"/t{n}"}, owner=ALICE.user)).id
            for n in range(2)
        ]
        running = await ucloud.view(ids[0])
        await ucloud.service.cancel(ALICE, ids[1])
        gates.work.set()
        gates.undo.set()
        failed, cancelled = [await ucloud.service.wait(ALICE, id) for id in ids]
        elsewhere = await ucloud.create(status="going well")
        await ucloud.service.call_off(UCLOUD, elsewhere)
        seen = [await ucloud.view(id) for id in (*ids, elsewhere)]

    assert (failed.state, cancelled.state) == (State.FAILED, State.CANCELLED)
    assert (running["processor"], running["status"], running["complete"]) == ("taskd:", None, False)
    assert [each["complete"] for each in seen] == [True] * 3
    assert [each["status"] for each in seen] == [
        "Failed: /the/target exists; with overwrite=true it is replaced", "Cancelled", "Cancelled",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("progress", "shown"),
    [
        (Progress(), None),
        (Progress(3, 12, "files", 0.25), ("files", 3, 12)),
        (Progress(12, 12, "", 1.0), ("", 12, 12)),
        (Progress(5, 3, "", 1.0), ("", 5, 3)),
        (Progress(0, 0, "bytes", 0.0), ("bytes", 0, 0)),
        (Progress(2**30, 2**31 - 1, "bytes", 0.5), ("bytes", 2**30, 2**31 - 1)),
        (Progress(2**30, 2**31, "bytes", 0.5), ("MiB", 1024, 2048)),
        (Progress(2**31, 2**31, "bytes", 1.0), ("MiB", 2048, 2048)),
        (Progress(2**31, 2**31 + 1, "bytes", 0.9999), ("MiB", 2048, 2049)),
        (Progress(2**31 + 1, 2**31 + 1, "bytes", 1.0), ("MiB", 2049, 2049)),
        (Progress(2**52, 2**53, "bytes", 0.5), ("%", 50, 100)),
        (Progress(2**40, 2**41, "objects", 0.5), ("%", 50, 100)),
        (Progress(2**40, 2**41, "objects", 1.0), None),
        (Progress(2**40, 5, "objects", 1.0), ("objects", 2**31 - 1, 5)),
        (Progress(fraction=0.25), ("%", 25, 100)),
        (Progress(7, None, "files"), None),
    ],
)
def test_progress_fits_kotlins_int(progress: Progress, shown: tuple[str, int, int] | None) -> None:
    expected = None if shown is None else dict(zip(("title", "current", "maximum"), shown, strict=True))

    assert progress_of(progress) == expected


async def test_a_report_from_elsewhere_is_seen_here(tmp_path: Path) -> None:
    async with site(tmp_path) as ucloud:
        id = await ucloud.create()
        await ucloud.service.update(UCLOUD, id, label="l", status="s", progress=Report(1, 2, "u"), log=["x"])
        seen = await ucloud.view(id)
        task: Task = await ucloud.service.update(UCLOUD, id, end=End(State.COMPLETED))

    assert (seen["title"], seen["status"], task.state) == ("l", "s", State.COMPLETED)


async def test_content_type_and_language_are_not_looked_at(tmp_path: Path) -> None:
    """A route is not even told the first: the documentation's curl sends one that is none."""
    assert "content_type" not in {field.name for field in attrs.fields(Asked)}
    assert FACE.refuse(PermissionDenied("x"), "de") == FACE.refuse(PermissionDenied("x"), "")


async def test_tasks_are_there_after_a_restart(tmp_path: Path) -> None:
    store = MemoryStore()
    async with site(tmp_path, store=store) as ucloud:
        id = await ucloud.create()
        await ucloud.post(id, newStatus="half")
        before = await ucloud.rows()
    async with site(tmp_path, store=store) as ucloud:
        assert await ucloud.rows() == before
        await ucloud.post(id, newStatus="more")
        assert (await ucloud.view(id))["status"] == "more"
