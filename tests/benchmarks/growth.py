"""How cost grows: with the stored tasks, the connections, the size of a message; by tens."""

from __future__ import annotations

import json
import resource
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TypeAlias

from tests.benchmarks import clients, peers, stored
from tests.benchmarks.answering import one_task
from tests.benchmarks.measure import Curve, Extent, Found, Outcomes
from tests.benchmarks.resident import memory

# What is measured at one point, by name and unit.
Costs: TypeAlias = Mapping[tuple[str, str], float]

# Connections of one user in a daemon that serves ten thousand.
CROWD = {"connections_per_user": "20000"}


def grown(row: str, by: str, points: Sequence[int], costs: Callable[[int], Costs]) -> Outcomes:
    at = [(point, costs(point)) for point in points]
    curves = tuple(
        Curve(name, unit, by, tuple((point, said[name, unit]) for point, said in at)) for name, unit in at[0][1]
    )
    steps = {curve.name: curve.steepest() for curve in curves}
    steepest = max(steps, key=lambda name: steps[name])
    return {row: Found(steps[steepest], min(steps.values()), steps[steepest], steepest, curves=curves)}


def by_tasks(extent: Extent) -> Outcomes:
    def costs(tasks: int) -> Costs:
        with stored.state(tasks) as folder:
            stats, pages = stored.sample(folder)
            start = statistics.median(stored.start(folder, []) for _ in range(extent.rounds))
            with peers.taskd(folder) as daemon, clients.connected(daemon.socket) as sock:

                def median(requests: Sequence[bytes]) -> float:
                    return statistics.median(clients.one_at_a_time(sock, requests, extent.seconds))

                ls = [clients.request("Task.ls", dbg="")]

                def after_a_change() -> float:
                    clients.ask(sock, "Task.start", operation="external")
                    return clients.one_at_a_time(sock, ls, 0)[0]

                return {
                    ("Task.stat", "µs"): median(stats) * 1e6,
                    ("Task.list, a page of 100", "µs"): median(pages) * 1e6,
                    ("Task.ls after a change", "µs"): 1e6
                    * statistics.median(after_a_change() for _ in range(extent.rounds)),
                    ("Task.ls", "µs"): median(ls) * 1e6,
                    ("start until READY", "µs"): start * 1e6,
                }

    return grown("grows-tasks", "stored tasks", [10**n for n in range(2, extent.growth + 1)], costs)


def by_connections(extent: Extent) -> Outcomes:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def costs(number: int) -> Costs:
        with peers.taskd(settings=CROWD) as daemon, ExitStack() as stack:
            with clients.connected(daemon.socket) as sock:
                id = clients.ask(sock, "Task.start", operation="external")["id"]
            line = clients.request("Task.stat", id=id, dbg="")
            socks = [stack.enter_context(clients.connected(daemon.socket)) for _ in range(number)]
            rates = [clients.crowd(socks, [line], extent.seconds).rate for _ in range(extent.rounds)]
            return {
                ("Task.stat, all of them asking", "µs"): 1e6 / statistics.median(rates),
                ("resident memory of the daemon", "MiB"): memory(peers.pid(daemon)) / 2**20,
            }

    return grown("grows-connections", "connections", [10**n for n in range(min(extent.growth, 5))], costs)


def by_size(extent: Extent) -> Outcomes:
    with one_task() as (path, line), clients.connected(path) as sock:

        def costs(size: int) -> Costs:
            padded = {**json.loads(line), "padding": ""}
            padded["padding"] = "x" * max(0, size - len(json.dumps(padded)) - 1)
            whole = json.dumps(padded).encode() + b"\n"
            took = [
                statistics.median(clients.one_at_a_time(sock, [whole], extent.seconds))
                for _ in range(extent.rounds)
            ]
            return {("Task.stat", "µs"): statistics.median(took) * 1e6}

        return grown("grows-size", "bytes of a message", [10**n for n in range(2, extent.growth + 1)], costs)
