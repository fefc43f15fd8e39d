"""How long ``taskctl ls`` takes, beside what nobody can save: ``python -m tests.benchmarks.startup [RUNS]``.

A real daemon with a few tasks. Both commands run in turns, so that whatever else the machine does meets both;
prints the median of each, in milliseconds, and their ratio, which is to be 1.5 at most.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.process import DaemonProcess

TASKS = 5

BARE = [sys.executable, "-c", "import click, rich"]
LS = [str(Path(sys.executable).parent / "taskctl"), "ls"]


def took(command: Sequence[str], env: Mapping[str, str]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - start) * 1000


def main(runs: int = 41) -> None:
    with tempfile.TemporaryDirectory() as folder:
        daemon = DaemonProcess(Path(folder))
        daemon.start()
        try:
            with daemon.connect() as client:
                for n in range(TASKS):
                    client.start("external", label=f"task {n}")
            env = os.environ | {"TASKD_SOCKET": daemon.socket}
            rounds = [(took(BARE, env), took(LS, env)) for _ in range(runs + 1)][1:]  # the first warms the caches
        finally:
            daemon.end()
    bare, ls = (statistics.median(each) for each in zip(*rounds, strict=True))
    print(f"import click, rich: {bare:.1f} ms   taskctl ls: {ls:.1f} ms   ratio {ls / bare:.2f} of {runs} runs")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
