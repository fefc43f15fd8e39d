"""How cost grows: with the stored tasks, the connections, the size of a message; by tens.

All sizes are there at the same time: each round goes through them.
"""

from __future__ import annotations

import json
import resource
import socket
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from typing import TypeAlias

import attrs

from tests.benchmarks import clients, peers, stored
from tests.benchmarks.answering import one_task
from tests.benchmarks.measure import Curve, Extent, Found, Outcomes, found, in_turn, ratio, steepness
from tests.benchmarks.resident import memory
from tests.process import DaemonProcess

# What is measured, by name and unit.
What: TypeAlias = tuple[str, str]

# What was said of it at each size, round by round.
Said: TypeAlias = Mapping[int, Sequence[float]]

STAT: What = ("Task.stat", "µs")

# Connections of one user in a daemon that serves ten thousand.
CROWD = {"connections_per_user": "20000"}


def tens(least: int, most: int) -> Sequence[int]:
    return [10**power for power in range(least, most + 1)]


def in_rounds(
    extent: Extent, sizes: Sequence[int], looks: Mapping[What, Callable[[int], float]]
) -> dict[What, Said]:
    """One after the other, each at all sizes in turn."""
    return {
        what: in_turn(extent.rounds, {size: partial(look, size) for size in sizes}) for what, look in looks.items()
    }


def grown(by: str, said: Mapping[What, Said]) -> Found:
    """The steepest step of all curves, in the median of the rounds."""
    steps = {
        f"{name}, {here:,} to {after:,}": [
            steepness((here, before), (after, then)) for before, then in zip(at[here], at[after], strict=True)
        ]
        for (name, _), at in said.items()
        for here, after in pairwise(at)
    }
    steepest = max(steps, key=lambda step: statistics.median(steps[step]))
    curves = tuple(
        Curve(name, unit, by, tuple((size, statistics.median(rounds)) for size, rounds in at.items()))
        for (name, unit), at in said.items()
    )
    return attrs.evolve(found(steps[steepest], steepest), curves=curves)


def dearest(said: Said) -> Found:
    """The size at which it costs most, beside the first one, in the median of the rounds."""
    first, *others = said
    beside = {size: ratio(said[size], said[first], lambda value: f"{value:.0f} µs") for size in others}
    size = max(beside, key=lambda size: beside[size].value)
    most = beside[size]
    return attrs.evolve(most, ours=f"{most.ours} at {size:,}", beside=f"{most.beside} at {first:,}")


def by_tasks(extent: Extent) -> Outcomes:
    sizes, ls = tens(2, extent.growth), [clients.request("Task.ls", dbg="")]
    with ExitStack() as stack:
        folders = {size: stack.enter_context(stored.state(size)) for size in sizes}
        asked = {size: stored.sample(folder) for size, folder in folders.items()}
        socks: dict[int, socket.socket] = {}

        def start(size: int) -> float:
            return stored.start(folders[size], []) * 1e6

        def median(size: int, requests: Sequence[bytes]) -> float:
            return statistics.median(clients.one_at_a_time(socks[size], requests, extent.seconds)) * 1e6

        def after_a_change(size: int) -> float:
            clients.ask(socks[size], "Task.start", operation="external")
            return clients.one_at_a_time(socks[size], ls, 0)[0] * 1e6

        # First: a folder has one daemon at a time.
        starts = in_rounds(extent, sizes, {("start until READY", "µs"): start})
        for size, folder in folders.items():
            daemon = stack.enter_context(peers.taskd(folder))
            socks[size] = stack.enter_context(clients.at_rest(daemon.socket))
        answers = in_rounds(
            extent,
            sizes,
            {
                STAT: lambda size: median(size, asked[size][0]),
                ("Task.list, a page of 100", "µs"): lambda size: median(size, asked[size][1]),
                ("Task.ls after a change", "µs"): after_a_change,
                ("Task.ls", "µs"): lambda size: median(size, ls),
            },
        )
    return {"grows-tasks": grown("stored tasks", answers | starts), "grows-stat": dearest(answers[STAT])}


def by_connections(extent: Extent) -> Outcomes:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sizes = tens(0, min(extent.growth, 4))
    with ExitStack() as stack:
        daemons: dict[int, DaemonProcess] = {}
        lines: dict[int, bytes] = {}
        socks: dict[int, list[socket.socket]] = {}
        for size in sizes:
            daemons[size] = stack.enter_context(peers.taskd(settings=CROWD))
            path = daemons[size].socket
            with clients.connected(path) as sock:
                id = clients.ask(sock, "Task.start", operation="external")["id"]
            lines[size] = clients.request("Task.stat", id=id, dbg="")
            socks[size] = [stack.enter_context(clients.at_rest(path)) for _ in range(size)]
        said = in_rounds(
            extent,
            sizes,
            {
                ("Task.stat, all of them asking", "µs"): lambda size: (
                    1e6 / clients.crowd(socks[size], [lines[size]], extent.seconds).rate
                ),
                ("resident memory of the daemon", "MiB"): lambda size: memory(peers.pid(daemons[size])) / 2**20,
            },
        )
    return {"grows-connections": grown("connections", said)}


def by_size(extent: Extent) -> Outcomes:
    with one_task() as (path, line), clients.connected(path) as sock:

        def padded(size: int) -> bytes:
            whole = {**json.loads(line), "padding": ""}
            whole["padding"] = "x" * max(0, size - len(json.dumps(whole)) - 1)
            return json.dumps(whole).encode() + b"\n"

        def stat(size: int) -> float:
            return statistics.median(clients.one_at_a_time(sock, [padded(size)], extent.seconds)) * 1e6

        said = in_rounds(extent, tens(2, extent.growth), {STAT: stat})
    return {"grows-size": grown("bytes of a message", said)}
