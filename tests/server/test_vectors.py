"""The conformance vectors of UCloud and KooDrive, each over a real socket: HTTP, WebSockets of a foreign client.

Who calls is told by tokens, which a proxy passes on: this process. ``vectors.json`` has the vectors as they were
collected; there is a test for each.
"""

from __future__ import annotations

import json
import os
import pwd
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from taskd import access
from taskd.model import Failure
from tests.bench import ROOT
from tests.server.conftest import Daemon, Start
from tests.server.sockets import Socket, opened

VECTORS = {
    each["id"]: each for each in json.loads(Path(__file__).with_name("vectors.json").read_text())["vectors"]
}

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")

ROLES = {
    "_ucloud": access.SERVICE,
    "_other": access.SERVICE,
    "User#1234": access.USER,
    "alice": access.USER,
    "bob": access.USER,
}

NOT_FOUND = {"why": "Not Found", "errorCode": None}
UNAUTHORIZED = {"why": "Unauthorized", "errorCode": None}


@attrs.define(eq=False)
class Cloud:
    """A daemon behind a proxy, and the tokens of its users."""

    daemon: Daemon
    tokens: dict[str, str] = attrs.field(factory=dict)

    async def token(self, user: str) -> str:
        if user not in self.tokens:
            _, self.tokens[user] = await self.daemon.service.tokens.add(ROOT, user, [ROLES[user]])
        return self.tokens[user]

    async def ask(self, user: str | None, line: str, body: Any = None) -> tuple[int, Any]:
        """Status and body of the answer; a ``body`` of bytes goes as it is."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        method, _, target = line.partition(" ")
        head = [f"{method} {target} HTTP/1.1", "Host: cloud", f"Content-Length: {len(data)}", "Connection: close"]
        if user is not None:
            head.append(f"Authorization: Bearer {await self.token(user)}")
        async with self.daemon.peer() as peer:
            await peer.stream.send_all("\r\n".join([*head, "", ""]).encode() + data)
            answer = b""
            with trio.fail_after(20):
                while more := await peer.stream.receive_some():
                    answer += more
        start, _, rest = answer.partition(b"\r\n\r\n")
        assert b"application/json" in start, answer
        return int(start.split()[1]), json.loads(rest)

    async def said(self, user: str, line: str, body: Any = None) -> Any:
        status, answer = await self.ask(user, line, body)
        assert status == 200, (line, status, answer)
        return answer

    async def create(self, owner: str, title: str = "t", status: str | None = None, by: str = "_ucloud") -> str:
        made = await self.said(by, "PUT /api/tasks", {"title": title, "owner": owner, "initialStatus": status})
        return str(made["jobId"])

    async def post(self, id: str, by: str = "_ucloud", **update: Any) -> tuple[int, Any]:
        return await self.ask(by, "POST /api/tasks/postStatus", {"update": {**UNCHANGED, "jobId": id, **update}})

    async def complete(self, id: str, by: str = "_ucloud") -> tuple[int, Any]:
        return await self.ask(by, "POST /api/tasks/markAsComplete", {"id": id})

    async def view(self, id: str | int, by: str) -> Any:
        return await self.said(by, f"GET /api/tasks/retrieve?id={id}")

    @asynccontextmanager
    async def listening(self, user: str, *streams: str, call: str = "task.listen") -> AsyncIterator[Socket]:
        """A socket on which that user listens; whatever comes next is told to it."""
        async with opened(self.daemon.path, "/api/tasks") as socket:
            for stream in streams or ("0",):
                await socket.send(frame(call, stream, await self.token(user)))
            # A call on the same socket is answered after the listens before it are in place.
            await trio.testing.wait_all_tasks_blocked(0.05)
            yield socket


UNCHANGED: dict[str, Any] = {
    "newTitle": None,
    "speeds": [],
    "progress": None,
    "complete": False,
    "messageToAppend": None,
    "newStatus": None,
}


def frame(call: str, stream: str, bearer: str | None, payload: Any = None) -> Any:
    return {"call": call, "streamId": stream, "payload": payload or {}, "bearer": bearer}


async def told(socket: Socket, count: int, stream: str = "0") -> list[Any]:
    """The payloads of the next frames, which are messages of that stream."""
    frames = [await socket.reply() for _ in range(count)]
    assert all((each["type"], each["streamId"]) == ("message", stream) for each in frames), frames
    return [each["payload"] for each in frames]


Vector = Callable[[Cloud], Awaitable[None]]
TESTS: dict[str, Vector] = {}


def vector(*ids: str) -> Callable[[Vector], Vector]:
    def named(test: Vector) -> Vector:
        TESTS.update(dict.fromkeys(ids, test))
        return test

    return named


def test_there_is_a_test_for_each_vector() -> None:
    assert set(TESTS) == set(VECTORS)


@pytest.mark.parametrize("id", VECTORS)
async def test_vector(daemon: Start, id: str) -> None:

    proxy = pwd.getpwuid(os.geteuid()).pw_name
    async with daemon(proxies=(proxy,)) as running:
        await TESTS[id](Cloud(running))


# UCloud, the documentation's generation.


@vector("U01", "U02.1", "U02.2", "U02.3", "U03", "U04")
async def counting_to_three(cloud: Cloud) -> None:
    made = await cloud.said(
        "_ucloud",
        "PUT /api/tasks",
        {"title": "We are counting to 3", "owner": "User#1234", "initialStatus": None},
    )
    id = made["jobId"]
    assert UUID.fullmatch(id)
    assert made == {
        "jobId": id,
        "owner": "User#1234",
        "processor": "_ucloud",
        "title": "We are counting to 3",
        "status": None,
        "complete": False,
        "startedAt": made["startedAt"],
        "modifiedAt": made["startedAt"],
    }
    assert isinstance(made["startedAt"], int)
    assert made["startedAt"] > 1_700_000_000_000
    async with cloud.listening("User#1234") as socket:
        for n in (1, 2, 3):
            assert await cloud.post(id, messageToAppend=f"Count is now {n}") == (200, {})
        assert await cloud.complete(id) == (200, {})
        frames = await told(socket, 4)
    expected = json.dumps(VECTORS["U04"]["expect"]["frames"])
    assert frames == json.loads(expected.replace("b06f51d2-88af-487c-bb4c-4cc156cf24fd", id))


@vector("U10")
async def the_list_is_ones_own_oldest_first(cloud: Cloud) -> None:
    first = await cloud.create("alice", "title", "initStatus")
    second = await cloud.create("alice", "title2", "initStatus2")
    await cloud.create("bob", "title3", "initStatus3")
    page = await cloud.said("alice", "GET /api/tasks")
    assert (page["itemsInTotal"], [each["jobId"] for each in page["items"]]) == (2, [first, second])
    assert (page["items"][-1]["status"], page["items"][-1]["title"]) == ("initStatus2", "title2")


@vector("U12")
async def a_plain_user_may_not_produce(cloud: Cloud) -> None:
    id = await cloud.create("alice")
    for status, _ in (
        await cloud.ask("alice", "PUT /api/tasks", {"title": "t", "owner": "alice", "initialStatus": None}),
        await cloud.post(id, by="alice"),
        await cloud.complete(id, by="alice"),
    ):
        assert status in VECTORS["U12"]["expect"]["status"]


@vector("U14")
async def a_ping_moves_the_time_of_modification_and_no_other(cloud: Cloud) -> None:
    id = await cloud.create("alice")
    before = await cloud.view(id, "alice")
    assert await cloud.post(id) == (200, {})
    after = await cloud.view(id, "alice")
    assert after["modifiedAt"] > before["modifiedAt"]
    assert after["startedAt"] == before["startedAt"]


@vector("U20", "U22", "U26", "U28", "U30")
async def pages_are_normalised(cloud: Cloud) -> None:
    for query, size in (
        ("itemsPerPage=12&page=0", 50),
        ("itemsPerPage=10&page=0", 10),
        ("itemsPerPage=0", 50),
        ("itemsPerPage=250", 250),
        ("itemsPerPage=10&page=-3", 10),
    ):
        page = await cloud.said("alice", f"GET /api/tasks?{query}")
        assert (page["itemsPerPage"], page["pageNumber"]) == (size, 0)


@vector("U24", "U32")
async def a_page_beyond_the_end_is_empty(cloud: Cloud) -> None:
    for _ in range(3):
        await cloud.create("alice")
    page = await cloud.said("alice", "GET /api/tasks?itemsPerPage=10&page=2")
    assert page == {"itemsInTotal": 3, "itemsPerPage": 10, "pageNumber": 2, "items": []}
    assert (await cloud.said("alice", "GET /api/tasks?page=2147483647"))["items"] == []


@vector("U34")
async def what_is_not_there_is_not_found(cloud: Cloud) -> None:
    id = "00000000-0000-4000-8000-000000000000"
    assert await cloud.ask("alice", f"GET /api/tasks/retrieve?id={id}") == (404, NOT_FOUND)
    assert await cloud.post(id) == (404, NOT_FOUND)
    assert await cloud.complete(id) == (404, NOT_FOUND)
    theirs = await cloud.create("alice")
    assert await cloud.ask("bob", f"GET /api/tasks/{theirs}") == (404, NOT_FOUND)
    assert await cloud.post(theirs, by="_other") == (404, NOT_FOUND)


@vector("U36")
async def what_cannot_be_read_is_refused(cloud: Cloud) -> None:
    for body in (b"", {"owner": "alice"}, b"["):
        status, answer = await cloud.ask("_ucloud", "PUT /api/tasks", body)
        assert (status, set(answer)) == (400, {"why", "errorCode"})


@vector("U38")
async def without_credentials_nothing_is_answered(cloud: Cloud) -> None:
    for line in (
        "GET /api/tasks",
        "PUT /api/tasks",
        "POST /api/tasks",
        "GET /api/tasks/retrieve?id=x",
        "GET /api/tasks/x",
        "GET /api/tasks/browse",
        "POST /api/tasks/postStatus",
        "POST /api/tasks/markAsComplete",
        "POST /api/tasks/pauseOrCancel",
    ):
        assert await cloud.ask(None, line, b"{}") == (401, UNAUTHORIZED), line


@vector("U40")
async def what_is_posted_is_kept(cloud: Cloud) -> None:
    id = await cloud.create("alice")
    progress = {"title": "steps", "current": 1, "maximum": 3}
    assert await cloud.post(id, newStatus="s2", newTitle="t2", progress=progress) == (200, {})
    view = await cloud.view(id, "alice")
    assert (view["title"], view["status"]) == ("t2", "s2")


@vector("U42")
async def what_is_complete_stays_as_it_is(cloud: Cloud) -> None:
    id = await cloud.create("alice")
    await cloud.complete(id)
    before = await cloud.view(id, "alice")
    async with cloud.listening("alice") as socket:
        status, _ = await cloud.post(id, newStatus="late")
        assert status in VECTORS["U42"]["expect"]["status"]
        assert await cloud.view(id, "alice") == before
        other = await cloud.create("alice", "the next")
        assert [each["jobId"] for each in await told(socket, 1)] == [other]


@vector("U44")
async def nobody_hears_of_what_is_not_theirs(cloud: Cloud) -> None:
    id = await cloud.create("alice")
    async with cloud.listening("bob") as socket:
        await cloud.post(id, newStatus="private")
        own = await cloud.create("bob", "bob's")
        assert [each["jobId"] for each in await told(socket, 1)] == [own]


# WebSockets.


@vector("W01")
async def an_unknown_call_is_not_found(cloud: Cloud) -> None:
    async with opened(cloud.daemon.path, "/api/tasks") as socket:
        await socket.send("no JSON")
        await socket.send({"call": "task.list"})
        await socket.send(b"\0\1")
        await socket.send(frame("task.nope", "7", await cloud.token("alice")))
        assert await socket.reply() == VECTORS["W01"]["expect"]["frame"]


@vector("W03")
async def a_bad_bearer_is_unauthorized(cloud: Cloud) -> None:
    async with opened(cloud.daemon.path, "/api/tasks") as socket:
        for stream, bearer in (("a", "nonsense"), ("b", None), ("c", "taskd_00000000_" + "x" * 43)):
            await socket.send(frame("task.listen", stream, bearer))
            expected = {"type": "response", "streamId": stream, "payload": UNAUTHORIZED, "status": 401}
            assert await socket.reply() == expected


@vector("W05")
async def two_listens_of_one_socket_are_told_both(cloud: Cloud) -> None:
    id = await cloud.create("alice")
    async with cloud.listening("alice", "0", "1") as socket:
        await cloud.post(id, newStatus="x")
        frames = [await socket.reply() for _ in range(2)]
        assert sorted(each["streamId"] for each in frames) == ["0", "1"]
        assert all(each["payload"]["newStatus"] == "x" for each in frames)
        await cloud.complete(id)
        assert sorted([(await socket.reply())["streamId"] for _ in range(2)]) == ["0", "1"]


@vector("W07")
async def a_listener_that_comes_meanwhile_ends_with_the_final_state(cloud: Cloud) -> None:
    """A few times here; tests/dialects/test_ucloud_listen.py does it at every step."""
    for n in range(5):
        id = await cloud.create("alice")
        async with trio.open_nursery() as nursery:

            async def produce(id: str = id) -> None:
                for k in range(10):
                    await cloud.post(id, newStatus=f"s{k}", messageToAppend=f"{k} ")
                await cloud.post(id, newTitle="the end", complete=True)

            nursery.start_soon(produce)
            async with opened(cloud.daemon.path, "/api/tasks") as socket:
                await trio.sleep(0.002 * n)
                await socket.send(frame("task.listen", "0", await cloud.token("alice")))
                view = await cloud.view(id, "alice")
                fold: dict[str, Any] = {"title": view["title"], "status": view["status"]}
                while not (await cloud.view(id, "alice"))["complete"]:
                    (update,) = await told(socket, 1)
                    fold["title"] = update["newTitle"] or fold["title"]
                    fold["status"] = update["newStatus"] or fold["status"]
                while not fold.get("complete"):
                    with trio.move_on_after(2) as late:
                        (update,) = await told(socket, 1)
                        fold["title"] = update["newTitle"] or fold["title"]
                        fold["status"] = update["newStatus"] or fold["status"]
                        fold["complete"] = update["complete"]
                    if late.cancelled_caught:  # it came when all was over
                        break
        if fold.get("complete"):
            view = await cloud.view(id, "alice")
            assert (fold["title"], fold["status"]) == (view["title"], view["status"])


@vector("W09")
async def one_post_is_one_frame(cloud: Cloud) -> None:
    id = await cloud.create("alice")
    async with cloud.listening("alice") as socket:
        await cloud.post(id, newStatus="one", newTitle="two", messageToAppend="m")
        await cloud.post(id)
        first, second = await told(socket, 2)
        assert first == {**UNCHANGED, "jobId": id, "newStatus": "one", "newTitle": "two", "messageToAppend": "m"}
        assert second == {**UNCHANGED, "jobId": id}


# UCloud, the later generations.


async def background(cloud: Cloud, user: str, title: str = "t", by: str = "_ucloud") -> Any:
    body = {"user": user, "title": title, "body": None, "progress": None}
    return await cloud.said(by, "POST /api/tasks", body)


def status(id: int, state: str, *texts: Any) -> Any:
    title, body, progress, percentage = texts
    new = {"state": state, "title": title, "body": body, "progress": progress, "progressPercentage": percentage}
    return {"update": {"taskId": id, "modifiedAt": 0, "newStatus": new}}


@vector("B01")
async def a_background_task_is_its_users_and_its_providers(cloud: Cloud) -> None:
    made = await background(cloud, "alice")
    seen = await cloud.view(made["taskId"], "alice")
    assert (seen["createdBy"], seen["provider"]) == ("alice", "_ucloud")
    assert (await cloud.ask("bob", f"GET /api/tasks/retrieve?id={made['taskId']}"))[0] == 404


@vector("B03")
async def a_background_tasks_changes_are_told_whole(cloud: Cloud) -> None:
    async with cloud.listening("alice", call="tasks.listen") as socket:
        made = await background(cloud, "alice")
        id = made["taskId"]
        post = status(id, "RUNNING", "Working", "Halfway", "50%", 50.0)
        await cloud.said("_ucloud", "POST /api/tasks/postStatus", post)
        assert (await cloud.ask("_other", "POST /api/tasks/postStatus", post))[0] == 404
        first, second = await told(socket, 2)
        assert (first["taskId"], second["taskId"]) == (id, id)
        assert second["status"]["state"] == "RUNNING"
        assert (await cloud.view(id, "alice"))["status"] == post["update"]["newStatus"]


@vector("B05")
async def browsing_is_newest_first_page_by_page(cloud: Cloud) -> None:
    for n in range(5):
        await background(cloud, "alice", f"t{n}")
    pages, following, query = [], [], ""
    for _ in range(3):
        page = await cloud.said("alice", f"GET /api/tasks/browse?itemsPerPage=2{query}")
        pages.append([each["status"]["title"] for each in page["items"]])
        following.append(None if page["next"] is None else "set")
        query = f"&next={page['next']}"
    expected = VECTORS["B05"]["expect"]
    assert (pages, following) == (expected["pages"], expected["next"])


@vector("B07")
async def a_cursor_that_is_none_is_refused(cloud: Cloud) -> None:
    assert (await cloud.ask("alice", "GET /api/tasks/browse?next=garbage"))[0] == 400


@vector("B09")
async def cancelling_what_has_ended_changes_nothing(cloud: Cloud) -> None:
    for state in ("SUCCESS", "FAILURE", "CANCELLED"):
        id = (await background(cloud, "alice"))["taskId"]
        await cloud.said("_ucloud", "POST /api/tasks/postStatus", status(id, state, None, None, None, None))
        before = await cloud.view(id, "alice")
        assert before["status"]["state"] == state
        await cloud.said("alice", "POST /api/tasks/pauseOrCancel", {"id": id, "requestedState": "CANCELLED"})
        assert await cloud.view(id, "alice") == before


# KooDrive.

LIST = "GET /koodrive/ose/v1/task/list"


async def made(cloud: Cloud, count: int, owner: str = "alice") -> list[str]:
    """The decimal ids of so many tasks of that owner."""
    tasks = [
        await cloud.daemon.service.start(ROOT, "external", {}, owner=owner, label=f"n{n}") for n in range(count)
    ]
    return [str(task.seq) for task in tasks]


async def walk(cloud: Cloud, *sizes: int, query: str = "") -> list[list[Any]]:
    """The rows of each page, the sizes taken in turn, until there is no cursor."""
    pages: list[list[Any]] = []
    cursor = ""
    while True:
        size = sizes[len(pages) % len(sizes)]
        page = await cloud.said("alice", f"{LIST}?pageSize={size}&pageCursor={cursor}{query}")
        assert page["taskList"] == page["taskListDtos"]
        pages.append(page["taskList"])
        if "nextCursor" not in page:
            return pages
        cursor = page["nextCursor"]


def ids(pages: list[list[Any]]) -> list[str]:
    return [row["taskId"] for page in pages for row in page]


@vector("K01")
async def the_vendors_example(cloud: Cloud) -> None:
    first, second = await made(cloud, 2)
    for task in await cloud.daemon.service.ids(ROOT):
        await cloud.daemon.service.complete(ROOT, task)
    page = await cloud.said("alice", f"{LIST}?taskType=0&status=2&pageSize=10&pageCursor")
    assert (str(page["code"]), page["msg"]) == ("0", "Success.")
    row = page["taskList"][0]
    assert {"taskId", "taskName", "taskType", "status", "createTime"} <= set(row)
    assert (row["taskId"], row["taskName"], row["taskType"], row["status"]) == (first, "n0", 0, 2)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["createTime"])
    assert ids([page["taskList"]]) == [first, second]
    assert None not in row.values()


@vector("K02", "K07")
async def a_page_has_at_most_a_hundred(cloud: Cloud) -> None:
    await made(cloud, 105)
    for query in ("", "?pageSize=1000"):
        assert len((await cloud.said("alice", LIST + query))["taskList"]) == 100


@vector("K03")
async def the_cursors_lead_through_all_of_them_once(cloud: Cloud) -> None:
    expected = await made(cloud, 250)
    assert ids(await walk(cloud, 100)) == expected


@vector("K05")
async def the_size_of_pages_may_change(cloud: Cloud) -> None:
    expected = await made(cloud, 100)
    assert ids(await walk(cloud, 3, 7)) == expected


@vector("K09")
async def several_statuses_may_be_asked_for(cloud: Cloud) -> None:
    """In all four: untouched, moving, completed, failed."""
    expected = await made(cloud, 4)
    service = cloud.daemon.service
    _, moving, done, broken = await service.ids(ROOT)
    await service.update(ROOT, moving, status="on")
    await service.complete(ROOT, done)
    await service.fail(ROOT, broken, Failure("X", "it broke"))
    rows = (await cloud.said("alice", LIST))["taskList"]
    assert [row["status"] for row in rows] == [0, 1, 2, 3]
    for query in ("status=1&status=2", "status=1,2"):
        assert ids([(await cloud.said("alice", f"{LIST}?{query}"))["taskList"]]) == expected[1:3]


@vector("K10")
async def a_failure_has_a_result_code(cloud: Cloud) -> None:
    failed, done = await made(cloud, 2)
    service = cloud.daemon.service
    first, second = await service.ids(ROOT)
    await service.fail(ROOT, first, Failure("X", "it broke"))
    await service.complete(ROOT, second)
    detail = await cloud.said("alice", f"GET /koodrive/ose/v1/task/{failed}")
    assert detail["status"] == 3
    assert re.fullmatch(r"18\d{6}", detail["resultCode"])
    assert "resultCode" not in await cloud.said("alice", f"GET /koodrive/ose/v1/task/{done}")


@vector("K11")
async def a_transfer_is_created(cloud: Cloud) -> None:
    body = {"taskType": 0, "srcUserId": "1", "dstUserId": "2"}
    reply = await cloud.said("alice", "POST /koodrive/ose/v1/task/create", body)
    assert (str(reply["code"]), reply["taskId"].isdecimal()) == ("0", True)
    assert (await cloud.said("alice", f"GET /koodrive/ose/v1/task/{reply['taskId']}"))["status"] == 0


@vector("K13")
async def a_walk_that_finds_nothing_ends(cloud: Cloud) -> None:
    await made(cloud, 10)
    assert ids(await walk(cloud, 3, query="&status=3")) == []
