"""``Task.watch`` and ``Task.unwatch``: what happens to tasks, as notifications ``Task.event``.

``service.watching`` has the law of what is told. A notification's params are ``subscription``, ``event`` (the
kind of notice), ``revision``, and ``task`` (a record) for ``snapshot`` and ``changed``, ``id`` for ``destroyed``,
``id``, ``lines`` and ``next`` for ``log``. Of a watch that cannot go on, the last one's are ``subscription`` and
``error``. Whoever was disconnected goes on with the ``revision`` of the last
``changed``, ``destroyed`` or ``synced`` as ``since``, and with the last ``next`` of each task as ``log_from``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final

import attrs

from taskd import codec
from taskd.dialects import Channel, Method, Stream
from taskd.dialects.native import record
from taskd.errors import BadParams
from taskd.model import JSON, Caller, LogLine, Task
from taskd.service import Service
from taskd.service.watching import Kind, Notice, begin

# Bytes of notifications that are on their way to one watcher at a time, about.
LONGEST: Final = 256 * 1024


@attrs.frozen
class WatchParams:
    ids: tuple[str, ...] | None = attrs.field(
        default=None, metadata={"doc": "only these tasks, 1 to 1000; null: all that the caller may see"}
    )
    since: int | None = attrs.field(
        default=None, metadata={"doc": "go on from this revision; null: from a snapshot"}
    )
    log: bool = attrs.field(default=False, metadata={"doc": "also tell the lines of logs"})
    log_from: Mapping[str, int] = attrs.field(
        factory=dict, metadata={"doc": "by task id, the number of the first line to tell; 0 for others"}
    )


@attrs.frozen
class UnwatchParams:
    subscription: str


async def _watch(service: Service, caller: Caller, params: WatchParams, channel: Channel) -> JSON:
    for name, number in (*params.log_from.items(), ("", params.since or 0)):
        if number < 0:
            raise BadParams(f"params.log_from.{name}" if name else "params.since", "must not be negative")
    watch = await begin(service, caller, params.ids, params.since, log=params.log, log_from=params.log_from)
    revision = watch.revision

    async def run(tell: Callable[[Sequence[Mapping[str, JSON]]], Awaitable[None]]) -> None:
        async def said(notices: Sequence[Notice]) -> None:
            some: list[Mapping[str, JSON]] = []
            size = 0
            for notice in notices:
                params, more = _params(notice)
                if some and size + more > LONGEST:
                    await tell(some)
                    some, size = [], 0
                some.append(params)
                size += more
            await tell(some)

        await watch.run(said, channel.turn)

    return {"subscription": channel.open(Stream("Task.event", run)), "revision": revision}


async def _unwatch(service: Service, caller: Caller, params: UnwatchParams, channel: Channel) -> JSON:
    channel.close(params.subscription)
    return None


def _params(notice: Notice) -> tuple[Mapping[str, JSON], int]:
    """The params, and about how many bytes they are."""
    said: dict[str, JSON] = {"event": notice.kind.value, "revision": notice.revision}
    size = 100
    match notice:
        case Notice(Kind.SNAPSHOT | Kind.CHANGED, task=Task() as task):
            text = _written(_Same(task))
            said["task"] = codec.Written(text)
            size += len(text)
        case Notice(Kind.DESTROYED, task=Task() as task):
            said["id"] = task.id
        case Notice(Kind.LOG, task=Task() as task):
            lines = [_line(line) for line in notice.lines]
            said["id"] = task.id
            said["lines"] = [codec.Written(text) for text in lines]
            said["next"] = notice.lines[-1].n + 1
            size += sum(map(len, lines))
    return said, size


@attrs.frozen(eq=False)
class _Same:
    """A snapshot, equal to itself alone: snapshots are shared, and comparing them would cost more than writing."""

    task: Task

    def __hash__(self) -> int:
        return id(self.task)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.task is self.task


# A record, a line of a log: written once for all who are told of it.


@lru_cache(maxsize=64)
def _written(same: _Same) -> bytes:
    return codec.dumps(record(same.task))


@lru_cache(maxsize=1024)
def _line(line: LogLine) -> bytes:
    return codec.dumps(codec.unstructure(line))


METHODS: Final = (
    Method(
        "Task.watch", WatchParams, _watch, "Be told of every change, as notifications Task.event", channel=True
    ),
    Method("Task.unwatch", UnwatchParams, _unwatch, "Be told no more", channel=True),
)
