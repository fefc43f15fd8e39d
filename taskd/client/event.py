"""What a watch tells, typed, and where a watcher stands, so that it can go on elsewhere.

The law of what is told is that of ``Task.watch``; to this a watcher that outlives connections adds: nothing is
missed, and nothing told twice. A task that was known, and that the daemon does not tell of again where it tells
all anew, is asked about: it has ended, or is gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeAlias

import attrs

from taskd import codec
from taskd.client import verbs
from taskd.client.conversation import Call, Notification, refusal
from taskd.client.record import Record, read, record
from taskd.client.refusals import DoesNotExist
from taskd.errors import BadParams, Refused
from taskd.model import JSON, LogLine

# Of so many tasks that have ended a watcher remembers how far their logs were told.
ENDINGS: Final = 1000


@attrs.frozen
class Snapshot:
    """How a task is, to somebody who begins, or begins anew after ``Resync``."""

    revision: int
    record: Record


@attrs.frozen
class Changed:
    """A task has changed, or is new."""

    revision: int
    record: Record


@attrs.frozen
class Destroyed:
    """There is no such task any more."""

    revision: int
    id: str


@attrs.frozen
class Log:
    """More lines of a task's log, ahead of the state that they belong to. ``next``: the number to come."""

    revision: int
    id: str
    lines: tuple[LogLine, ...]
    next: int


@attrs.frozen
class Synced:
    """All that there was has been told; from here on it is told as it happens."""

    revision: int


@attrs.frozen
class Resync:
    """Too much has happened, or the daemon has started again: states were skipped, the newest follow."""

    revision: int


Event: TypeAlias = Snapshot | Changed | Destroyed | Log | Synced | Resync

KINDS: Final[Mapping[str, type[Event]]] = {
    "snapshot": Snapshot,
    "changed": Changed,
    "destroyed": Destroyed,
    "log": Log,
    "synced": Synced,
    "resync": Resync,
}


def event(params: JSON) -> Event | None:
    """The params of a notification, read; None for a kind of a newer daemon's.

    Raises:
        BadParams: they are no event's.
    """
    if not isinstance(params, dict):
        raise BadParams("event", "is no object")
    kind = KINDS.get(str(params.get("event")))
    if kind is Snapshot or kind is Changed:
        return kind(read(params.get("revision"), int), record(params.get("task")))
    return None if kind is None else read(params, kind)


@attrs.frozen
class Told:
    """What is remembered of a record: its ``revision``, and a hash of the ``rest``.

    A daemon that starts again gives every task a new revision, whether anything else has changed or not.
    """

    revision: int
    rest: int

    @classmethod
    def of(cls, record: Record) -> Told:
        return cls(record.revision, hash(codec.dumps({**record.raw, "revision": None})))


@attrs.define(eq=False)
class Standing:
    """Where a watcher of the tasks ``ids``, or of all, stands, whatever it is connected to.

    ``_told`` is, by task, what was told of it last, until it has ended; of those in ``ids``, until it is gone.
    While all is told anew, ``_unheard`` are those of them that were not told of again yet.
    ``_due`` is what is to be told next; an id in it is that of a task to be asked about.
    """

    ids: list[str] | None
    log: bool
    _due: deque[Event | str] = attrs.field(factory=deque, init=False)
    _since: int | None = None
    _told: dict[str, Told] = attrs.field(factory=dict)
    _unheard: set[str] = attrs.field(factory=set)
    _log_from: dict[str, int] = attrs.field(factory=dict)
    _over: dict[str, None] = attrs.field(factory=dict)

    @property
    def over(self) -> bool:
        """Every task that was named is gone, and told as gone: nothing more will happen."""
        return self.ids == [] and not self._due

    def next(self) -> Event | None:
        """What is to be told next, where that is known."""
        if not self._due or isinstance(event := self._due[0], str):
            return None
        self._due.popleft()
        return event

    @property
    def doubt(self) -> str | None:
        """The task that has to be asked about before anything else is told: see ``found`` and ``lost``."""
        return self._due[0] if self._due and isinstance(self._due[0], str) else None

    def call(self) -> Call[None]:
        """What to ask of a new connection."""
        # Whoever has not heard all of the first telling hears all anew.
        self._unheard = set(self._told) if self._since is None else set()
        return verbs.watch(self.ids, since=self._since, log=self.log, log_from=self._log_from)

    def hear(self, notification: Notification) -> None:
        """Something has come.

        Raises:
            BadParams: what has come is nothing that a daemon says, or that the watch is over.
        """
        if notification.method == "Task.event":
            match notification.params:
                case {"error": error}:
                    raise BadParams(notification.method, str(refusal(error)))
            self._due.extend(self._heard(event(notification.params)))

    def _heard(self, said: Event | None) -> Iterator[Event | str]:
        match said:
            case Snapshot() | Changed():
                yield from self._state(said)
            case Destroyed(revision, id):
                yield self._gone(id, revision)
                self._since = revision
            case Log(revision, id, lines, next):
                start, self._log_from[id] = self._log_from.get(id, 0), next
                if new := tuple(line for line in lines if line.n >= start):
                    yield Log(revision, id, new, next)
            case Resync():
                self._unheard = set(self._told)
                yield said
            case Synced(revision):
                yield from tuple(self._unheard)
                self._unheard.clear()
                self._since = revision
                yield said

    def _state(self, said: Snapshot | Changed) -> Iterator[Event]:
        record = said.record
        self._unheard.discard(record.id)
        before, now = self._told.get(record.id), Told.of(record)
        if record.ended and self.ids is None:
            self._told.pop(record.id, None)
        else:
            self._told[record.id] = now
        if record.ended:
            self._remember(record.id)
        if isinstance(said, Changed):
            self._since = said.revision
        known = before is not None and (before == now if isinstance(said, Changed) else before.rest == now.rest)
        if not known:
            yield said

    def found(self, record: Record) -> None:
        """The answer about the one in doubt."""
        self._due.popleft()
        self._due.extendleft(self._state(Snapshot(record.revision, record)))

    def lost(self, error: Refused) -> None:
        """The task in doubt, or one that a watch that goes on has named, does not exist any more.

        Raises:
            Refused: that is not why.
        """
        if not isinstance(error, DoesNotExist) or not self._goes_on:
            raise error
        id = error.details[-1]
        if self.doubt == id:
            self._due.popleft()
        self._due.appendleft(self._gone(id, self._since or 0))

    @property
    def _goes_on(self) -> bool:
        return bool(self._told) or self._since is not None

    def _gone(self, id: str, revision: int) -> Destroyed:
        for known in (self._told, self._log_from, self._over):
            known.pop(id, None)
        self._unheard.discard(id)
        if self.ids is not None and id in self.ids:
            self.ids.remove(id)
        return Destroyed(revision, id)

    def _remember(self, id: str) -> None:
        """How far the log was told of one that has ended, for some time: it may be recovered."""
        if id in self._log_from:
            self._over.pop(id, None)
            self._over[id] = None
        while len(self._over) > ENDINGS:
            oldest = next(iter(self._over))
            del self._over[oldest]
            self._log_from.pop(oldest, None)


def named(ids: str | Iterable[str] | None) -> list[str] | None:
    """The tasks that a watch is to name: one, some, or all."""
    if ids is None:
        return None
    return [ids] if isinstance(ids, str) else [*dict.fromkeys(ids)]
