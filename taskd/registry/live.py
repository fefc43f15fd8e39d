"""One task that is alive: ``registry`` has them all, ``runner`` moves them on."""

from __future__ import annotations

import sys

import attrs
import trio

from taskd.model import Progress, Task
from taskd.states import State


@attrs.define(eq=False)
class Live:
    """What is alive about a task: its newest snapshot, the scope it runs in, and the order of its writers.

    ``lock`` is held by whoever decides the next durable change, from looking to having shown it. ``stored``
    is the state on disk. ``cancel_asked`` is set the moment a cancel is accepted, ahead of its durable note.
    ``progress`` is ahead of ``task.progress`` by what has not been shown yet, ``reported`` is the revision that is
    taken to show it, 0 for none; ``waits_for`` is what a queued task waits for; ``heard_at`` is when an
    external task's producer last reported, on trio's clock. ``forgotten`` says that the task is destroyed,
    durably, although it had not ended. ``log_end`` is the number that its next line of log gets, ``log_kept`` the
    one after the last that is durable. ``units`` are those of its owner's quota that it takes.
    """

    task: Task
    stored: State = attrs.field(init=False)
    cancel_asked: bool = attrs.field(init=False)
    scope: trio.CancelScope | None = None
    lock: trio.Lock = attrs.field(factory=trio.Lock)
    progress: Progress = attrs.field(init=False)
    waits_for: str | None = None
    log_end: int = 0
    log_kept: int = 0
    heard_at: float = 0.0
    forgotten: bool = False
    units: int = 1
    reported: int = 0
    _changed: trio.Event = attrs.field(factory=trio.Event)
    _ended: trio.Event = attrs.field(factory=trio.Event)
    _woken: trio.Event = attrs.field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.stored = self.task.state
        self.cancel_asked = self.task.cancel_requested
        self.progress = self.task.progress

    @classmethod
    def again(cls, task: Task) -> Live:
        """Alive once more, to be undone or destroyed: nothing is added to its log, whose end the store knows."""
        return cls(task, log_end=sys.maxsize, log_kept=sys.maxsize)

    def _show(self, task: Task, revision: int) -> None:
        progress, waits_for = self.progress, self.waits_for
        if (task.revision, task.progress, task.waits_for) != (revision, progress, waits_for):
            task = attrs.evolve(task, revision=revision, progress=progress, waits_for=waits_for)
        self.task = task
        self._stir()

    def _stir(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
        if self.task.state.ended or self.forgotten:
            self._ended.set()

    async def ended(self) -> None:
        """Wait until it has ended, or is forgotten; a change before that wakes nobody here."""
        if not self.task.state.ended:
            await self._ended.wait()

    def forget(self) -> None:
        """It is destroyed, and nobody need wait for its end."""
        self.forgotten = True
        self._stir()
        self.wake()

    async def changed(self) -> None:
        """Wait for the next snapshot, or for there being none any more (``forgotten``)."""
        await self._changed.wait()

    def wake(self) -> None:
        """What waits before it tries again need wait no longer."""
        self._woken.set()
        self._woken = trio.Event()

    async def woken(self) -> None:
        await self._woken.wait()

    def __repr__(self) -> str:
        return f"<Live {self.task!r}>"
