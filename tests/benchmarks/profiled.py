"""Where the daemon's time goes: by thread and by the kernel's part for each call, and by function.

The first is the kernel's own count of an undisturbed daemon. The second is cProfile on the processor's time; it
sees the thread of the event loop alone and makes what it counts slower: its shares count, not its seconds. A
daemon under it is ``python -m tests.benchmarks.profiled NUMBERS``, with taskd's own options behind; it counts from
SIGUSR1 on, when it makes the file NUMBERS.
"""

from __future__ import annotations

import cProfile
import json
import os
import re
import runpy
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

import attrs

from tests.benchmarks import clients, durable, peers
from tests.benchmarks.measure import Extent
from tests.process import listens

# Functions that are kept, the dearest.
SHOWN: Final = 6

TICKS: Final = os.sysconf("SC_CLK_TCK")

# Makes calls of a daemon on the socket at this path, and says how many it made a second.
Calls: TypeAlias = Callable[[str, Extent], float]


@attrs.frozen
class Spent:
    """Microseconds of the processor, in the event loop's thread and in all others (the writer's): of each what ran
    in Python and its libraries, and what in the kernel.
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
            spent[who] += 1e6 * int(user) / TICKS
            spent[f"{who}_kernel"] += 1e6 * int(kernel) / TICKS
        return cls(**spent)

    def since(self, before: Spent, calls: float) -> Spent:
        """Of each of so many calls."""
        pairs = zip(attrs.astuple(self), attrs.astuple(before), strict=True)
        return Spent(*((then - once) / calls for then, once in pairs))


@attrs.frozen
class Profile:
    """Of one call: microseconds from one answer to the next, and those of the processor; and the dearest functions
    of the event loop's thread, with their shares of its time.
    """

    in_all: float
    spent: Spent
    functions: Mapping[str, float]


def profile(folder: Path, calls: Calls, extent: Extent) -> Profile:
    """Of a daemon whose state is in ``folder``: first as it is, and then under cProfile."""
    with peers.taskd(folder, settings=durable.PLENTY) as daemon:
        calls(daemon.socket, extent)  # what the first ones bring with them is no call's
        before, began = Spent.by(peers.pid(daemon)), time.perf_counter()
        rate = calls(daemon.socket, extent)
        number = rate * (time.perf_counter() - began)
        after = Spent.by(peers.pid(daemon))
    return Profile(1e6 / rate, after.since(before, number), by_function(folder, calls, extent))


def by_function(folder: Path, calls: Calls, extent: Extent) -> Mapping[str, float]:
    numbers, path = folder / "numbers", str(folder / "profiled")
    settings = [f"TASKD_{name.upper()}={value}" for name, value in durable.PLENTY.items()]
    profiler = [sys.executable, "-m", "tests.benchmarks.profiled", str(numbers)]
    argv = ["env", *settings, *profiler, "--socket", path, "--state", str(folder / "state")]
    with peers.process(*argv) as running:

        def until(reached: Callable[[], bool]) -> None:
            deadline = time.monotonic() + clients.PATIENCE
            while not reached():
                assert running.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)

        until(lambda: listens(path))
        calls(path, extent)
        running.send_signal(signal.SIGUSR1)
        until(numbers.exists)
        calls(path, extent)
        running.terminate()
        running.wait(clients.PATIENCE)
    spent = Counter[str](json.loads(numbers.read_text()))
    whole = sum(spent.values())
    return {name: own / whole for name, own in spent.most_common(SHOWN)}


def named(file: str, function: str) -> str:
    """``module.function``; ``class.function`` of what is made for a class, and of a method in C."""
    if match := re.fullmatch(r"<method '(\w+)' of '([\w.]+)' objects>", function):
        return f"{match[2]}.{match[1]}"
    if match := re.fullmatch(r"<built-in method (.+)>", function):
        return match[1].removeprefix("builtins.")
    if match := re.fullmatch(r"<c?attrs generated \w+ ([\w.]+)>", file):
        return f"{match[1]}.{function}"
    for root in sorted([os.getcwd(), *sys.path], key=len, reverse=True):
        if root and file.startswith(f"{root}/"):
            module = file.removeprefix(f"{root}/").removesuffix(".py").removesuffix("/__init__")
            return f"{module.replace('/', '.')}.{function}"
    return function


def run(numbers: Path) -> None:
    """taskd under cProfile: ``numbers`` has the seconds of each function, as JSON, when it has ended."""
    profiler = cProfile.Profile(time.thread_time)

    def begin(*_: object) -> None:
        numbers.touch()
        profiler.enable()

    signal.signal(signal.SIGUSR1, begin)
    try:
        runpy.run_module("taskd", run_name="__main__", alter_sys=True)
    finally:
        profiler.create_stats()
        spent: dict[str, float] = defaultdict(float)
        for (file, _, function), (_, _, own, _, _) in profiler.stats.items():
            spent[named(file, function)] += own
        numbers.write_text(json.dumps(spent))


if __name__ == "__main__":
    run(Path(sys.argv.pop(1)))
