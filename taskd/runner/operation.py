"""What an operation is, and the handle it works with.

The contract of an operation:

- ``run(params, handle)`` does the work in cancellable steps. Before each act that changes the world it awaits
  ``handle.journal(verb, …)`` for the step that undoes it. It may call ``handle.commit`` itself where it knows
  better than the runner when; else its return value is committed as the result.
- It may be cancelled at every await. It need not clean up: the journal does. What it started that would go on
  without it (a child, a thread) it ends before it lets the cancellation pass.
- A verb is an async function of its journaled arguments, found by name. It is idempotent, it is durable when
  it returns, it touches only what the task provably made, and it raises when it could not do it.
- A journal outlives its daemon: a verb once released keeps its name and understands its old arguments.
- What it does to files for others than admins it does in ``in_thread``, check, work and verbs alike: there it has
  the rights of whoever started the task. Elsewhere it has the daemon's (``taskd.runner.rights``).
- ``check(params)`` refuses, before a task is made, what is known to be impossible. It runs in a thread; the
  work looks again, because the world moves on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Protocol

import attrs

from taskd.model import JSON, Undo

Verb = Callable[..., Awaitable[None]]


class Answer(Enum):
    """What became of a cancel."""

    ACCEPTED = "accepted"
    TOO_LATE = "too late"
    ENDED = "already ended"


class Handle(Protocol):
    """All that an operation gets to see of taskd while it runs."""

    @property
    def id(self) -> str:
        """The task's id: unique for ever, fit for the names of files."""

    @property
    def workspace(self) -> str:
        """A folder of the daemon's own, on durable storage, for files that a journal names.

        It is reached with the daemon's rights (``taskd.runner.rights.own``).
        """

    async def journal(self, verb: str, **args: JSON) -> None:
        """Record, durably, the step that undoes what is done next.

        Raises:
            StoreUnavailable: it is not recorded; do not act.
            LookupError, TypeError: the operation has no such verb, or it does not take these arguments.
        """

    def progress(self, done: int, total: int | None = None, unit: str = "bytes") -> None:
        """Say how far the work is. Cheap, from the event loop only; what goes backwards is ignored."""

    def fraction(self, fraction: float) -> None:
        """Say how far the work is, where only a fraction 0..1 is known."""

    async def log(self, *lines: str) -> None:
        """Add lines to the task's log, in one write. A store that cannot write loses them, not the task."""

    async def commit(self, result: JSON = None, finish: Iterable[Undo] = ()) -> None:
        """The point of no return: honour a cancel that was accepted, then make the success durable.

        From here on only ``finish`` happens, and it is repeated after a crash until it was done. Everything
        that the success needs is on disk before this is called.

        Raises:
            CancelAsked: a cancel was accepted before; nothing is committed. Let it pass.
            StoreUnavailable: nothing is committed.
            LookupError, TypeError: a finish step cannot be called; nothing is committed.
        """


@attrs.frozen
class Operation:
    """One kind of work. ``run`` is None when it is done elsewhere and reported (``external``)."""

    name: str
    summary: str
    params: type[Any]
    run: Callable[[Any, Handle], Awaitable[JSON]] | None
    verbs: Mapping[str, Verb] = attrs.field(factory=dict)
    check: Callable[[Any], None] | None = None
    # What it works on, as keys that no other running task may share; runs in a thread, and must not raise.
    targets: Callable[[Any], frozenset[str]] | None = None
    # Verbs that recovery runs before all others, whatever their place: surviving children die first (law L6).
    urgent: frozenset[str] = frozenset()
    # An interrupted run may be started anew, because it was undone without a trace.
    restartable: bool = False
    # The label of a task that was given none.
    label: Callable[[Any], str] | None = None
    # Whoever has none of these roles may not start it. Others than admins are for an operation that keeps the
    # law of ``taskd.runner.rights``.
    roles: frozenset[str] = frozenset({"admin"})
    # The paths that it works at. Who is no user of this machine may only start what says them, beneath roots.
    paths: Callable[[Any], Iterable[str]] | None = None
