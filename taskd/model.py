"""The nouns of taskd: frozen attrs classes, and nothing that acts.

A ``Task`` is a snapshot. What is alive about a task, its scope, lock and watchers, is ``registry.Live``.
Times are seconds since the epoch (UTC, milliseconds kept) in here and RFC 3339 on the wire; ``codec`` turns
one into the other. Sizes are bytes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NewType, TypeAlias

import attrs

from taskd.states import State

# Anything that JSON can say; whoever reads one narrows it with isinstance.
JSON: TypeAlias = object

# Seconds since the epoch; a type of its own, so that the codec knows a time from a number.
Time = NewType("Time", float)


class DateTime(str):
    """A time as XenAPI writes it, such as ``20260101T12:00:00Z``; XML says it with a type of its own."""

    __slots__ = ()


def now() -> Time:
    """This moment, with the milliseconds that the wire can carry."""
    return Time(round(time.time(), 3))


def later(moment: Time) -> Time:
    """This moment, or where it is no later than ``moment``, the next that the wire can tell from it."""
    return max(now(), Time(round(moment + 0.001, 3)))


@attrs.frozen
class Progress:
    """How far a task is: ``done`` of ``total`` in ``unit``, monotone within an attempt (law L9).

    ``fraction`` is 0..1 and 1.0 only when the task completed; ``rate`` is units per second, smoothed;
    ``eta_s`` seconds left; ``moved_at`` the time of the last movement.
    """

    done: int = 0
    total: int | None = None
    unit: str = ""
    fraction: float = 0.0
    rate: float | None = None
    eta_s: float | None = None
    moved_at: Time | None = None


@attrs.frozen
class Failure:
    """Why a task failed: a stable ``code``, a sentence, and the code's parameters."""

    code: str
    message: str
    data: tuple[str, ...] = ()


@attrs.frozen
class Undo:
    """One step of a journal: a verb of the operation and its arguments. Data, never a closure (law L3).

    The same shape serves for the finish steps after a commit.
    """

    verb: str
    args: Mapping[str, JSON] = attrs.field(factory=dict)


@attrs.frozen
class Residue:
    """A step that could not be done, and why."""

    verb: str
    args: Mapping[str, JSON]
    reason: str


@attrs.frozen
class Speed:
    """One of the rates that a producer reports for an external task, for people to read.

    ``as_text`` is the producer's own wording of it, "" where there is none.
    """

    title: str
    speed: float
    unit: str
    as_text: str = ""


@attrs.frozen
class Draft:
    """What a producer has said about the outcome of a task that has not ended: it counts with the end.

    ``error`` is a code and its parameters, empty where nothing was said.
    """

    result: JSON = None
    error: tuple[str, ...] = ()


@attrs.frozen
class LogLine:
    """Line ``n`` of a task's log, counted from 0 and never renumbered."""

    n: int
    at: Time
    line: str


@attrs.frozen
class Rights:
    """With whose rights a task acts on files: what the kernel grants to this user and these groups.

    With ``roots``, absolute folders, it acts beneath these and nowhere else.
    """

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    roots: tuple[str, ...] = ()


@attrs.frozen
class Task:
    """A snapshot of a task: true when it was made, replaced (never changed) by one with a higher revision.

    ``journal`` holds, last to be undone first, the undo steps while the task runs and the finish steps once
    it is committed; it is stored in the same row as the state, so that the two cannot disagree.

    No end is earlier than the start, and no start earlier than the making, whatever the machine's clock did.
    """

    id: str
    operation: str
    params: Mapping[str, JSON]
    owner: str
    processor: str
    resident_on: str
    created_at: Time
    label: str = ""
    description: str = ""
    debug_info: str = ""
    seq: int = 0
    revision: int = 0
    state: State = State.QUEUED
    cancellable: bool = True
    cancel_requested: bool = False
    # What a queued task waits for, in words; kept in memory only.
    waits_for: str | None = None
    progress: Progress = Progress()
    status: str | None = None
    speeds: tuple[Speed, ...] = ()
    result: JSON = None
    error: Failure | None = None
    residue: tuple[Residue, ...] = ()
    attempt: int = 0
    started_at: Time | None = None
    finished_at: Time | None = None
    # What follows is ours; no record shows it. ``modified_at`` is the time of the last durable change, None
    # while nothing has happened since the task was made.
    modified_at: Time | None = None
    journal: tuple[Undo, ...] = ()
    request_id: str | None = None
    deadline_s: float | None = None
    destroy_on_finish: bool = False
    # The caller's own notes on it, the task that it is a part of (an id), and the outcome so far.
    annotations: Mapping[str, str] = attrs.field(factory=dict)
    parent: str | None = None
    draft: Draft = Draft()
    # None: the daemon's own.
    rights: Rights | None = None
    # What it works on, as its operation said when it was started last, until it has ended and owes nothing: for a
    # start of the daemon where the operation is not there to be asked.
    targets: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        started = None if self.started_at is None else max(self.started_at, self.created_at)
        ended = None if self.finished_at is None else max(self.finished_at, started or self.created_at)
        object.__setattr__(self, "started_at", started)
        object.__setattr__(self, "finished_at", ended)

    @property
    def open(self) -> bool:
        """There is still work on it: it has not ended, an undo is still owed, or it is still to be destroyed."""
        return not self.state.ended or bool(self.journal) or self.destroy_on_finish

    @property
    def modified(self) -> Time:
        """When something last happened to it, in memory or durably."""
        return max(self.created_at, self.modified_at or self.created_at, self.progress.moved_at or self.created_at)

    @property
    def about(self) -> Mapping[str, str]:
        """The fields of a line of the daemon's log about it (``logging``'s ``extra``)."""
        return {"task": self.id, "dbg": self.debug_info} if self.debug_info else {"task": self.id}

    def __repr__(self) -> str:
        return f"<Task {self.id} {self.operation} {self.state} rev={self.revision}>"


@attrs.frozen
class Caller:
    """Who calls, and its roles. A user has one identity, its name, however it comes.

    Either the kernel tells who is on the other end of the connection, and the config its roles; or it came by a
    token, which tells both: then ``token`` is the token's id, and there is no ``uid`` and no ``gid``. ``groups``
    are the supplementary ones. A ``proxy`` speaks for whoever brings a token, and by itself for nobody: it has
    no roles.
    """

    uid: int | None
    gid: int | None
    pid: int
    user: str
    roles: frozenset[str]
    groups: frozenset[int] = frozenset()
    proxy: bool = False
    token: str | None = None

    @property
    def admin(self) -> bool:
        return "admin" in self.roles

    def __repr__(self) -> str:
        by = f"uid={self.uid}" if self.token is None else f"token={self.token}"
        return f"<Caller {self.user} {by} pid={self.pid}{' proxy' if self.proxy else ''}>"


@attrs.frozen
class Token:
    """What lets somebody in through a proxy, as ``user`` with ``roles``.

    ``digest`` is the SHA-256, in hex, of the secret that only its holder has; neither is ever shown. ``id`` has
    8 hex digits. Without ``expires_at`` it is good until it is removed.
    """

    id: str
    user: str
    roles: tuple[str, ...]
    digest: str = attrs.field(repr=False)
    created_at: Time
    expires_at: Time | None = None
