"""A thousand connections: the events that their watches are told, beside lines that are echoed.

Twenty tasks change as fast as their producer is answered. An event counts when its line has come.
"""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from time import perf_counter

from tests.benchmarks import clients, peers
from tests.benchmarks.measure import Extent, Outcomes, compared, in_turn, per_second

TASKS = 20

# A look is so much longer here: in a crowd, changes are gathered for half a second.
LONG = 6

WATCH = clients.request("Task.watch")


def told(extent: Extent) -> Outcomes:
    with ExitStack() as stack:

        def connected(path: str) -> list[socket.socket]:
            return [stack.enter_context(clients.connected(path)) for _ in range(extent.watchers)]

        daemon = stack.enter_context(peers.taskd())
        producer = stack.enter_context(clients.connected(daemon.socket))
        ids = [clients.ask(producer, "Task.start", operation="external")["id"] for _ in range(TASKS)]
        watchers = connected(daemon.socket)
        for watcher in watchers:
            watcher.sendall(WATCH)
            said = clients.read_line(watcher)
            while b'"synced"' not in said:
                said += clients.read_line(watcher)
        line = b"x" * max(map(len, said.splitlines())) + b"\n"
        others, seconds = connected(stack.enter_context(peers.echo("lines"))), LONG * extent.seconds
        rates = in_turn(
            extent.rounds,
            {
                "ours": lambda: watched(watchers, producer, ids, seconds),
                "echo": lambda: clients.crowd(others, [line], seconds).rate,
            },
        )
    return compared(rates, {"events-echo": "echo"}, per_second)


def watched(
    watchers: Sequence[socket.socket], producer: socket.socket, ids: Sequence[str], seconds: float
) -> float:
    """Events a second, of all watchers together."""
    at = {sock.fileno(): sock for sock in (*watchers, producer)}
    poll = select.epoll()
    for number in at:
        poll.register(number, select.EPOLLIN)
    change, came = 0, 0
    began = now = perf_counter()
    producer.sendall(update(ids, 0))
    while (now := perf_counter()) - began < seconds:
        for number, _ in poll.poll(clients.PATIENCE):
            said = at[number].recv(clients.READ)
            if number != producer.fileno():
                came += said.count(b"\n")
            elif said.endswith(b"\n"):
                change += 1
                producer.sendall(update(ids, change))
    poll.close()
    clients.read_line(producer)  # the last answer: the next look begins anew
    return came / (now - began)


def update(ids: Sequence[str], change: int) -> bytes:
    params = {"id": ids[change % len(ids)], "progress": {"done": change, "total": 1 << 30, "unit": "things"}}
    return json.dumps({"jsonrpc": "2.0", "method": "Task.update", "params": params, "id": 1}).encode() + b"\n"
