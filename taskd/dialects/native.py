"""Our own words: the rest of ``Task.*``, ``Operation.ls`` and ``rpc.discover``.

A record is the public half of a ``Task`` snapshot, as the codec writes it: times in RFC 3339, ``null`` where
there is nothing yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final, Literal

import attrs

from taskd import __version__, codec
from taskd.dialects import Method, look, table
from taskd.dialects.smapi import DBG
from taskd.errors import BadParams
from taskd.model import JSON, Caller, Failure, Speed, Task
from taskd.operations import Operation
from taskd.service import Query, Report, Service, bounds
from taskd.states import State

PRIVATE: Final = (
    "modified_at", "journal", "request_id", "deadline_s", "destroy_on_finish", "annotations", "parent", "draft",
    "rights", "targets",
)  # fmt: skip

# The largest number that a store compares with.
LARGEST: Final = 2**63 - 1

# Bytes after which a page of Task.list, or of Task.log, ends early.
PAGE_BYTES: Final = 4 * 1024 * 1024

# The longest page of Task.list, and the most lines of one Task.log.
PAGE: Final = 1000


def record(task: Task) -> dict[str, JSON]:
    """The record of a task."""
    shown = codec.unstructure(task)
    assert isinstance(shown, dict)
    for name in PRIVATE:
        del shown[name]
    return shown


@attrs.frozen
class StartParams:
    operation: str = attrs.field(metadata={"doc": "one of Operation.ls"})
    params: Mapping[str, object] = attrs.field(factory=dict, metadata={"doc": "the operation's params"})
    label: str | None = None
    description: str = ""
    owner: str | None = attrs.field(default=None, metadata={"doc": "user name; the caller's own by default"})
    request_id: str | None = attrs.field(
        default=None, metadata={"doc": "the same id by the same caller for the same owner returns the same task"}
    )
    deadline_s: float | None = attrs.field(
        default=None, metadata={"doc": "seconds from now until it fails unless committed"}
    )
    destroy_on_finish: bool = attrs.field(default=False, metadata={"doc": "forget it as soon as it ended"})
    dbg: str = attrs.field(default="", metadata={"doc": DBG})


async def _start(service: Service, caller: Caller, params: StartParams) -> JSON:
    task = await service.start(
        caller,
        params.operation,
        params.params,
        label=params.label,
        description=params.description,
        owner=params.owner,
        request_id=params.request_id,
        deadline_s=params.deadline_s,
        destroy_on_finish=params.destroy_on_finish,
        dbg=params.dbg,
    )
    return record(task)


@attrs.frozen
class IdOnly:
    id: str = attrs.field(metadata={"doc": "the task's id"})


async def _recover(service: Service, caller: Caller, params: IdOnly) -> JSON:
    return record(await service.recover(caller, params.id))


@attrs.frozen
class ListParams:
    # Taken from State, so that a new one cannot be forgotten here; mypy wants its Literals spelt out.
    states: tuple[Literal[tuple(state.value for state in State)], ...] | None = None  # type: ignore[valid-type]
    operations: tuple[str, ...] | None = None
    owner: str | None = None
    label: str | None = None
    since: int | None = attrs.field(default=None, metadata={"doc": "only tasks changed after this revision"})
    order: Literal["newest", "oldest"] = "newest"
    page_size: int = attrs.field(default=100, metadata={"doc": f"1 to {PAGE}"})
    cursor: str | None = attrs.field(default=None, metadata={"doc": "next_cursor of the page before"})


async def _list(service: Service, caller: Caller, params: ListParams) -> JSON:
    if not 1 <= params.page_size <= PAGE:
        raise BadParams("params.page_size", f"must be from 1 to {PAGE}")
    cursor = params.cursor
    if cursor is not None and not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 19):
        raise BadParams("params.cursor", "is no next_cursor of Task.list")
    query = Query(
        states=None if params.states is None else frozenset(map(State, params.states)),
        operations=params.operations,
        owner=params.owner,
        label=params.label,
        since=None if params.since is None else min(params.since, LARGEST),
        newest_first=params.order == "newest",
        after=None if cursor is None else int(cursor),
        limit=params.page_size + 1,
    )
    tasks = await service.list(caller, query)
    page, count = _page(map(record, tasks[: params.page_size]))
    more = count < len(tasks)
    return {"tasks": page, "next_cursor": str(tasks[count - 1].seq) if more else None}


def _page(some: Iterable[JSON]) -> tuple[JSON, int]:
    """As many of them as PAGE_BYTES of JSON hold, one at least, in a list; and how many these are."""
    page: list[bytes] = []
    size = 0
    for each in some:
        text = codec.dumps(each)
        size += len(text)
        if page and size > PAGE_BYTES:
            break
        page.append(text)
    # As one: each by itself would keep the 8 KiB that orjson wrote it in.
    return codec.Written(b"[" + b",".join(page) + b"]"), len(page)


@attrs.frozen
class WaitParams:
    id: str
    timeout_s: float | None = attrs.field(default=None, metadata={"doc": "seconds; null: until it ended"})
    after_revision: int | None = attrs.field(
        default=None, metadata={"doc": "also return when the task has a higher revision"}
    )


async def _wait(service: Service, caller: Caller, params: WaitParams) -> JSON:
    return record(await service.wait(caller, params.id, params.timeout_s, params.after_revision))


@attrs.frozen
class UpdateParams:
    id: str
    progress: Report | None = None
    label: str | None = None
    status: str | None = None
    speeds: tuple[Speed, ...] | None = None
    log: tuple[str, ...] = attrs.field(
        default=(), metadata={"doc": f"at most {bounds.LINES} lines to add to the log"}
    )


async def _update(service: Service, caller: Caller, params: UpdateParams) -> JSON:
    bounds.lines(params.log)
    task = await service.update(
        caller,
        params.id,
        progress=params.progress,
        label=params.label,
        status=params.status,
        speeds=params.speeds,
        log=params.log,
    )
    return record(task)


@attrs.frozen
class CompleteParams:
    id: str
    result: object = None


async def _complete(service: Service, caller: Caller, params: CompleteParams) -> JSON:
    return record(await service.complete(caller, params.id, params.result))


@attrs.frozen
class FailParams:
    id: str
    error: Failure = attrs.field(metadata={"doc": "a stable code, a sentence, parameters of the code"})


async def _fail(service: Service, caller: Caller, params: FailParams) -> JSON:
    return record(await service.fail(caller, params.id, params.error))


@attrs.frozen
class LogParams:
    id: str
    start: int = attrs.field(default=0, metadata={"json": "from", "doc": "number of the first line, from 0"})
    limit: int = attrs.field(default=PAGE, metadata={"doc": f"1 to {PAGE} lines"})


async def _log(service: Service, caller: Caller, params: LogParams) -> JSON:
    if not 1 <= params.limit <= PAGE:
        raise BadParams("params.limit", f"must be from 1 to {PAGE}")
    if params.start < 0:
        raise BadParams("params.from", "must not be negative")
    lines = await service.log(caller, params.id, min(params.start, LARGEST), params.limit)
    page, count = _page(map(codec.unstructure, lines))
    return {"lines": page, "next": lines[count - 1].n + 1 if count else params.start}


@attrs.frozen
class Nothing:
    pass


async def _operations(service: Service, caller: Caller, params: Nothing) -> JSON:
    return [_descriptor(operation) for _, operation in sorted(service.operations.items())]


def _descriptor(operation: Operation) -> JSON:
    return {
        "name": operation.name,
        "summary": operation.summary,
        "params": codec.schema(operation.params),
        "restartable": operation.restartable,
        "roles": sorted(operation.roles),
    }


async def _discover(service: Service, caller: Caller, params: Nothing) -> JSON:
    return openrpc()


@cache
def openrpc() -> JSON:
    """The OpenRPC 1.3 document of all methods."""
    methods = []
    for method in table().values():
        schema = codec.schema(method.params)
        properties, required = schema["properties"], schema["required"]
        assert isinstance(properties, dict)
        assert isinstance(required, list)
        methods.append(
            {
                "name": method.name,
                "summary": method.summary,
                "paramStructure": "by-name",
                "params": [
                    {"name": name, "required": name in required, "schema": one} for name, one in properties.items()
                ],
                "result": {"name": "result", "schema": {}},
            }
        )
    return {"openrpc": "1.3.2", "info": {"title": "taskd", "version": __version__}, "methods": methods}


METHODS: Final = (
    Method("Task.start", StartParams, _start, "Start an operation as a task"),
    look("Task.get", IdOnly, record, "The record of a task"),
    Method("Task.list", ListParams, _list, "A page of records", page=True),
    Method("Task.wait", WaitParams, _wait, "The record, when the task ended or changed", long=True),
    Method("Task.update", UpdateParams, _update, "Report on an external task"),
    Method("Task.complete", CompleteParams, _complete, "An external task is done"),
    Method("Task.fail", FailParams, _fail, "An external task has failed"),
    Method("Task.log", LogParams, _log, "Lines of a task's log", page=True),
    Method("Task.recover", IdOnly, _recover, "Try a failed undo again", long=True),
    Method("Operation.ls", Nothing, _operations, "What can be started"),
    Method("rpc.discover", Nothing, _discover, "This table as an OpenRPC document"),
)
