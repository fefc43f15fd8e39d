"""UCloud's models of the first generation: what comes in is read, what goes out is made; nothing else is said.

Every field is always there, times are whole milliseconds since the epoch (SDU-eScience/UCloud: the generated page
"Tasks" of its developer guide, and backend/service-lib, DefaultMapper.kt and Pagination.kt). What comes in is
normalised as there: members that are unknown are ignored, an explicit ``null`` where there is a default is the
default. An Int has 32 bits.

What the service or JSON-RPC takes strictly, ``read`` takes so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs

from taskd import codec, model
from taskd.errors import BadParams, InvalidRequest
from taskd.model import JSON, Task
from taskd.states import State

T = TypeVar("T")

# The largest Int of Kotlin; the smallest is one further from zero.
INT: Final = 2**31 - 1

# The sizes of a page; any other is DEFAULT_PAGE (Pagination.kt, NormalizedPaginationRequest).
PAGES: Final = frozenset({10, 25, 50, 100, 250})
DEFAULT_PAGE: Final = 50


def _int32(_: object, field: attrs.Attribute[int], value: int) -> None:
    if not -INT - 1 <= value <= INT:
        raise ValueError(f"{field.name} must fit 32 bits")


# What comes in.


@attrs.frozen
class Progress:
    title: str
    current: int = attrs.field(validator=_int32)
    maximum: int = attrs.field(validator=_int32)


@attrs.frozen
class Speed:
    title: str
    speed: float
    unit: str
    as_text: str = attrs.field(metadata={"json": "asText", "doc": "the same for people to read"})


@attrs.frozen
class TaskUpdate:
    job_id: str = attrs.field(metadata={"json": "jobId", "doc": "the task's id"})
    new_title: str | None = attrs.field(default=None, metadata={"json": "newTitle", "doc": "null: as it was"})
    speeds: tuple[Speed, ...] = attrs.field(default=(), metadata={"doc": "added to those of before"})
    progress: Progress | None = attrs.field(default=None, metadata={"doc": "null: as it was"})
    complete: bool = attrs.field(default=False, metadata={"doc": "the task is done, with this update"})
    message_to_append: str | None = attrs.field(
        default=None, metadata={"json": "messageToAppend", "doc": "added to the log as it is, no line break"}
    )
    new_status: str | None = attrs.field(default=None, metadata={"json": "newStatus", "doc": "null: as it was"})


@attrs.frozen
class CreateRequest:
    title: str
    owner: str = attrs.field(metadata={"doc": "the user whom it is done for"})
    initial_status: str | None = attrs.field(default=None, metadata={"json": "initialStatus"})


@attrs.frozen
class ListRequest:
    items_per_page: int | None = attrs.field(
        default=None, metadata={"json": "itemsPerPage", "doc": "10, 25, 50, 100 or 250; any other is 50"}
    )
    page: int | None = attrs.field(default=None, metadata={"doc": "from 0"})


@attrs.frozen
class PostStatusRequest:
    update: TaskUpdate


@attrs.frozen
class FindByStringId:
    id: str = attrs.field(metadata={"doc": "the task's id"})


def read(value: JSON, kind: type[T]) -> T:
    """What came in, as an instance of ``kind``.

    Raises:
        InvalidRequest: a required member is missing, or one is of the wrong type; the reason names it.
    """
    try:
        return codec.structure(_normal(value, kind), kind, "$")
    except BadParams as error:
        raise InvalidRequest(str(error)) from None


def _normal(value: JSON, kind: Any) -> JSON:
    """``value`` without the members that ``kind`` does not know, and without null where it has a default."""
    if get_origin(kind) in (Union, UnionType):  # with None: nothing else is in a model
        kind = get_args(kind)[0]
    if get_origin(kind) is tuple and isinstance(value, list):
        return [_normal(each, get_args(kind)[0]) for each in value]
    if not (attrs.has(kind) and isinstance(value, dict)):
        return value
    return {
        name: _normal(value[name], hint)
        for name, hint, optional in _members(kind)
        if name in value and not (optional and value[name] is None)
    }


@cache
def _members(kind: Any) -> Sequence[tuple[str, Any, bool]]:
    hints = get_type_hints(kind)
    return [
        (field.metadata.get("json", field.name), hints[field.name], field.default is not attrs.NOTHING)
        for field in attrs.fields(kind)
    ]


@contextmanager
def named(**names: str) -> Iterator[None]:
    """Around a verb of the service: of a param that it refuses, the name that the member has here."""
    try:
        yield
    except BadParams as error:
        field = error.path.removeprefix("params.")
        part = max((name for name in names if field.startswith(name)), key=len, default="")
        raise BadParams(f"params.{names.get(part, '')}{field.removeprefix(part)}", error.fault) from None


# What goes out.


def ms(moment: float) -> int:
    return round(moment * 1000)


def status(task: Task) -> str | None:
    """What the producer said last; of a task that ended otherwise than well, that, because ``complete`` is true
    of it too.
    """
    match task.state:
        case State.FAILED:
            return f"Failed: {task.error.message if task.error else 'unknown'}"
        case State.CANCELLED:
            return "Cancelled"
        case _:
            return task.status


def task_of(task: Task) -> dict[str, JSON]:
    """``Task``."""
    return {
        "jobId": task.id,
        "owner": task.owner,
        "processor": task.processor,
        "title": task.label,
        "status": status(task),
        "complete": task.state.ended,
        "startedAt": ms(task.created_at),
        "modifiedAt": ms(task.modified),
    }


def progress_of(progress: model.Progress) -> dict[str, JSON] | None:
    """``Progress``; None where there is nothing to count. What no Int can hold is told in another unit."""
    done, total, title = progress.done, progress.total, progress.unit
    if total is not None and total > INT and title == "bytes":
        whole = -(-total >> 20)
        done, total, title = whole if done >= total else done >> 20, whole, "MiB"
    if total is None or total > INT:
        if not 0 < progress.fraction < 1:
            return None
        done, total, title = int(progress.fraction * 100), 100, "%"
    return {"title": title, "current": min(done, INT), "maximum": total}


def speed_of(speed: model.Speed) -> dict[str, JSON]:
    """``Speed``."""
    return {"title": speed.title, "speed": speed.speed, "unit": speed.unit, "asText": speed.as_text}


def page_of(items: Sequence[JSON], total: int, size: int, number: int) -> dict[str, JSON]:
    """``Page``."""
    return {"itemsInTotal": total, "itemsPerPage": size, "pageNumber": number, "items": list(items)}


def why(sentence: str, code: str | None = None) -> dict[str, JSON]:
    """``CommonErrorMessage``: a sentence for people, and a code for programs where there is one."""
    return {"why": sentence, "errorCode": code}
