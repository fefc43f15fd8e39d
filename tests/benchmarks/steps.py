"""A task with one durable step, from its start to its end, one after the other.

Ours is an operation of a package (``step``), with one step in its journal. The peers do the same in a process of
their own (``queues``): DBOS a workflow with one step, TaskFlow a flow with one task and its logbook, huey a task
for its consumer; each on SQLite.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from tests.benchmarks import clients, peers
from tests.benchmarks.measure import Extent, Missing, Outcomes, compared, in_turn, per_second

QUEUES: Final = ("dbos", "taskflow", "huey")

_METADATA: Final = "Metadata-Version: 2.1\nName: taskd-benchmarks\nVersion: 0\n"
_POINT: Final = "[taskd.operations]\nstep = tests.benchmarks.step:OPERATION\n"


@contextmanager
def package() -> Iterator[None]:
    """What is started meanwhile has the operation, as if a package with it were installed."""
    with peers.folder() as own:
        info = own / "taskd_benchmarks-0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(_METADATA)
        (info / "entry_points.txt").write_text(_POINT)
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(own), before)))
        try:
            yield
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before


@contextmanager
def queue(name: str) -> Iterator[Callable[[int], float]]:
    """How many a second, of so many. Raises Missing."""
    python = peers.python()
    with (
        peers.folder() as own,
        peers.process(python, Path(__file__).parent / "queues.py", name, cwd=own, pipes=True) as it,
    ):
        assert it.stdin is not None
        assert it.stdout is not None
        to, of = it.stdin, it.stdout

        def run(number: int) -> float:
            to.write(b"%d\n" % number)
            to.flush()
            said = of.readline()
            if not said:
                raise Missing(f"{name} does not run here")
            return number / float(said)

        run(1)
        yield run


def life(sock: socket.socket) -> None:
    """Ours: a task with one step, until it has ended."""
    id = clients.ask(sock, "Task.start", operation="step", params={})["id"]
    assert clients.ask(sock, "Task.wait", id=id)["state"] == "completed"


def one_step(extent: Extent) -> Outcomes:
    with package(), peers.taskd() as daemon, clients.connected(daemon.socket) as sock, peers.sides() as sides:
        sides.there["ours"] = lambda: clients.repeated(partial(life, sock), extent.seconds)
        for name in QUEUES:
            sides.add(name, queue(name), lambda run: run(extent.steps))
        said = in_turn(extent.rounds, sides.there)
        return compared(said, {f"step-{name}": name for name in QUEUES}, per_second, sides.missing)
