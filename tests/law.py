"""The law as a model: what is to be true of all tasks after each call, in one table of facts.

No time passes here, and nothing waits: a fact is what is true when everything has come to rest. ``errand`` and
``chore`` are operations that work until they are told how to end; an ``errand`` is restartable. Of the two kinds
``PLACES`` run at a time. What is ``stuck`` can neither be undone nor finished.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from taskd.errors import (
    AlreadyEnded,
    BadParams,
    DoesNotExist,
    HasResidue,
    NoResidue,
    NotExternal,
    PermissionDenied,
    TaskdError,
    TaskInProgress,
    TooLate,
)
from taskd.model import JSON, Caller
from taskd.runner import ATTEMPTS
from taskd.states import State

PLACES: Final = 2


def made(attempt: int) -> str:
    """What an ``errand`` or a ``chore`` logs in that attempt."""
    return f"made, attempt {attempt}"


class No(Exception):
    """The call is to be refused with an error of this ``kind``."""

    def __init__(self, kind: type[TaskdError]) -> None:
        super().__init__(kind.__name__)
        self.kind = kind


@attrs.frozen
class Fact:
    """What is to be told of a task."""

    operation: str
    owner: str
    processor: str
    label: str
    state: State = State.RUNNING
    status: str | None = None
    done: int = 0
    result: JSON = None
    error: str | None = None
    cancel: bool = False
    attempt: int = 0
    owes: bool = False
    stuck: bool = False
    forget: bool = False
    request: tuple[str, str] | None = None
    log: tuple[str, ...] = ()
    notes: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def external(self) -> bool:
        return self.operation == "external"

    @property
    def works(self) -> bool:
        """It has one of the places."""
        return self.state is State.RUNNING and not self.external

    def begun(self) -> Fact:
        attempt = self.attempt + 1
        return attrs.evolve(self, state=State.RUNNING, attempt=attempt, log=(*self.log, made(attempt)))

    def stopped(self, end: State, *, cancel: bool = False, error: str | None = None) -> Fact:
        """The work stops: what it made is undone, or owed."""
        if self.stuck:
            end, error = State.FAILED, "UNDO_FAILED"
        return attrs.evolve(self, state=end, error=error, cancel=self.cancel or cancel, owes=self.stuck)

    def recovered(self) -> Fact | None:
        """What a start of the daemon makes of it; None: it is forgotten."""
        if self.works and (self.operation == "chore" or self.attempt == ATTEMPTS or self.stuck):
            return self.stopped(State.FAILED, error="INTERRUPTED").kept
        if self.works:
            return attrs.evolve(self, state=State.QUEUED)
        return self.paid() if not self.stuck else self

    def paid(self) -> Fact | None:
        """What it owes is undone or finished now."""
        state = State.COMPLETED if self.state is State.COMMITTED else self.state
        return attrs.evolve(self, state=state, owes=False).kept

    @property
    def kept(self) -> Fact | None:
        return None if self.forget and self.state.ended and not self.owes else self


@attrs.define
class Law:
    """All tasks, by id, in the order in which they were made; ``published`` is what was ever completed, ``left``
    what an admin forgot by force while it was owed.
    """

    facts: dict[str, Fact] = attrs.field(factory=dict)
    published: set[str] = attrs.field(factory=set)
    left: set[str] = attrs.field(factory=set)

    def copy(self) -> Law:
        return Law(dict(self.facts), set(self.published), set(self.left))

    def put(self, id: str, fact: Fact | None) -> None:
        """Replace a fact; None forgets the task."""
        if fact is not None and fact.state is State.COMPLETED and not fact.external:
            self.published.add(id)
        kept = fact.kept if fact is not None else None
        if kept is None:
            self.facts.pop(id, None)
        else:
            self.facts[id] = kept

    # Who may.

    def seen(self, who: Caller, id: str) -> Fact:
        fact = self.facts.get(id)
        if fact is None or not (who.admin or who.user in (fact.owner, fact.processor)):
            raise No(DoesNotExist)
        return fact

    def reported(self, who: Caller, id: str) -> Fact:
        fact = self.seen(who, id)
        if not (who.admin or who.user == fact.processor):
            raise No(PermissionDenied)
        if not fact.external:
            raise No(NotExternal)
        if fact.state.ended:
            raise No(AlreadyEnded)
        return fact

    # The verbs. What they raise is the answer.

    def start(
        self,
        who: Caller,
        id: str,
        *,
        operation: str,
        owner: str,
        label: str,
        request_id: str | None = None,
        destroy_on_finish: bool = False,
    ) -> str:
        """The id of the task: ``id``, or that of the one which the same request made before."""
        if (operation != "external" and not who.admin) or (owner != who.user and who.roles == {"user"}):
            raise No(PermissionDenied)
        request = None if request_id is None else (owner, f"{who.user} {request_id}")
        for made, fact in self.facts.items():
            if request is not None and fact.request == request:
                return made
        if request is not None and destroy_on_finish:
            raise No(BadParams)
        fact = Fact(operation, owner, who.user, label, request=request, forget=destroy_on_finish)
        if operation == "external":
            fact = attrs.evolve(fact, attempt=1)
        else:
            fact = attrs.evolve(fact, state=State.QUEUED, processor="taskd:")
        self.put(id, fact)
        return id

    def get(self, who: Caller, id: str) -> None:
        self.seen(who, id)

    wait = log = get

    def listed(
        self,
        who: Caller,
        *,
        states: Sequence[str] | None = None,
        operations: Sequence[str] | None = None,
        owner: str | None = None,
        label: str | None = None,
        newer: Iterable[str] | None = None,
    ) -> list[str]:
        """Ids, oldest first; ``newer`` are those that have changed since the revision that is asked about."""
        return [
            id
            for id, fact in self.facts.items()
            if (who.admin or fact.owner == who.user)
            and (states is None or fact.state in states)
            and (operations is None or fact.operation in operations)
            and owner in (None, fact.owner)
            and label in (None, fact.label)
            and (newer is None or id in newer or not fact.state.ended)
        ]

    def cancel(self, who: Caller, id: str, *, must: bool = False) -> None:
        fact = self.seen(who, id)
        if not fact.state.cancellable:
            if must and fact.state is not State.CANCELLED:
                raise No(TooLate)
        elif fact.external:
            self.put(id, attrs.evolve(fact, cancel=True))
        elif fact.state is State.QUEUED:
            self.put(id, attrs.evolve(fact, state=State.CANCELLED, cancel=True))
        else:
            self.put(id, fact.stopped(State.CANCELLED, cancel=True))

    def update(
        self,
        who: Caller,
        id: str,
        *,
        done: int | None = None,
        label: str | None = None,
        status: str | None = None,
        log: Sequence[str] = (),
    ) -> None:
        fact = self.reported(who, id)
        self.put(
            id,
            attrs.evolve(
                fact,
                done=fact.done if done is None else max(done, fact.done),
                label=fact.label if label is None else label,
                status=fact.status if status is None else status,
                log=(*fact.log, *log),
            ),
        )

    def complete(self, who: Caller, id: str, *, result: JSON) -> None:
        self.put(id, attrs.evolve(self.reported(who, id), state=State.COMPLETED, result=result))

    def fail(self, who: Caller, id: str, *, code: str) -> None:
        fact = self.reported(who, id)
        self.put(id, attrs.evolve(fact, state=State.CANCELLED if fact.cancel else State.FAILED, error=code))

    def call_off(self, who: Caller, id: str) -> None:
        self.put(id, attrs.evolve(self.reported(who, id), state=State.CANCELLED, cancel=True))

    def annotate(self, who: Caller, id: str, *, notes: Mapping[str, str]) -> None:
        fact = self.seen(who, id)
        if fact.state.ended:
            raise No(AlreadyEnded)
        self.put(id, attrs.evolve(fact, notes=notes))

    def destroy(self, who: Caller, id: str, *, force: bool = False) -> None:
        fact = self.seen(who, id)
        if force and not who.admin:
            raise No(PermissionDenied)
        if fact.owes and fact.state.ended and not force:
            raise No(HasResidue)
        if not fact.state.ended and not (force and fact.owes):
            raise No(TaskInProgress)
        if fact.owes:
            self.left.add(id)
        self.put(id, None)

    def destroy_when_ended(self, who: Caller, id: str) -> None:
        fact = self.seen(who, id)
        if fact.state.ended:
            self.destroy(who, id)
        else:
            self.put(id, attrs.evolve(fact, forget=True))

    def recover(self, who: Caller, id: str) -> None:
        fact = self.seen(who, id)
        if not fact.owes:
            raise No(NoResidue)
        self.put(id, fact if fact.stuck else fact.paid())

    # What else happens.

    def go(self, id: str) -> None:
        """The work succeeds."""
        fact = self.facts[id]
        state = State.COMMITTED if fact.stuck else State.COMPLETED
        self.put(id, attrs.evolve(fact, state=state, owes=fact.stuck, result={"done": True}))

    def give_out(self, id: str) -> None:
        """The work fails."""
        self.put(id, self.facts[id].stopped(State.FAILED, error="ENOSPC"))

    def stick(self, id: str) -> None:
        self.facts[id] = attrs.evolve(self.facts[id], stuck=True)

    def loosen(self, id: str) -> None:
        fact = attrs.evolve(self.facts[id], stuck=False)
        self.put(id, fact.paid() if fact.state is State.COMMITTED else fact)

    def prune(self, oldest_first: Sequence[str], keep: int) -> None:
        """One by one, whoever has most loses the oldest; of those who have as many, who had more at first."""
        ended: dict[str, list[str]] = {}
        for id in oldest_first:
            if self.facts[id].state.ended and not self.facts[id].owes:
                ended.setdefault(self.facts[id].owner, []).append(id)
        had = {owner: len(ids) for owner, ids in ended.items()}
        for _ in range(sum(had.values()) - keep):
            most = max(ended, key=lambda owner: (len(ended[owner]), had[owner], owner))
            self.put(ended[most].pop(0), None)

    def restart(self) -> None:
        """The daemon is stopped, or killed, and started again."""
        for id, fact in [*self.facts.items()]:
            self.put(id, fact.recovered())

    def next(self) -> Sequence[str]:
        """Those of which one is to run now: owners take turns, and of each the first goes first."""
        if sum(fact.works for fact in self.facts.values()) >= PLACES:
            return ()
        firsts: dict[str, str] = {}
        for id, fact in self.facts.items():
            if fact.state is State.QUEUED:
                firsts.setdefault(fact.owner, id)
        return [*firsts.values()]
