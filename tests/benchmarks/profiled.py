"""Where the daemon's time goes: by thread and by the kernel's part for each call, and by function.

The first is the kernel's own count of an undisturbed daemon. The second is cProfile on the processor's time; it
sees the thread of the event loop alone and makes what it counts slower: its shares count, not its seconds. A
daemon under it is ``python -m tests.benchmarks.profiled NUMBERS``, with taskd's own options behind.
"""

from __future__ import annotations

import cProfile
import importlib
import os
import pstats
import runpy
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import click

from tests.benchmarks import clients, durable, peers
from tests.benchmarks.measure import Extent

# Calls of each kind, for each second of the extent, and functions that are shown.
CALLS: Final = 4000
SHOWN: Final = 25

TICKS: Final = os.sysconf("SC_CLK_TCK")


@attrs.frozen
class Spent:
    """Seconds of the processor, in the event loop's thread and in all others (the writer's), each as it ran in
    Python and its libraries, and in the kernel.
    """

    loop: float = 0.0
    loop_kernel: float = 0.0
    others: float = 0.0
    others_kernel: float = 0.0

    @classmethod
    def by(cls, pid: int) -> Spent:
        spent = dict.fromkeys(("loop", "loop_kernel", "others", "others_kernel"), 0.0)
        for thread in Path(f"/proc/{pid}/task").iterdir():
            user, kernel = (thread / "stat").read_text().rpartition(") ")[2].split()[11:13]
            who = "loop" if int(thread.name) == pid else "others"
            spent[who] += int(user) / TICKS
            spent[f"{who}_kernel"] += int(kernel) / TICKS
        return cls(**spent)


def calls(path: str, number: int) -> Mapping[str, Callable[[], None]]:
    """What is looked at, in the order in which it must be done; each is so many calls."""
    ids: list[str] = []

    def asked(method: str) -> None:
        with clients.connected(path) as sock:
            for id in ids:
                clients.ask(sock, method, id=id)

    def start(times: int) -> None:
        with clients.connected(path) as sock:
            ids.extend(clients.ask(sock, "Task.start", operation="external")["id"] for _ in range(times))

    def stat() -> None:
        if not ids:
            start(1)
        line = clients.request("Task.stat", id=ids[0], dbg="")
        whole = clients.posted("/jsonrpc", line, "application/json")
        with clients.connected(path) as sock:
            for _ in range(number):
                clients.respond(sock, whole)

    return {
        "Task.start": partial(start, number),
        "Task.stat over HTTP": stat,
        "Task.complete": partial(asked, "Task.complete"),
        "Task.destroy": partial(asked, "Task.destroy"),
    }


@contextmanager
def counted_by_function(own: Path) -> Iterator[tuple[str, Callable[[], pstats.Stats]]]:
    """The socket of a daemon under cProfile, and what ends it and gives its numbers."""
    path, numbers = str(own / "s"), own / "numbers"
    settings = [f"TASKD_{name.upper()}={value}" for name, value in durable.PLENTY.items()]
    profiler = [sys.executable, "-m", "tests.benchmarks.profiled", str(numbers)]
    with peers.process("env", *settings, *profiler, "--socket", path, "--state", own / "state") as running:
        deadline = time.monotonic() + clients.PATIENCE
        while not os.path.exists(path):
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)

        def end() -> pstats.Stats:
            running.terminate()
            running.wait(clients.PATIENCE)
            return pstats.Stats(str(numbers))

        yield path, end


def report(extent: Extent) -> None:
    """Print both."""
    number = max(1, int(CALLS * extent.seconds))
    click.echo(f"\nmicroseconds of a call, of {number}: from the asking to the answer, and of the processor")
    click.echo(f"{'':<20} {'in all':>8} {'loop':>8} {'kernel':>8} {'writer':>8} {'kernel':>8}")
    with peers.taskd(settings=durable.PLENTY) as daemon:
        for name, do in calls(daemon.socket, number).items():
            before, began = attrs.astuple(Spent.by(peers.pid(daemon))), time.perf_counter()
            do()
            took, after = time.perf_counter() - began, attrs.astuple(Spent.by(peers.pid(daemon)))
            each = [took, *(then - once for then, once in zip(after, before, strict=True))]
            click.echo(f"{name:<20} " + " ".join(f"{seconds / number * 1e6:>8.0f}" for seconds in each))
    for kept in ("Task.stat over HTTP",), ("Task.start", "Task.complete", "Task.destroy"):
        with peers.folder() as own, counted_by_function(own) as (path, end):
            for name, do in calls(path, number).items():
                if name in kept:
                    do()
            click.echo(f"\nby function, in the event loop's thread: {', '.join(kept)}")
            end().strip_dirs().sort_stats("tottime").print_stats(SHOWN)


def run(numbers: str) -> None:
    """taskd under cProfile; what is imported is not counted."""
    importlib.import_module("taskd.server")
    profiler = cProfile.Profile(time.thread_time)
    try:
        profiler.runcall(runpy.run_module, "taskd", run_name="__main__", alter_sys=True)
    finally:
        profiler.dump_stats(numbers)


if __name__ == "__main__":
    run(sys.argv.pop(1))
