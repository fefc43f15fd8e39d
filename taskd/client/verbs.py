"""The daemon's methods as typed calls, written once for the blocking client and the one on trio.

A verb makes a ``Call``; nothing is sent. What is left at None is not said, so that the daemon's own default
counts and an older daemon is not asked about a field that it does not know.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from math import inf
from typing import Final, TypeVar

import attrs

from taskd.client.conversation import Call
from taskd.client.record import Grant, Lines, Offer, Page, Record, page, read, record
from taskd.model import JSON, Speed

T = TypeVar("T")

# Seconds that ``Waiting`` asks for at a time.
PART: Final = 10.0


def _given(**params: JSON) -> dict[str, JSON]:
    return {name: value for name, value in params.items() if value is not None}


def _nothing(_: JSON) -> None:
    return None


def _ids(value: JSON) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _offers(value: JSON) -> tuple[Offer, ...]:
    return tuple(read(each, Offer) for each in value) if isinstance(value, list) else ()


def _grants(value: JSON) -> tuple[Grant, ...]:
    return tuple(read(each, Grant) for each in value) if isinstance(value, list) else ()


def start(
    operation: str,
    params: Mapping[str, JSON] | None = None,
    *,
    label: str | None = None,
    description: str | None = None,
    owner: str | None = None,
    request_id: str | None = None,
    deadline_s: float | None = None,
    destroy_on_finish: bool | None = None,
    dbg: str | None = None,
) -> Call[Record]:
    """Start an operation; the task is on the daemon's disk when its record comes.

    The same ``request_id`` by the same caller for the same owner returns the same task, so a call that broke may
    be repeated. ``deadline_s``: seconds from now until it fails unless it is committed. ``destroy_on_finish``: it
    is forgotten when it has ended; not with a ``request_id``, and not beside a block (``running``).
    """
    given = _given(
        operation=operation,
        params=params,
        label=label,
        description=description,
        owner=owner,
        request_id=request_id,
        deadline_s=deadline_s,
        destroy_on_finish=destroy_on_finish,
        dbg=dbg,
    )
    return Call("Task.start", given, record, again=request_id is not None)


def twice(call: Call[T]) -> Call[T]:
    """The call, such that it may be made twice, where that can be: a start gets a ``request_id`` of its own.

    A task that is forgotten when it ends can have none.
    """
    if call.again or call.method != "Task.start" or call.params.get("destroy_on_finish"):
        return call
    given = call.params.get("request_id")
    request_id = os.urandom(16).hex() if given is None else given
    return attrs.evolve(call, params={**call.params, "request_id": request_id}, again=True)


def kept(call: Call[Record]) -> Call[Record]:
    """A start that may be made ``twice``, of a task whose end somebody waits for.

    Raises:
        ValueError: ``destroy_on_finish``; the task would be gone before its end is told.
    """
    if call.params.get("destroy_on_finish"):
        raise ValueError("destroy_on_finish does not go with running, which waits for the task's end")
    return twice(call)


def copy(
    source: str,
    target: str,
    *,
    overwrite: bool | None = None,
    verify: bool | None = None,
    rate_limit: int | None = None,
    blocks: Mapping[str, JSON] | None = None,
    label: str | None = None,
    request_id: str | None = None,
) -> Call[Record]:
    """Start a copy of an image between two absolute paths; ``rate_limit`` in bytes per second."""
    params = _given(
        source=source,
        target=target,
        overwrite=overwrite,
        verify=verify,
        rate_limit=rate_limit,
        blocks=blocks,
    )
    return start("copy", params, label=label, request_id=request_id)


def get(id: str) -> Call[Record]:
    """The record of a task."""
    return Call("Task.get", {"id": id}, record, again=True)


def page_of(
    *,
    states: Sequence[str] | None = None,
    operations: Sequence[str] | None = None,
    owner: str | None = None,
    label: str | None = None,
    since: int | None = None,
    order: str | None = None,
    page_size: int | None = None,
    cursor: str | None = None,
) -> Call[Page]:
    """A page of records, newest first unless ``order`` is ``oldest``."""
    given = _given(
        states=None if states is None else [*states],
        operations=None if operations is None else [*operations],
        owner=owner,
        label=label,
        since=since,
        order=order,
        page_size=page_size,
        cursor=cursor,
    )
    return Call("Task.list", given, page, again=True)


def ids() -> Call[tuple[str, ...]]:
    """The ids of all tasks that the caller may see, oldest first."""
    return Call("Task.ls", {}, _ids, again=True)


def wait(id: str, timeout_s: float | None = None, after_revision: int | None = None) -> Call[Record]:
    """The record when the task ended, or changed after that revision, or the seconds are over."""
    return Call("Task.wait", _given(id=id, timeout_s=timeout_s, after_revision=after_revision), record, again=True)


@attrs.frozen
class Waiting:
    """A ``wait`` in parts, each a call of its own: the daemon keeps one that was given up no longer than a part.

    ``until`` is when its seconds are over, on the caller's clock, whose time is ``now``.
    """

    id: str
    until: float
    after_revision: int | None

    @classmethod
    def of(cls, id: str, timeout_s: float | None, after_revision: int | None, now: float) -> Waiting:
        return cls(id, inf if timeout_s is None else now + timeout_s, after_revision)

    def part(self, now: float, deadline: float) -> Call[Record]:
        """The next part, for a caller who gives up at ``deadline``."""
        return wait(self.id, max(0.0, min(PART, self.until - now, deadline - now)), self.after_revision)

    def over(self, record: Record, now: float) -> bool:
        """Whether ``record``, which a part gave, is what was waited for."""
        changed = self.after_revision is not None and record.revision > self.after_revision
        return record.ended or changed or now >= self.until


def cancel(id: str, *, must: bool | None = None) -> Call[None]:
    """Ask a task to stop; durable when answered. With ``must`` a cancel that is too late is refused.

    One that is repeated when the task is cancelled already is granted again.
    """
    return Call("Task.cancel", _given(id=id, must=must), _nothing, again=True)


def destroy(id: str, *, force: bool | None = None) -> Call[None]:
    """Forget an ended task; with ``force`` also one that left residue."""
    return Call("Task.destroy", _given(id=id, force=force), _nothing)


def log(id: str, start: int = 0, limit: int = 1000) -> Call[Lines]:
    """At most ``limit`` lines (1 to 1000) of a task's log from number ``start`` on."""
    return Call("Task.log", {"id": id, "from": start, "limit": limit}, partial(read, kind=Lines), again=True)


