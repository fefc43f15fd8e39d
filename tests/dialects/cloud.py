"""UCloud's callers, without bytes: requests to the face's routes, and listeners; and what a client makes of it."""

from __future__ import annotations

import json
import types
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from taskd.dialects import Asked, Reply
from taskd.dialects.ucloud import FACE, listen
from taskd.errors import TaskdError
from taskd.model import JSON, Caller
from taskd.operations import Operation, external
from taskd.service import Service
from taskd.store import Store
from taskd.store.memory import MemoryStore
from tests.bench import running, user

ALICE = user("User#1234", 1001)
BOB = user("bob", 1002)


def service_of(name: str) -> Caller:
    return Caller(uid=7, gid=7, pid=1, user=name, roles=frozenset({"service"}))


UCLOUD = service_of("_ucloud")
OTHER = service_of("_other")

Frame = Mapping[str, JSON]
Stream = AsyncGenerator[Frame, None]


@asynccontextmanager
async def site(
    folder: Path, *operations: Operation, store: Store | None = None, **settings: Any
) -> AsyncIterator[Site]:
    """A service with those operations and ``external``."""
    table = {each.name: each for each in (*operations, external.OPERATION)}
    async with running(store or MemoryStore(), table, str(folder / "workspace"), **settings) as service:
        yield Site(service)


@attrs.frozen(eq=False)
class Site:
    """A service and its face."""

    service: Service

    async def ask(self, caller: Caller, route: str, body: JSON = None, *, raw: bytes = b"") -> Reply:
        """The answer to ``GET /api/tasks?page=1`` and such; what a route refuses is said by the face."""
        method, _, target = route.partition(" ")
        path, _, query = target.partition("?")
        pairs = tuple(
            (name, value) for name, _, value in (pair.partition("=") for pair in query.split("&") if pair)
        )
        id = ""
        if path not in FACE.routes:
            path, _, id = path.rpartition("/")
            path += "/{id}"
        data = raw if body is None else json.dumps(body).encode()
        try:
            return await FACE.routes[path][method](Asked(self.service, caller, pairs, data, id))
        except TaskdError as error:
            return FACE.refuse(error, "")

    async def said(self, caller: Caller, route: str, body: JSON = None) -> Any:
        """The body of an answer that is well."""
        reply = await self.ask(caller, route, body)
        assert reply.status == 200, reply
        json.dumps(reply.body)  # nothing that JSON cannot say
        return reply.body

    async def create(self, owner: Caller = ALICE, title: str = "title", status: str | None = None) -> str:
        body = {"title": title, "owner": owner.user, "initialStatus": status}
        made = await self.said(UCLOUD, "PUT /api/tasks", body)
        assert isinstance(made["jobId"], str)
        return made["jobId"]

    async def post(self, id: str, **update: JSON) -> None:
        """An update, as the documentation's clients send it."""
        whole = {**unchanged(id), **update}
        assert await self.said(UCLOUD, "POST /api/tasks/postStatus", {"update": whole}) == {}

    async def complete(self, id: str) -> None:
        assert await self.said(UCLOUD, "POST /api/tasks/markAsComplete", {"id": id}) == {}

    async def view(self, id: str) -> Any:
        return await self.said(ALICE, f"GET /api/tasks/retrieve?id={id}")

    async def rows(self) -> list[Any]:
        """The newest 250 that Alice's list has."""
        page = await self.said(ALICE, "GET /api/tasks?itemsPerPage=250")
        assert isinstance(page["items"], list)
        return page["items"]

    def listen(self, caller: Caller = ALICE, since: int | None = None) -> Stream:
        return listen(self.service, caller, {} if since is None else {"since": since})

    @asynccontextmanager
    async def listening(self, caller: Caller = ALICE, since: int | None = None) -> AsyncIterator[list[Frame]]:
        """The frames that somebody is told who keeps up, as they come."""
        async with heard(self.listen(caller, since)) as frames:
            yield frames


@asynccontextmanager
async def heard(stream: Stream) -> AsyncIterator[list[Frame]]:
    """The frames of a stream, as they come."""
    frames: list[Frame] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(collect, stream, frames)
        await trio.testing.wait_all_tasks_blocked()
        yield frames
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def collect(stream: Stream, frames: list[Frame]) -> None:
    async with aclosing(stream):
        async for frame in stream:
            json.dumps(frame)
            frames.append(frame)


async def quiet() -> None:
    """Everything that was to happen has."""
    await trio.testing.wait_all_tasks_blocked()


def unchanged(id: str) -> dict[str, JSON]:
    """A ``TaskUpdate`` that says nothing, in seed 001's order."""
    return {
        "jobId": id,
        "newTitle": None,
        "speeds": [],
        "progress": None,
        "complete": False,
        "messageToAppend": None,
        "newStatus": None,
    }


def update(id: str, **said: JSON) -> dict[str, JSON]:
    return {**unchanged(id), **said}


@attrs.define
class Screen:
    """What a user sees: V1's client's fold of the frames, over the rows of its list; and one marked ``resync``
    replaces the row.

    ``gone`` are the rows that were dropped because they were complete, as they last were.
    """

    rows: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    gone: dict[str, dict[str, Any]] = attrs.field(factory=dict)

    def add(self, frame: Mapping[str, Any]) -> None:
        if frame.get("resync"):
            self.rows.pop(frame["jobId"], None)
        row = self.rows.setdefault(frame["jobId"], {"messages": "", "speeds": []})
        if frame["newTitle"] is not None:
            row["title"] = frame["newTitle"]
        if frame["newStatus"] is not None:
            row["status"] = frame["newStatus"]
        if frame["progress"] is not None:
            row["progress"] = frame["progress"]
        row["speeds"] += [speed["title"] for speed in frame["speeds"]]
        row["messages"] += frame["messageToAppend"] or ""
        if frame["complete"]:
            self.gone[frame["jobId"]] = self.rows.pop(frame["jobId"])


@types.coroutine
def stepped(work: Coroutine[Any, Any, None], at: int, act: Callable[[], object]) -> Generator[Any, Any, int]:
    """Do ``work``, and ``act`` before its step ``at``; how many steps it had."""
    count, resume = 0, partial(work.send, None)
    while True:
        if count == at:
            act()
        count += 1
        try:
            trap = resume()
        except StopIteration:
            return count
        try:
            answer = yield trap
        except BaseException as error:
            resume = partial(work.throw, error)
        else:
            resume = partial(work.send, answer)
