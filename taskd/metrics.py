"""What is counted and measured, and how it is told: the text format of Prometheus.

The law: a number is about the daemon, never about a person or a task. The labels are ``operation``, ``state``,
``outcome``, ``dialect``, ``method``, ``error`` and ``version``, and each has few values: what a peer made up, such
as the name of a method that is none, is counted as ``unknown``.

There is one ``Metrics`` for each daemon, and no registry beside its own. Whatever happens is counted where it
happens, in a microsecond or two; what is there now (``Now``) is looked at when somebody asks. Any thread may call.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import generate_latest

from taskd.errors import TaskdError, XenApiError
from taskd.model import Task
from taskd.states import State

# When a counter began is told by nobody who asks for it.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the one function of it without types

TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

UNKNOWN: Final = "unknown"

# Seconds. A call that looks at memory takes less than the first, one that waits for the disk less than the third.
CALLS: Final = (0.0005, 0.002, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0)
COMMITS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
CANCELS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0)
WRITES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@attrs.frozen
class Now:
    """What is there at this moment: ``tasks`` that have not ended, by operation and state."""

    version: str
    tasks: Mapping[tuple[str, str], int]
    connections: int
    revision: int
    loop_lag_s: float
    recovering: bool


@attrs.frozen
class Family:
    """One metric, for who describes it: ``type`` is ``gauge``, ``counter`` or ``histogram``."""

    name: str
    type: str
    labels: tuple[str, ...]
    doc: str


@attrs.define(eq=False, slots=False)
class Metrics:
    """All numbers of one daemon."""

    registry: CollectorRegistry = attrs.field(factory=CollectorRegistry)
    _families: list[Family] = attrs.field(factory=list)
    _calls: dict[tuple[str, str], Histogram] = attrs.field(factory=dict)
    # The tasks that were asked to stop, and when, by the monotonic clock; those that owe an undo or a finish.
    _asked: dict[str, float] = attrs.field(factory=dict)
    _owing: set[str] = attrs.field(factory=set)

    def __attrs_post_init__(self) -> None:
        def gauge(name: str, doc: str, *labels: str) -> Gauge:
            self._families.append(Family(f"taskd_{name}", "gauge", labels, doc))
            return Gauge(f"taskd_{name}", doc, labels, registry=self.registry)

        def counter(name: str, doc: str, *labels: str) -> Counter:
            self._families.append(Family(f"taskd_{name}_total", "counter", labels, doc))
            return Counter(f"taskd_{name}", doc, labels, registry=self.registry)

        def histogram(name: str, doc: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            self._families.append(Family(f"taskd_{name}", "histogram", labels, doc))
            return Histogram(f"taskd_{name}", doc, labels, registry=self.registry, buckets=buckets)

        self._info = gauge("info", "1, with the version of the daemon", "version")
        self._tasks = gauge("tasks", "tasks that have not ended", "operation", "state")
        self._queue = gauge("queue_length", "tasks that wait for their turn")
        self._residue = gauge("tasks_with_residue", "tasks that owe an undo or a finish that failed")
        self._connections = gauge("connections", "open connections")
        self._revision = gauge("revision", "the newest revision of any task")
        self._lag = gauge("loop_lag_seconds", "how late the event loop woke at the worst in the last minute")
        self._recovering = gauge("recovering", "1 while what a crash left is undone and new work waits, else 0")
        self._made = counter("tasks_made", "tasks that were made", "operation")
        self._starts = counter("task_starts", "times that a task began to run", "operation")
        self._ends = counter("task_ends", "tasks that ended, by their last state", "operation", "outcome")
        self._undo_failures = counter("undo_failures", "tasks that ended because an undo failed", "operation")
        self._copied = counter("copied_bytes", "bytes that completed copies moved; none of them by a reflink")
        self._cancels = histogram("cancel_seconds", "from a cancel that was accepted to the end", CANCELS)
        self._requests = histogram(
            "request_seconds", "from a call to its answer, waiting included", CALLS, "dialect", "method"
        )
        self._refusals = counter(
            "refusals", "calls and messages that were refused, limits and bad messages among them", "error"
        )
        self._commits = histogram("commit_seconds", "how long a transaction of the store took", COMMITS)
        self._writes = histogram("commit_writes", "how many writes shared one transaction", WRITES)
        self._lost = counter("commit_failures", "transactions of the store that failed")

    # What happens.

    def request(self, dialect: str, method: str, seconds: float) -> None:
        """A call was answered, or refused, in so many seconds; ``method`` is one of the dialect, or UNKNOWN."""
        call = self._calls.get((dialect, method))
        if call is None:
            call = self._calls[dialect, method] = self._requests.labels(dialect, method)
        call.observe(seconds)

    def refused(self, error: TaskdError) -> None:
        """A call, or what is none, was answered with this error."""
        if isinstance(error, XenApiError) and isinstance(error.__cause__, TaskdError):
            error = error.__cause__
        self._refusals.labels(error.name).inc()

    def committed(self, seconds: float, writes: int, *, failed: bool) -> None:
        """A transaction with so many writes took so many seconds."""
        if failed:
            self._lost.inc()
            return
        self._commits.observe(seconds)
        self._writes.observe(writes)

    def changed(self, before: Task | None, after: Task | None) -> None:
        """A task was made (no ``before``), has changed durably, or was forgotten (no ``after``)."""
        if after is None:
            assert before is not None
            self._owing.discard(before.id)
            self._asked.pop(before.id, None)
            return
        if before is None:
            self._made.labels(after.operation).inc()
        if after.cancel_requested and not after.state.ended:
            self._asked.setdefault(after.id, time.perf_counter())
        if after.residue:
            self._owing.add(after.id)
        else:
            self._owing.discard(after.id)
        if before is None or before.state is not after.state:
            self._moved(after)

    def _moved(self, task: Task) -> None:
        if task.state is State.RUNNING:
            self._starts.labels(task.operation).inc()
        if not task.state.ended:
            return
        self._ends.labels(task.operation, task.state.value).inc()
        if task.residue:
            self._undo_failures.labels(task.operation).inc()
        if (asked := self._asked.pop(task.id, None)) is not None:
            self._cancels.observe(time.perf_counter() - asked)
        match task:
            case Task(operation="copy", state=State.COMPLETED, result={"copied": int(copied)}):
                self._copied.inc(copied)

    # What is told.

    def families(self) -> Sequence[Family]:
        """All that there is, in the order in which it is told."""
        return tuple(self._families)

    def text(self, now: Now) -> bytes:
        """Everything, in the text format of Prometheus 0.0.4. One call at a time; it takes some milliseconds."""
        self._look(now)
        return generate_latest(self.registry)

    def lines(self, now: Now) -> Iterator[str]:
        """Everything that is not nothing, as ``name{label="value"} number``; no buckets. One call at a time."""
        self._look(now)
        for family in self.registry.collect():
            for name, labels, value, *_ in family.samples:
                if value and not name.endswith("_bucket"):
                    words = ",".join(f'{label}="{word}"' for label, word in labels.items())
                    yield f"{name}{{{words}}} {value:.10g}" if words else f"{name} {value:.10g}"

    def _look(self, now: Now) -> None:
        self._info.labels(now.version).set(1)
        self._tasks.clear()
        queued = 0
        for (operation, state), count in now.tasks.items():
            self._tasks.labels(operation, state).set(count)
            queued += count if state == State.QUEUED else 0
        self._queue.set(queued)
        self._residue.set(len(self._owing))
        self._connections.set(now.connections)
        self._revision.set(now.revision)
        self._lag.set(now.loop_lag_s)
        self._recovering.set(now.recovering)
