"""What a daemon has told about its tasks, and that nothing of it becomes untrue.

Whatever clients hear, over any road, is laid down here with the moment at which it was asked. An answer must fit
all that had been told before it was asked, whichever run of the daemon told it; two answers that were under way at
the same time may come in either order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import attrs

from taskd.client import Record
from taskd.registry import BLOCK
from taskd.states import State

clock = time.monotonic


def contradiction(earlier: Record, later: Record) -> str:
    """Why ``later`` cannot be true after ``earlier``; empty where it can."""
    if earlier.ended:
        return "" if later.raw == earlier.raw else "what has ended changed"
    same = ("seq", "operation", "owner", "params", "created_at", "label")
    for name in same:
        if getattr(earlier, name) != getattr(later, name):
            return f"its {name} changed"
    if later.revision < earlier.revision:
        return "its revision went back"
    if later.revision == earlier.revision and later.state != earlier.state:
        return "one revision has two states"
    if earlier.state == State.COMMITTED and later.state not in (State.COMMITTED, State.COMPLETED):
        return "a commit was taken back"
    if earlier.cancel_requested and not later.cancel_requested:
        return "a cancel was forgotten"
    if later.attempt < earlier.attempt:
        return "its attempts went back"
    return ""


def gone_back(earlier: Record, later: Record) -> str:
    """Why progress cannot be so in one attempt.

    A new run of the daemon does not know it: it is in memory only. Its revisions begin at a block that is set
    aside for it, far above all that the run before has come to.
    """
    same_run = later.revision - earlier.revision < BLOCK // 2
    running = later.attempt == earlier.attempt and earlier.state == later.state == State.RUNNING
    back = later.progress.done < earlier.progress.done
    return "its progress went back" if same_run and running and back else ""


@attrs.define(eq=False)
class Account:
    """Of one task: what was told of it and when, and what was promised for it by an answer."""

    told: list[tuple[float, Record]] = attrs.field(factory=list)
    acknowledged: bool = False
    cancelled: bool = False
    destroying: bool = False
    destroyed: float = float("inf")

    @property
    def newest(self) -> Record:
        return self.told[-1][1]

    def before(self, asked: float) -> Record | None:
        """The last that was told before that moment."""
        return next((record for at, record in reversed(self.told) if at < asked), None)


@attrs.define(eq=False)
class Told:
    """All accounts; ``wrong`` is called with each untruth."""

    wrong: Callable[[str], None]
    accounts: dict[str, Account] = attrs.field(factory=dict)
    untrue: int = 0
    lost: int = 0
    forgotten: int = 0
    records: int = 0

    def of(self, id: str) -> Account:
        return self.accounts.setdefault(id, Account())

    def hear(self, record: Record, asked: float) -> Record:
        """A record that was asked for at that moment; the same record."""
        self.records += 1
        account, id = self.of(record.id), record.id
        if account.destroyed < asked:
            self._untrue(f"{id} was destroyed, and is told of again as {record.state}")
            return record
        if account.destroying:
            return record
        # An end is the same for everybody, however the answers cross.
        over = bool(account.told) and record.ended and account.newest.ended
        earlier = account.newest if over else account.before(asked)
        why = contradiction(earlier, record) if earlier else ""
        if not why and earlier and not over:
            why = gone_back(earlier, record)
        if why:
            self._untrue(f"{id}: {why}: {earlier and earlier.raw} and then {record.raw}")
        if account.told and record.revision < account.newest.revision:
            return record  # overtaken by a newer answer
        account.told.append((clock(), record))
        if record.ended:
            del account.told[:-1]
        return record

    def unknown(self, id: str, asked: float) -> None:
        """The daemon says that there is no such task."""
        account = self.of(id)
        if account.acknowledged and not account.destroying:
            self.lost += 1
            self.wrong(f"{id} was acknowledged and is lost; the last that was told: {account.newest.raw}")

    def ended(self, record: Record) -> None:
        """It is over; was an accepted cancel obeyed?"""
        account = self.of(record.id)
        if account.cancelled and record.operation != "external" and record.state != State.CANCELLED:
            self.forgotten += 1
            self.wrong(f"{record.id}: its cancel was accepted, and it ended {record.raw}")
        if record.residue:
            self.wrong(f"{record.id} left residue: {record.raw}")

    def kept(self) -> Iterator[str]:
        """The tasks that must be there now."""
        return (id for id, each in self.accounts.items() if each.acknowledged and not each.destroying)

    def _untrue(self, what: str) -> None:
        self.untrue += 1
        self.wrong(what)
