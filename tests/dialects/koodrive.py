"""A caller of KooDrive's face, without bytes; rows to put into a store, and both stores to put them into."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import parse_qsl

import attrs
import pytest
import trio

from taskd import codec
from taskd.dialects import Asked
from taskd.dialects.koodrive import face
from taskd.errors import TaskdError
from taskd.model import Caller, Task, Time
from taskd.operations import Operation
from taskd.service import Service
from taskd.states import State
from taskd.store import Store
from taskd.store.memory import MemoryStore
from taskd.store.sqlite import SqliteStore
from tests.bench import ROOT, user
from tests.dialects.client import served

ALICE, BOB = user("alice", 1001), user("bob", 1002)

# The fields of TaskInfo in the vendor's table that a task of ours can have.
FIELDS = {
    "taskId", "taskName", "taskType", "userId", "status", "initParams", "resultCode", "createTime", "startTime",
    "endTime",
}  # fmt: skip


def done(**changes: Any) -> Task:
    """A task that completed, to be put into a store as it is."""
    plain = Task(
        id=str(uuid.uuid4()),
        operation="external",
        params={},
        owner="root",
        processor="root",
        resident_on="here",
        created_at=Time(1_723_447_353.0),
        label="a label",
        state=State.COMPLETED,
        cancellable=False,
        attempt=1,
        started_at=Time(1_723_447_353.0),
        finished_at=Time(1_723_447_354.5),
        modified_at=Time(1_723_447_354.5),
    )
    return attrs.evolve(plain, **changes)


def silent(**changes: Any) -> Task:
    """An external task whose producer has said nothing yet."""
    return done(state=State.RUNNING, cancellable=True, finished_at=None, modified_at=None, **changes)


async def put(store: Store, *tasks: Task) -> list[str]:
    """Put tasks into the store, many in one commit; their taskIds in order."""
    seqs: list[int] = []

    async def create(task: Task) -> None:
        seqs.append((await store.create(task)).seq)

    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(create, task)
    return [str(seq) for seq in sorted(seqs)]


@attrs.frozen
class KooDrive:
    """A caller of the dialect; a reply is what JSON makes of it."""

    service: Service
    caller: Caller = ROOT
    wire: Literal["table", "example"] = "table"
    language: str = ""

    async def ask(self, method: str, path: str, query: str = "", body: bytes = b"") -> tuple[int, Any]:
        """The status and the body that a request to a path below the dialect's root is answered with."""
        dialect = face(self.wire)
        root = "/koodrive/ose/v1/task/"
        own = root + path if root + path in dialect.routes else root + "{id}"
        asked = Asked(
            self.service,
            self.caller,
            query=tuple(parse_qsl(query, keep_blank_values=True)),
            body=body,
            id=path if own.endswith("}") else "",
            language=self.language,
        )
        try:
            reply = await dialect.routes[own][method](asked)
        except TaskdError as error:
            reply = dialect.refuse(error, self.language)
        return reply.status, codec.loads(codec.dumps(reply.body))

    async def ls(self, query: str = "") -> Any:
        status, body = await self.ask("GET", "list", query)
        assert (status, str(body["code"])) == (200, "0"), body
        assert body["taskList"] == body["taskListDtos"]
        assert all(set(row) <= FIELDS and None not in row.values() for row in body["taskList"])
        return body

    async def ids(self, query: str = "") -> list[str]:
        return [row["taskId"] for row in (await self.ls(query))["taskList"]]

    async def detail(self, id: str) -> Any:
        status, body = await self.ask("GET", id)
        assert (status, str(body["code"])) == (200, "0"), body
        return body

    async def create(self, **fields: object) -> Any:
        status, body = await self.ask("POST", "create", body=codec.dumps(fields))
        assert (status, str(body["code"])) == (200, "0"), body
        return body["taskId"]

    async def walk(
        self,
        query: str = "",
        sizes: Callable[[], int] = lambda: 100,
        between: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint,
    ) -> list[Any]:
        """The pages from the start to the end, each of a size of its own; each cursor is beyond the last."""
        pages: list[Any] = []
        cursor = 0
        while True:
            pages.append(await self.ls(f"{query}&pageSize={sizes()}&pageCursor={cursor}"))
            if "nextCursor" not in pages[-1]:
                return pages
            assert int(pages[-1]["nextCursor"]) > cursor
            cursor = int(pages[-1]["nextCursor"])
            await between()


def shown(pages: Sequence[Any]) -> list[str]:
    return [row["taskId"] for page in pages for row in page["taskList"]]


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store
    made = MemoryStore() if request.param == "memory" else await SqliteStore.open(tmp_path / "taskd.sqlite")
    yield made
    await made.close()


class Serve(Protocol):
    """Serve KooDrive to root over the store, with these operations and ``external``."""

    def __call__(self, *operations: Operation, **settings: Any) -> AbstractAsyncContextManager[KooDrive]: ...


@pytest.fixture
def serve(store: Store, tmp_path: Path) -> Serve:
    @asynccontextmanager
    async def serving(*operations: Operation, **settings: Any) -> AsyncIterator[KooDrive]:
        async with served(tmp_path, *operations, store=store, **settings) as (service, _):
            yield KooDrive(service)

    return serving
