"""Memory: of a daemon that does nothing, and of each task that runs."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.benchmarks import clients, peers
from tests.benchmarks.durable import PLENTY
from tests.benchmarks.measure import Extent, Outcomes, compared, found, in_turn

# What taskd stands on, imported and kept.
GROUND = "import trio, orjson, jsonrpcserver, cattrs; print(flush=True); input()"


def memory(pid: int) -> float:
    """Resident bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024.0


def mebibytes(size: float) -> str:
    return f"{size / 2**20:.1f} MiB"


def ground() -> float:
    with peers.process(sys.executable, "-c", GROUND, pipes=True) as python:
        assert python.stdout is not None
        python.stdout.readline()
        return memory(python.pid)


def daemon() -> float:
    with peers.taskd() as empty, clients.connected(empty.socket) as sock:
        clients.ask(sock, "Task.ls")
        return memory(peers.pid(empty))


def empty(extent: Extent) -> Outcomes:
    """A daemon without tasks, beside a Python that has imported what it stands on."""
    said = in_turn(extent.rounds, {"ours": daemon, "ground": ground})
    return compared(said, {"memory-empty": "ground"}, mebibytes)


def each_task(extent: Extent) -> Outcomes:
    """What a running task adds."""

    def measured() -> float:
        with peers.taskd(settings=PLENTY) as daemon, clients.connected(daemon.socket) as sock:
            for _ in range(100):  # what the first ones bring with them is no task's
                clients.ask(sock, "Task.start", operation="external")
            before = memory(peers.pid(daemon))
            for _ in range(extent.running):
                clients.ask(sock, "Task.start", operation="external")
            return (memory(peers.pid(daemon)) - before) / extent.running / 1024

    values = [measured() for _ in range(extent.rounds)]
    return {"memory-task": found(values)}
