"""The handle that an operation is given, and how its errors and its progress are put into words."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import TYPE_CHECKING, Final

import attrs
import trio

from taskd import logs
from taskd.errors import IllegalMove, InternalError, OsRefusal, StoreUnavailable, TaskdError
from taskd.model import JSON, Failure, Progress, Undo, now
from taskd.registry import Live
from taskd.runner.operation import Operation
from taskd.states import State

if TYPE_CHECKING:
    from taskd.runner import Runner

logger = logging.getLogger("taskd.runner")

# How much the newest movement weighs in the smoothed rate.
SMOOTHING: Final = 0.3

# A task that is not completed never shows more than this, however much of its work is done (law L9).
ALMOST: Final = 0.9999


@attrs.frozen(eq=False)
class TaskHandle:
    """See ``taskd.runner.operation.Handle``."""

    _runner: Runner
    _live: Live
    _operation: Operation

    @property
    def id(self) -> str:
        return self._live.task.id

    @property
    def workspace(self) -> str:
        return self._runner.workspace

    async def journal(self, verb: str, **args: JSON) -> None:
        self._require(verb, args)
        live = self._live
        async with live.lock:
            if live.task.state is not State.RUNNING:
                # After the commit it would be taken for a step of the finish.
                raise IllegalMove(live.task.state.value, "journaled")
            await self._runner.write(live, journal=(*live.task.journal, Undo(verb, args)))

    def progress(self, done: int, total: int | None = None, unit: str = "bytes") -> None:
        done, total = int(done), None if total is None else int(total)
        fraction = done / total if total else 0.0
        self._runner.registry.report(self._live, advanced(self._live.progress, done, total, unit, fraction))

    def fraction(self, fraction: float) -> None:
        # Counted in ten-thousandths, so that a rate and the time left can be told here too.
        self.progress(int(max(0.0, min(1.0, fraction)) * 10_000), 10_000, "1/10000")

    async def log(self, *lines: str) -> None:
        try:
            async with self._live.lock:
                await self._runner.log(self._live, *lines)
        except StoreUnavailable as error:
            logger.warning("lost %d lines of its log: %s", len(lines), error, extra=self._live.task.about)

    async def commit(self, result: JSON = None, finish: Iterable[Undo] = ()) -> None:
        steps = tuple(finish)
        for step in steps:
            self._require(step.verb, step.args)
        await self._runner.commit(self._live, result, steps)

    def _require(self, verb: str, args: Mapping[str, JSON]) -> None:
        """A step that could not be called is found out now, and not on the day when it is needed."""
        known = self._operation.verbs.get(verb)
        if known is None:
            raise LookupError(f"{self._operation.name} has no verb {verb!r}")
        signature(known).bind(**args)


@contextmanager
def contained(about: Mapping[str, str]) -> Iterator[None]:
    """Around an operation's code: what it raises to end the process ends only its task, and what it logs is
    about that (``logs.lent``).

    ``sys.exit`` in a plugin would end the daemon, and in an undo verb also every start of it.
    """
    try:
        with logs.lent(about):
            yield
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"an operation raised {type(error).__name__}") from error
    except BaseExceptionGroup as group:
        cancelled, others = group.split(trio.Cancelled)
        if cancelled is not None:
            # Whoever cancelled it is waiting for this; what else went wrong on the way is told in the log.
            if others is not None:
                logger.error("an operation failed while it was cancelled", exc_info=others, extra=about)
            raise cancelled from None
        if isinstance(group, Exception):
            raise
        raise RuntimeError("an operation raised what ends processes") from group


def advanced(old: Progress, done: int, total: int | None, unit: str, fraction: float) -> Progress:
    """``old`` moved on to ``done``, with a new rate and the time left; never backwards."""
    moment = now()
    done, fraction = max(done, old.done), max(min(fraction, ALMOST), old.fraction)
    rate = old.rate
    if old.moved_at is not None and done > old.done and moment > old.moved_at:
        newest = (done - old.done) / (moment - old.moved_at)
        rate = newest if rate is None else rate + SMOOTHING * (newest - rate)
    left = (total - done) / rate if total is not None and rate else None
    moved_at = old.moved_at
    if moved_at is None or done > old.done:  # not back, though the clock may be set back
        moved_at = moment if moved_at is None else max(moment, moved_at)
    return Progress(done, total, unit, fraction, rate, left, moved_at)


def completed(old: Progress) -> Progress:
    """The progress of a task that completed."""
    return attrs.evolve(old, done=old.total or old.done, fraction=1.0, rate=None, eta_s=0.0)


def describe(error: BaseException, live: Live) -> Failure:
    """An exception as the failure of a task; what nobody foresaw goes to the log and not to the caller."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, OSError):
        error = OsRefusal.of(error, live.task.operation)
    if not isinstance(error, TaskdError):
        logger.error("failed unforeseen", exc_info=error, extra=live.task.about)
        error = InternalError(live.task.id)
    return Failure(error.code, _sayable(str(error)), tuple(map(_sayable, error.data)))


def _sayable(text: str) -> str:
    """Without the surrogates that stand for bytes of a path that are no UTF-8: JSON cannot say them."""
    return text.encode("utf-8", "backslashreplace").decode()
