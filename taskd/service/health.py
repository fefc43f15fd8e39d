"""How the daemon is: whether its store can write, whether its event loop keeps up, what is there.

The law: that the store can write is said when it has just written. Whoever asks waits for one write, which all who
ask meanwhile share, and ``PATIENCE`` seconds at most: a disk that hangs is one that does not write.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from typing import TYPE_CHECKING, Final

import attrs
import trio

from taskd import __version__
from taskd.errors import InternalError, StoreError, StoreUnavailable
from taskd.metrics import Metrics, Now
from taskd.registry import Registry
from taskd.runner import Runner
from taskd.store import Store

if TYPE_CHECKING:
    from taskd.service import Service

logger = logging.getLogger("taskd.service")

# Seconds.
PATIENCE: Final = 5.0

# Seconds between two looks at the clock, and how many of them the worst is kept of: a minute's. They are at the
# full multiples, as those of ``clock`` are, so that a daemon with nothing to do wakes for both at once.
BEAT: Final = 2.5
BEATS: Final = 24


@attrs.define(eq=False)
class Health:
    """``connections`` is how many are open, set by whoever accepts them."""

    store: Store
    registry: Registry
    runner: Runner
    metrics: Metrics
    connections: int = 0
    _late: deque[float] = attrs.field(factory=lambda: deque([0.0], BEATS))
    _answered: trio.Event | None = None
    _fault: str | None = None
    _telling: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))

    @classmethod
    def of(cls, service: Service) -> Health:
        """The health of what a service stands on."""
        return cls(service.store, service.registry, service.runner, service.metrics)

    async def beat(self) -> None:
        """Look how late the event loop wakes. Never returns."""
        while True:
            due = (trio.current_time() // BEAT + 1) * BEAT
            await trio.sleep_until(due)
            self._late.append(max(0.0, trio.current_time() - due))

    @property
    def loop_lag_s(self) -> float:
        """Seconds that the event loop woke late, the worst of the last minute."""
        return max(self._late)

    @property
    def recovering(self) -> bool:
        """What a crash left is being undone, and new work waits."""
        return not self.runner.recovered.is_set()

    async def fault(self) -> str | None:
        """Why the store cannot write now; None if it can."""
        if (answered := self._answered) is None:
            answered = self._answered = trio.Event()
            # Not a task of whoever asks: the next one may wait for the same write when this one has gone.
            trio.lowlevel.spawn_system_task(self._try, answered)
        with trio.move_on_after(PATIENCE):
            await answered.wait()
            return self._fault
        return str(StoreUnavailable(f"it has not answered for {PATIENCE:g} seconds"))

    async def _try(self, answered: trio.Event) -> None:
        try:
            # One, not none: of a row that stays as it is, SQLite writes nothing.
            await self.store.reserve(1)
            self._fault = None
        except StoreError as error:
            self._fault = str(error)
        except Exception:  # in a system task it would end the daemon
            logger.exception("the store cannot be tried")
            self._fault = str(InternalError())
        finally:
            self._answered = None
            answered.set()

    def now(self) -> Now:
        """What is there at this moment; some milliseconds for ten thousand tasks."""
        return Now(
            version=__version__,
            tasks=Counter((live.task.operation, live.task.state.value) for live in self.registry),
            connections=self.connections,
            revision=self.registry.revision,
            loop_lag_s=self.loop_lag_s,
            recovering=self.recovering,
        )

    async def text(self) -> bytes:
        """All numbers, as Prometheus reads them."""
        return await trio.to_thread.run_sync(self.metrics.text, self.now(), limiter=self._telling)

    async def lines(self) -> list[str]:
        """All numbers that are not nothing, a line each."""
        now = self.now()
        return await trio.to_thread.run_sync(lambda: [*self.metrics.lines(now)], limiter=self._telling)
