"""Quick answers: ``Task.stat`` and ``Task.ls``, beside qemu-storage-daemon's ``query-jobs`` and the floor."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from tests.benchmarks import clients, peers
from tests.benchmarks.measure import (
    Extent,
    Outcomes,
    compared,
    found,
    in_turn,
    milliseconds,
    per_second,
    percentile,
)
from tests.benchmarks.peers import StorageDaemon

MANY = 64
WINDOW = 32

PROCESS_INFO = (
    b"<?xml version='1.0'?><methodCall><methodName>supervisor.getProcessInfo</methodName>"
    b"<params><param><value><string>one</string></value></param></params></methodCall>"
)


@contextmanager
def one_task() -> Iterator[tuple[str, bytes]]:
    """A daemon with a task that runs: its socket, and the request for the task's status."""
    with peers.taskd() as daemon, clients.connected(daemon.socket) as sock:
        id = clients.ask(sock, "Task.start", operation="external")["id"]
        yield daemon.socket, clients.request("Task.stat", id=id, dbg="")


def alone(extent: Extent) -> Outcomes:
    """One connection, one request at a time."""

    def talk(path: str, line: bytes) -> float:
        with clients.connected(path) as sock:
            return clients.rate(clients.one_at_a_time(sock, [line], extent.seconds))

    def query(qemu: StorageDaemon) -> float:
        return clients.rate(clients.one_at_a_time(qemu.sock, [qemu.QUERY], extent.seconds))

    with one_task() as (path, line), peers.sides() as sides:
        sides.there["ours"] = partial(talk, path, line)
        sides.add("qemu", peers.storage_daemon(), query)
        sides.add("echo", peers.echo("lines"), lambda path: talk(path, line))
        said = in_turn(extent.rounds, sides.there)
        return compared(said, {"stat-qemu": "qemu", "stat-echo": "echo"}, per_second, sides.missing)


def in_flight(extent: Extent) -> Outcomes:
    """One connection, 32 requests on their way."""

    def talk(path: str, line: bytes) -> float:
        with clients.connected(path) as sock:
            return clients.in_flight(sock, line, WINDOW, extent.seconds)

    def query(qemu: StorageDaemon) -> float:
        return clients.in_flight(qemu.sock, qemu.QUERY, WINDOW, extent.seconds)

    with one_task() as (path, line), peers.sides() as sides:
        sides.there["ours"] = partial(talk, path, line)
        sides.add("qemu", peers.storage_daemon(), query)
        sides.add("echo", peers.echo("json"), lambda path: talk(path, line))
        said = in_turn(extent.rounds, sides.there)
        return compared(said, {"stat-32-qemu": "qemu", "stat-32-echo": "echo"}, per_second, sides.missing)


def together(extent: Extent) -> Outcomes:
    """64 connections, each with one request at a time, beside one connection with 32."""
    evenness: list[float] = []
    half: list[float] = []
    late: list[float] = []

    def many() -> float:
        with ExitStack() as stack:
            socks = [stack.enter_context(clients.connected(path)) for _ in range(MANY)]
            crowd = clients.crowd(socks, [line], extent.seconds)
        half.append(statistics.median(crowd.took))
        late.append(percentile(crowd.took, 0.99))
        evenness.append(late[-1] / half[-1])
        return crowd.rate

    def one() -> float:
        with clients.connected(path) as sock:
            return clients.in_flight(sock, line, WINDOW, extent.seconds)

    with one_task() as (path, line):
        said = in_turn(extent.rounds, {"ours": many, "one": one})
    p99, p50 = milliseconds(statistics.median(late)), milliseconds(statistics.median(half))
    return {
        **compared(said, {"stat-64-sum": "one"}, per_second),
        "stat-64-p99": found(evenness, f"p99 {p99}", f"p50 {p50}"),
    }


def http(extent: Extent) -> Outcomes:
    """Over HTTP on a connection that is kept, beside supervisor's XML-RPC."""
    whole = clients.posted("/RPC2", PROCESS_INFO, "text/xml")

    def talk(path: str, whole: bytes) -> float:
        with clients.connected(path) as sock:
            return clients.over_http(sock, whole, extent.seconds)

    with one_task() as (path, line), peers.sides() as sides:
        sides.there["ours"] = partial(talk, path, clients.posted("/jsonrpc", line, "application/json"))
        sides.add("supervisor", peers.supervisor(), lambda path: talk(path, whole))
        said = in_turn(extent.rounds, sides.there)
        return compared(said, {"stat-http": "supervisor"}, per_second, sides.missing)


def a_thousand(extent: Extent) -> Outcomes:
    """All tasks of a daemon that has a thousand, beside all jobs."""

    def list_them(qemu: StorageDaemon) -> float:
        return clients.rate(clients.one_at_a_time(qemu.sock, [qemu.QUERY], extent.seconds))

    with peers.taskd() as daemon, clients.connected(daemon.socket) as sock, peers.sides() as sides:
        for _ in range(extent.running):
            clients.ask(sock, "Task.start", operation="external")
        lines = [clients.request("Task.ls", dbg="")]
        sides.there["ours"] = lambda: clients.rate(clients.one_at_a_time(sock, lines, extent.seconds))
        sides.add("qemu", jobs(extent.running), list_them)
        said = in_turn(extent.rounds, sides.there)
        return compared(said, {"ls-qemu": "qemu"}, per_second, sides.missing)


@contextmanager
def jobs(number: int) -> Iterator[StorageDaemon]:
    """A qemu-storage-daemon with so many jobs. Raises Missing."""
    with peers.storage_daemon() as qemu:
        for each in range(number):
            qemu.create(f"j{each}")
        yield qemu
