"""XenAPI's class ``event``: what changed since a token, waited for; and the older ``register`` and ``next``.

A token is the run of the daemon and a revision, comparable as text. The law: an event carries the snapshot that
was taken when the change happened; each object has one event per call, its newest, but a task that was destroyed
has its last snapshot told before that, where it was not yet; and ``valid_ref_counts`` fits the token to the last
change. A token of another run, or older than what is kept, is answered with all there is, as added
(xapi-project/xen-api, ocaml/xapi/xapi_event.ml and ocaml/xapi-types/event_types.ml). Of what was made and
destroyed in between xapi tells nothing; but who made it may be waiting for its end, and would for ever.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Final

import attrs
import trio

from taskd.dialects.xenapi.message import REF, VOID, Message, Visit, id_of, number, ref, text, texts
from taskd.dialects.xenapi.pool import ref_of
from taskd.dialects.xenapi.task import every, shown
from taskd.errors import DoesNotExist, XenApiError
from taskd.model import JSON, Task
from taskd.service import Change, Feed, places
from taskd.service.gate import listed

# Seconds from the first change that a call has waited for to its answer: what comes meanwhile is in it (as xapi).
BATCH: Final = 0.05

# Most classes and objects that one call may ask about: they take memory as long as it waits.
MOST: Final = 1000

# The classes that have events, beside tasks.
STILL: Final = ("pool", "host")

_ORDER: Final = ("add", "mod", "del")


@attrs.frozen
class Token:
    """``revision`` in the run that ``epoch`` names; 0 of 0 is before everything."""

    epoch: int
    revision: int

    @classmethod
    def parse(cls, said: str) -> Token:
        if not said:
            return cls(0, 0)
        match = re.fullmatch(r"([0-9]{1,20}),([0-9]{1,20})", said)
        if match is None:
            raise XenApiError("EVENT_FROM_TOKEN_PARSE_FAILURE", (said,))
        return cls(int(match[1]), int(match[2]))

    def known_to(self, feed: Feed) -> bool:
        return self.epoch == feed.epoch and feed.covers(self.revision)

    def __str__(self) -> str:
        return f"{self.epoch:020},{self.revision:020}"


@attrs.frozen
class Subscription:
    """Which objects are asked about: whole classes in lower case (``*`` is all), and single refs of a class."""

    classes: frozenset[str]
    objects: frozenset[tuple[str, str]]

    @classmethod
    def parse(cls, said: Sequence[str]) -> Subscription:
        classes, objects = set(), set()
        for each in said:
            name, slash, one = each.partition("/")
            if not name or (slash and not one):
                raise XenApiError("EVENT_SUBSCRIPTION_PARSE_FAILURE", (each,))
            if slash:
                objects.add((name.lower(), one))
            else:
                classes.add(name.lower())
        return cls(frozenset(classes), frozenset(objects))

    def whole(self, kind: str) -> bool:
        return kind in self.classes or "*" in self.classes

    def table(self, kind: str) -> bool:
        """Something of this class is asked about."""
        return self.whole(kind) or any(name == kind for name, _ in self.objects)

    def takes(self, kind: str, ref: str) -> bool:
        return self.whole(kind) or (kind, ref) in self.objects


@attrs.frozen
class Happened:
    """One event: ``operation`` is add, mod or del; a del has no snapshot. A task is shown when this is told."""

    operation: str
    kind: str
    ref: str
    revision: int
    snapshot: Task | Mapping[str, JSON]

    def told(self, visit: Visit, timestamp: str) -> dict[str, JSON]:
        said: dict[str, JSON] = {
            "id": str(self.revision),
            "timestamp": timestamp,
            "class": self.kind,
            "operation": self.operation,
            "ref": self.ref,
        }
        if self.operation != "del":
            said["snapshot"] = shown(visit, self.snapshot) if isinstance(self.snapshot, Task) else self.snapshot
        return said


@attrs.frozen
class Found:
    """The ``events`` up to ``revision``, and how many ``tasks`` there are then: of one moment, however long the
    telling takes.
    """

    events: Sequence[Happened]
    revision: int
    tasks: int

    @classmethod
    def now(cls, visit: Visit, events: Sequence[Happened]) -> Found:
        return cls(events, visit.service.registry.feed.revision, visit.service.count(visit.caller))

    async def told(self, visit: Visit, timestamp: str) -> list[JSON]:
        said: list[JSON] = []
        for each in self.events:
            said.append(each.told(visit, timestamp))
            await trio.lowlevel.checkpoint()  # there may be very many, and others have their turn
        return said


def _changed(visit: Visit, asked: Subscription, revision: int) -> Found:
    """What changed after ``revision``, which the feed covers: adds, then mods, then dels."""
    feed = visit.service.registry.feed
    found: list[Happened] = []
    for change in feed.since(revision):
        if _concerns(visit, asked, change.task):
            found += _of(change, revision)
    for kind, touched in visit.desk.slip(visit.caller).touched.items():
        if revision < touched <= feed.revision:
            found += _still(visit, asked, kind, "mod")
    return Found.now(visit, sorted(found, key=lambda each: _ORDER.index(each.operation)))


def _concerns(visit: Visit, asked: Subscription, task: Task) -> bool:
    """It is asked about: by itself, or with its class, which is what the caller's lists have.

    Whoever is told of others with the class counts other tasks than ``valid_ref_counts``, and takes them for lost.
    """
    named = ("task", ref(task.id)) in asked.objects
    whole = asked.whole("task") and listed(visit.caller) in (None, task.owner)
    return (named or whole) and visit.service.sees(visit.caller, task)


def _of(change: Change, revision: int) -> Iterator[Happened]:
    """What is to be told of a task since ``revision``."""
    task, one = change.task, ref(change.task.id)
    operation = "add" if change.born > revision else "mod"
    if not change.gone:
        yield Happened(operation, "task", one, change.revision, task)
        return
    if task.revision > revision:
        # Whoever waits for its end looks at snapshots, and a del has none.
        yield Happened(operation, "task", one, task.revision, task)
    yield Happened("del", "task", one, change.revision, task)


def _still(visit: Visit, asked: Subscription, kind: str, operation: str) -> list[Happened]:
    revision = visit.service.registry.feed.revision
    records = visit.desk.records(visit.caller, kind).items()
    return [Happened(operation, kind, one, revision, each) for one, each in records if asked.takes(kind, one)]


async def _everything(visit: Visit, asked: Subscription) -> Found:
    """All that is asked about, as added."""
    feed = visit.service.registry.feed
    while True:
        start = feed.revision
        found = {task.id: _added(task) async for task in _tasks(visit, asked)}
        if feed.covers(start):  # else more has changed meanwhile than the feed keeps
            break
    for change in feed.since(start):
        if change.gone:
            found.pop(change.task.id, None)
        elif _concerns(visit, asked, change.task):
            found[change.task.id] = _added(change.task)
    still = [each for kind in STILL for each in _still(visit, asked, kind, "add")]
    return Found.now(visit, [*still, *found.values()])


def _added(task: Task) -> Happened:
    return Happened("add", "task", ref(task.id), task.revision, task)


async def _tasks(visit: Visit, asked: Subscription) -> AsyncIterator[Task]:
    if asked.whole("task"):
        async for task in every(visit):
            yield task
    for kind, one in asked.objects:
        if kind == "task":
            try:
                yield await visit.service.get(visit.caller, id_of("ref", one))
            except (DoesNotExist, XenApiError):
                continue  # as good as one that is not there yet


async def _from(visit: Visit, classes: tuple[str, ...], token: str, timeout: float) -> JSON:
    """Wait until something that is asked about changes after the token, at most ``timeout`` seconds."""
    if len(classes) > MOST:
        raise XenApiError("INVALID_VALUE", ("classes", f"more than {MOST}"))
    asked, since = Subscription.parse(classes), Token.parse(token)
    feed = visit.service.registry.feed
    deadline = trio.current_time() + max(0.0, timeout)
    with feed.bell(*_places(visit, asked)) as bell:
        while True:
            with visit.known.waiting(float("inf")):
                async with visit.turn:
                    if since.known_to(feed):
                        found = _changed(visit, asked, since.revision)
                    else:
                        found = await _everything(visit, asked)
                    since = Token(feed.epoch, found.revision)
                    if found.events or trio.current_time() >= deadline:
                        return await _reply(visit, asked, since, found)
            with visit.known.waiting(deadline):
                await bell.wait()
                await trio.sleep(BATCH)
            since = Token(feed.epoch, max(since.revision, bell.quiet(feed.revision)))


def _places(visit: Visit, asked: Subscription) -> Sequence[tuple[str, str]]:
    """Where in the feed something can change of what is asked about."""
    user = visit.caller.user
    if not asked.whole("task"):
        tasks = [each.removeprefix(REF) for kind, each in asked.objects if kind == "task"]
        return [places.desk(user), *map(places.one, tasks)]
    return [places.desk(user), places.seen(visit.caller)]


async def _reply(visit: Visit, asked: Subscription, token: Token, found: Found) -> JSON:
    counts: dict[str, JSON] = {kind: 1 for kind in STILL if asked.table(kind)}
    if asked.table("task"):
        counts["task"] = found.tasks
    return {
        "events": await found.told(visit, "0.0"),
        "valid_ref_counts": counts,
        "token": str(token),
    }


async def _inject(visit: Visit, kind: str, one: str) -> JSON:
    """Let an object count as changed; the token before that, so that whoever sees the event has seen all else."""
    registry, name = visit.service.registry, kind.lower()
    if name == "task":
        try:
            task = await visit.service.get(visit.caller, id_of("ref", one))
        except DoesNotExist:
            raise XenApiError("HANDLE_INVALID", (kind, one)) from None
        before = registry.touch(task)
        revision = registry.feed.revision if before is None else before
    elif name in STILL and one == ref_of(name, visit.desk.host):
        revision = visit.desk.touch(visit.caller, name)
    else:
        raise XenApiError("HANDLE_INVALID", (kind, one))
    return str(Token(registry.feed.epoch, revision))


# The older way: the session remembers how far it has read.

# Most characters of all that one session is registered for.
REGISTERED: Final = 65536


async def _register(visit: Visit, classes: tuple[str, ...]) -> JSON:
    Subscription.parse(classes)
    session = visit.known
    wanted = (session.classes or frozenset()) | set(classes)
    if sum(len(each) + 1 for each in wanted) > REGISTERED:
        raise XenApiError("INVALID_VALUE", ("classes", f"longer than {REGISTERED} characters together"))
    if session.classes is None:
        session.seen = visit.service.registry.feed.revision
    session.classes = wanted
    return VOID


async def _unregister(visit: Visit, classes: tuple[str, ...]) -> JSON:
    Subscription.parse(classes)
    if visit.known.classes is not None:
        visit.known.classes -= set(classes)
    return VOID


async def _next(visit: Visit) -> JSON:
    """Wait for events of the classes that the session registered for."""
    session, feed = visit.known, visit.service.registry.feed
    # Other classes may be registered meanwhile, so it listens for all.
    with feed.bell(*_places(visit, Subscription.parse(["*"]))) as bell:
        while True:
            with session.waiting(float("inf")):
                async with visit.turn:
                    if session.classes is None:
                        raise XenApiError("SESSION_NOT_REGISTERED", (session.ref,))
                    asked = Subscription.parse(tuple(session.classes))
                    found = _changed(visit, asked, session.seen) if feed.covers(session.seen) else None
                    session.seen = feed.revision
                    if found is None:
                        raise XenApiError("EVENTS_LOST")
                    if found.events:
                        return await found.told(visit, str(time.time()))
                await bell.wait()
            session.seen = max(session.seen, bell.quiet(feed.revision))


MESSAGES: Final = (
    Message("event.from", _from, (("classes", texts), ("token", text), ("timeout", number))),
    Message("event.inject", _inject, (("class", text), ("ref", text))),
    Message("event.register", _register, (("classes", texts),)),
    Message("event.unregister", _unregister, (("classes", texts),)),
    Message("event.next", _next),
)
