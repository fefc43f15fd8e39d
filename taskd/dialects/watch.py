"""``Task.watch`` and ``Task.unwatch``: what happens to tasks, as notifications ``Task.event``.

``service.watching`` has the law of what is told. A notification's params are ``subscription``, ``event`` (the
kind of notice), ``revision``, and ``task`` (a record) for ``snapshot`` and ``changed``, ``id`` for ``destroyed``,
``id``, ``lines`` and ``next`` for ``log``. Whoever was disconnected goes on with the ``revision`` of the last
``changed``, ``destroyed`` or ``synced`` as ``since``, and with the last ``next`` of each task as ``log_from``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Final

import attrs

from taskd import codec
from taskd.dialects import Channel, Method, Stream
from taskd.dialects.native import record
from taskd.errors import BadParams
from taskd.model import JSON, Caller, Task
from taskd.service import Service
from taskd.service.watching import Kind, Notice, begin


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

    async def run(tell: Callable[[Mapping[str, JSON]], Awaitable[None]]) -> None:
        async def said(notice: Notice) -> None:
            await tell(_params(notice))

        await watch.run(said)

    return {"subscription": channel.open(Stream("Task.event", run)), "revision": revision}


async def _unwatch(service: Service, caller: Caller, params: UnwatchParams, channel: Channel) -> JSON:
    channel.close(params.subscription)
    return None


def _params(notice: Notice) -> Mapping[str, JSON]:
    said: dict[str, JSON] = {"event": notice.kind.value, "revision": notice.revision}
    match notice:
        case Notice(Kind.SNAPSHOT | Kind.CHANGED, task=Task() as task):
            said["task"] = _written(_Same(task))
        case Notice(Kind.DESTROYED, task=Task() as task):
            said["id"] = task.id
        case Notice(Kind.LOG, task=Task() as task):
            said["id"] = task.id
            said["lines"] = [codec.unstructure(line) for line in notice.lines]
            said["next"] = notice.lines[-1].n + 1
    return said


@attrs.frozen(eq=False)
class _Same:
    """A snapshot, equal to itself alone: snapshots are shared, and comparing them would cost more than writing."""

    task: Task

    def __hash__(self) -> int:
        return id(self.task)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.task is self.task


@lru_cache(maxsize=256)
def _written(same: _Same) -> JSON:
    """The record as JSON text, written once for all who are told of it."""
    return codec.Written(codec.dumps(record(same.task)))


METHODS: Final = (
    Method(
        "Task.watch", WatchParams, _watch, "Be told of every change, as notifications Task.event", channel=True
    ),
    Method("Task.unwatch", UnwatchParams, _unwatch, "Be told no more", channel=True),
)
