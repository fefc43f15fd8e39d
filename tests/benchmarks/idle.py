"""What a daemon does that has nothing to do: its system calls, in so many seconds."""

from __future__ import annotations

import subprocess
import time

from tests.benchmarks import clients, peers
from tests.benchmarks.measure import Extent, Missing, Outcomes, Skipped, found

# How much longer than one look it is let alone before: trio lets go of a thread that it needs no more after ten
# seconds, and that belongs to the start.
SETTLED = 1.5


def system_calls(extent: Extent) -> Outcomes:
    try:
        strace = peers.tool("strace", "strace")
    except Missing as error:
        return {"idle-calls": Skipped(str(error))}
    with peers.taskd() as daemon, peers.folder() as own, clients.connected(daemon.socket) as sock:
        clients.ask(sock, "Task.start", operation="external")
        time.sleep(extent.idle * SETTLED)
        out = own / "calls"
        argv = [strace, "-f", "-ttt", "-o", str(out), "-p", str(peers.pid(daemon))]
        tracing = subprocess.Popen(argv, stderr=subprocess.PIPE)
        assert tracing.stderr is not None
        said = tracing.stderr.readline()
        if b"attached" not in said:
            tracing.wait()
            return {"idle-calls": Skipped(f"strace may not look: {said.decode().strip()}")}
        began = time.time()
        time.sleep(extent.idle * extent.rounds)
        tracing.terminate()
        tracing.communicate()
        counts = [0] * extent.rounds
        for line in out.read_text().splitlines():
            window = int((float(line.split()[1]) - began) / extent.idle)
            # What was waited in when strace came is not made anew, and what it is left in is not over.
            if line.split()[1] and 0 <= window < extent.rounds and "resumed" not in line and "---" not in line:
                counts[window] += 1
    return {"idle-calls": found(counts)}
