"""What others notice of long work: answers while copies run, and how soon a cancel is answered and done."""

from __future__ import annotations

import socket
import statistics
import time
from pathlib import Path

from tests.benchmarks import clients, peers
from tests.benchmarks.copies import image
from tests.benchmarks.durable import PLENTY
from tests.benchmarks.measure import Extent, Outcomes, compared, found, in_turn, milliseconds, percentile

COPIES = 2


def start_copy(sock: socket.socket, source: Path, target: Path) -> str:
    params = {"source": str(source), "target": str(target)}
    return str(clients.ask(sock, "Task.start", operation="copy", params=params)["id"])


def moving(sock: socket.socket, id: str) -> None:
    """Wait until a copy has moved something."""
    task = clients.ask(sock, "Task.get", id=id)
    while not (task["progress"]["done"] or task["finished_at"]):
        assert task["state"] != "failed", task
        task = clients.ask(sock, "Task.wait", id=id, after_revision=task["revision"])


def cancelled(sock: socket.socket, id: str) -> float:
    """Seconds from the cancel until the task has ended."""
    began = time.perf_counter()
    clients.ask(sock, "Task.cancel", id=id, dbg="")
    clients.ask(sock, "Task.wait", id=id)
    return time.perf_counter() - began


def copying(extent: Extent) -> Outcomes:
    """The p99 of ``Task.stat`` while two copies run, beside that of an idle daemon."""
    with peers.taskd() as daemon, peers.folder() as own, clients.connected(daemon.socket) as sock:
        source = image(own / "image", extent.copied, extent.copied, extent.copied)
        task = clients.ask(sock, "Task.start", operation="external")["id"]
        line = [clients.request("Task.stat", id=task, dbg="")]

        def late() -> float:
            return percentile(clients.one_at_a_time(sock, line, extent.seconds), 0.99)

        def late_while_copies_run() -> float:
            for each in own.glob("copy*"):
                each.unlink()
            ids = [start_copy(sock, source, own / f"copy{n}") for n in range(COPIES)]
            for id in ids:
                moving(sock, id)
            value = late()
            for id in ids:
                cancelled(sock, id)
            return value

        said = in_turn(extent.rounds, {"ours": late_while_copies_run, "idle": late})
        return compared(said, {"stat-copying": "idle"}, milliseconds)


def cancel(extent: Extent) -> Outcomes:
    """The p99 of the cancels of a thousand running tasks, in milliseconds."""

    def measured() -> float:
        with peers.taskd(settings=PLENTY) as daemon, clients.connected(daemon.socket) as sock:
            ids = [clients.ask(sock, "Task.start", operation="external")["id"] for _ in range(extent.running)]
            took = []
            for id in ids:
                took += clients.one_at_a_time(sock, [clients.request("Task.cancel", id=id, dbg="")], 0)
            return percentile(took, 0.99) * 1000

    return {"cancel-call": found([measured() for _ in range(extent.rounds)])}


def cancel_copy(extent: Extent) -> Outcomes:
    """From the cancel of a copy until it has ended, and its file is gone, in milliseconds."""
    with peers.taskd() as daemon, peers.folder() as own, clients.connected(daemon.socket) as sock:
        source = image(own / "image", extent.copied, extent.copied, extent.copied)

        def measured() -> float:
            (own / "copy").unlink(missing_ok=True)  # of a small copy that was there before its cancel
            id = start_copy(sock, source, own / "copy")
            moving(sock, id)
            time.sleep(extent.seconds)
            return cancelled(sock, id) * 1000

        values = [measured() for _ in range(extent.rounds)]
    return {"cancel-copy": found(values, milliseconds(statistics.median(values) / 1000))}
