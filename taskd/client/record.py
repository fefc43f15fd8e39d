"""What a daemon tells, typed: frozen attrs classes made of its replies.

They are read with forbearance. A field that a newer daemon adds is passed over, one that an older daemon does
not know has its default, and a state is the daemon's own word: a client outlives the daemon that it was made
for. ``Record.raw`` keeps the reply as it came.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from functools import cache
from typing import Self, TypeVar, Union, get_args, get_origin, get_type_hints

import attrs

from taskd import codec
from taskd.errors import NotCompleted
from taskd.model import JSON, Failure, LogLine, Progress, Residue, Speed, Time
from taskd.states import State

T = TypeVar("T")


@attrs.frozen
class Record:
    """A snapshot of a task. Times are seconds since the epoch, UTC."""

    id: str
    revision: int
    operation: str
    state: str
    created_at: Time
    params: Mapping[str, object] = attrs.field(factory=dict)
    seq: int = 0
    label: str = ""
    description: str = ""
    owner: str = ""
    processor: str = ""
    cancellable: bool = False
    cancel_requested: bool = False
    waits_for: str | None = None
    progress: Progress = Progress()
    status: str | None = None
    speeds: tuple[Speed, ...] = ()
    result: object = None
    error: Failure | None = None
    residue: tuple[Residue, ...] = ()
    attempt: int = 0
    started_at: Time | None = None
    finished_at: Time | None = None
    resident_on: str = ""
    debug_info: str = ""
    raw: Mapping[str, object] = attrs.field(factory=dict, repr=False, eq=False)

    @property
    def ended(self) -> bool:
        """Nothing changes its outcome any more. Told from the time, which an unknown state has too."""
        return self.finished_at is not None

    def check(self) -> Self:
        """The record itself, of a task that completed.

        Raises:
            NotCompleted: it failed, was cancelled, or has not ended.
        """
        if self.state == State.COMPLETED.value:
            return self
        failure = self.error or Failure("", "")
        raise NotCompleted(self.id, self.state, failure.code, failure.message)


@attrs.define(eq=False)
class Running:
    """A task that a block of code runs beside. ``record`` is how it began, and after the block how it ended."""

    record: Record

    @property
    def id(self) -> str:
        return self.record.id


@attrs.frozen
class Page:
    """A page of records; ``next_cursor`` asks for the next one, where there is one."""

    tasks: tuple[Record, ...]
    next_cursor: str | None = None


@attrs.frozen
class Lines:
    """Lines of a log; ``next`` is the number to go on from."""

    lines: tuple[LogLine, ...]
    next: int


@attrs.frozen
class Offer:
    """An operation that can be started; ``params`` is the JSON Schema of its params."""

    name: str
    summary: str = ""
    params: Mapping[str, object] = attrs.field(factory=dict)
    restartable: bool = False
    roles: tuple[str, ...] = ()


@attrs.frozen
class Grant:
    """A token: whoever comes by it is ``user`` with ``roles``. ``token``, what its holder presents, is told when
    it is made, and never again.
    """

    id: str
    user: str
    created_at: Time
    roles: tuple[str, ...] = ()
    expires_at: Time | None = None
    token: str = attrs.field(default="", repr=False)


def read(value: JSON, kind: type[T]) -> T:
    """A reply as an instance of ``kind``.

    Raises:
        BadParams: it does not fit; the path names where.
    """
    return codec.structure(_known(value, kind), kind, "reply")


def record(value: JSON) -> Record:
    """A record, with its ``raw``.

    Raises:
        BadParams: it is none.
    """
    typed = read(value, Record)
    assert isinstance(value, dict)
    return attrs.evolve(typed, raw=value)


def page(value: JSON) -> Page:
    """A page of records, each with its ``raw``.

    Raises:
        BadParams: it is none.
    """
    typed = read(value, Page)
    assert isinstance(value, dict)
    return attrs.evolve(
        typed, tasks=tuple(attrs.evolve(r, raw=raw) for r, raw in zip(typed.tasks, value["tasks"], strict=True))
    )


def _known(value: JSON, kind: object) -> JSON:
    """``value`` without the fields that ``kind`` does not know: the codec would refuse them."""
    if get_origin(kind) in (Union, types.UnionType):
        inner = [arg for arg in get_args(kind) if arg is not type(None)]
        return value if value is None or len(inner) != 1 else _known(value, inner[0])
    if get_origin(kind) is tuple and isinstance(value, list):
        return [_known(each, get_args(kind)[0]) for each in value]
    if isinstance(kind, type) and attrs.has(kind) and isinstance(value, dict):
        hints = _hints(kind)
        return {
            field.name: _known(value[field.name], hints[field.name])
            for field in attrs.fields(kind)
            if field.name in value and field.name != "raw"
        }
    return value


@cache  # to resolve them anew for each of thousands of records would take most of the time
def _hints(kind: type) -> Mapping[str, object]:
    return get_type_hints(kind)
