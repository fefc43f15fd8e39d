"""What is on disk when it is answered: ``Task.start`` beside qemu-storage-daemon and beside the disk itself.

A transaction of the store is one fsync of its log; how many there are, the daemon's own numbers tell.
"""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path

from tests.benchmarks import clients, peers
from tests.benchmarks.measure import Extent, Found, Outcomes, compared, in_turn, per_second
from tests.benchmarks.peers import StorageDaemon

# Tasks that are started and not ended, of one owner.
PLENTY = {"tasks_per_owner": "10000000"}

MANY = 64

START = clients.request("Task.start", operation="external", params={})


def one_client(extent: Extent) -> Outcomes:
    """Start, complete and destroy; beside a job that makes a small file and is dismissed: nothing of it lasts."""
    numbers = count()

    def whole_life() -> None:
        id = clients.ask(sock, "Task.start", operation="external")["id"]
        clients.ask(sock, "Task.complete", id=id)
        clients.ask(sock, "Task.destroy", id=id)

    def job(qemu: StorageDaemon) -> None:
        name = f"j{next(numbers)}"
        qemu.create(name)
        qemu.dismiss(name)

    with peers.taskd() as daemon, clients.connected(daemon.socket) as sock, peers.sides() as sides:
        sides.there["ours"] = lambda: clients.repeated(whole_life, extent.seconds)
        sides.add("qemu", peers.storage_daemon(), lambda qemu: clients.repeated(lambda: job(qemu), extent.seconds))
        said = in_turn(extent.rounds, sides.there)
        return compared(said, {"life-qemu": "qemu"}, per_second, sides.missing)


def many_clients(extent: Extent) -> Outcomes:
    """64 clients that start tasks, beside a file on the same disk that is appended to and synced each time."""
    with peers.taskd(settings=PLENTY) as daemon, ExitStack() as stack, synced(daemon.folder) as sync:
        socks = [stack.enter_context(clients.connected(daemon.socket)) for _ in range(MANY)]
        before = counted(daemon.socket)
        said = in_turn(
            extent.rounds,
            {
                "ours": lambda: clients.crowd(socks, [START], extent.seconds).rate,
                "disk": lambda: clients.repeated(sync, extent.seconds),
            },
        )
        after = counted(daemon.socket)
    each = (after[0] - before[0]) / (after[1] - before[1])
    one = compared(said, {"start-64-disk": "disk"}, per_second)["start-64-disk"]
    assert isinstance(one, Found)
    rate = per_second(statistics.median(said["ours"]))
    return {"start-64-disk": Found(one.value, one.low, one.high, f"{rate}, {each:.2f} fsyncs a task", one.beside)}


def counted(path: str) -> tuple[float, float]:
    """The transactions of the store, and the tasks that were made, so far."""
    with clients.connected(path) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: taskd\r\nConnection: close\r\n\r\n")
        said = b"".join(iter(lambda: sock.recv(clients.READ), b"")).decode()

    def number(name: str) -> float:
        match = re.search(rf"^{name}(?:\{{.*\}})? (\S+)$", said, re.MULTILINE)
        return float(match[1]) if match else 0.0

    return number("taskd_commit_seconds_count"), number("taskd_tasks_made_total")


@contextmanager
def synced(folder: Path) -> Iterator[Callable[[], None]]:
    """What writes a kilobyte and waits until it is on the disk."""
    descriptor = os.open(folder / "synced", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    page = bytes(1024)

    def once() -> None:
        os.write(descriptor, page)
        os.fdatasync(descriptor)

    try:
        yield once
    finally:
        os.close(descriptor)