def recover(id: str) -> Call[Record]:
    """Try a failed undo again; the record says what is left."""
    return Call("Task.recover", {"id": id}, record)


def update(
    id: str,
    *,
    done: int | None = None,
    total: int | None = None,
    unit: str | None = None,
    fraction: float | None = None,
    label: str | None = None,
    status: str | None = None,
    speeds: Sequence[Speed] | None = None,
    log: Sequence[str] | None = None,
) -> Call[Record]:
    """Report on an external task as its producer; without anything it is a sign of life.

    ``done`` of ``total`` in ``unit``, or a ``fraction`` from 0 to 1; ``log``: lines to add to its log.
    """
    given = _given(
        id=id,
        progress=_given(done=done, total=total, unit=unit, fraction=fraction) or None,
        label=label,
        status=status,
        speeds=None if speeds is None else [attrs.asdict(each) for each in speeds],
        log=None if log is None else [*log],
    )
    return Call("Task.update", given, record)


def complete(id: str, result: JSON = None) -> Call[Record]:
    """An external task is done; also a cancelled one that could not be stopped any more."""
    return Call("Task.complete", _given(id=id, result=result), record)


def fail(id: str, code: str, message: str, data: Sequence[str] = ()) -> Call[Record]:
    """An external task has failed: a stable ``code``, a sentence, the code's parameters. It is also how its
    producer obeys a cancel: the task then ends cancelled.
    """
    return Call("Task.fail", {"id": id, "error": {"code": code, "message": message, "data": [*data]}}, record)


def operations() -> Call[tuple[Offer, ...]]:
    """What can be started."""
    return Call("Operation.ls", {}, _offers, again=True)


def add_token(user: str, roles: Sequence[str], expires_s: float | None = None) -> Call[Grant]:
    """Make a token, by which a proxy's client is ``user`` with ``roles`` (admin, service, user); an admin's call.

    ``expires_s``: seconds from now until it is as good as none. The grant has what the holder presents: it is told
    this once.
    """
    given = _given(user=user, roles=[*roles], expires_s=expires_s)
    return Call("Token.add", given, partial(read, kind=Grant))


def tokens() -> Call[tuple[Grant, ...]]:
    """All tokens, oldest first, without what their holders present; an admin's call."""
    return Call("Token.ls", {}, _grants, again=True)


def remove_token(id: str) -> Call[None]:
    """Remove a token; what goes on under it ends. An admin's call."""
    return Call("Token.rm", {"id": id}, _nothing)


def watch(
    ids: Sequence[str] | None, *, since: int | None, log: bool, log_from: Mapping[str, int] | None
) -> Call[None]:
    """Be told, as notifications ``Task.event``, what happens to tasks; ``event`` reads them."""
    given = _given(ids=None if ids is None else [*ids], since=since, log=log, log_from=log_from or None)
    return Call("Task.watch", given, _nothing)


def raw(method: str, params: Mapping[str, JSON]) -> Call[JSON]:
    """Any method, with its bare result as it comes."""
    return Call(method, params, lambda result: result)
