"""Many watchers of many changes: ``python -m tests.benchmarks.watchers [WATCHERS [CHANGES]]``.

A real daemon in a process of its own; each watcher has a connection, knows what it was told and nothing else, and
one in ten reads only now and then. At the end each must have the true state of every task and the whole of every
log. Prints what it took and the daemon's resident memory before, at its highest and after.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import attrs
import orjson
import trio

from taskd import client
from tests.process import DaemonProcess

TASKS = 20

# Seconds that a slow watcher stays away between two reads.
AWAY = 0.5


@attrs.define(eq=False)
class Watcher:
    """What one of them knows."""

    socket: str
    slow: bool
    tasks: dict[str, Any] = attrs.field(factory=dict)
    logs: dict[str, list[str]] = attrs.field(factory=dict)
    events: int = 0
    done: trio.Event = attrs.field(factory=trio.Event)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with await trio.open_unix_socket(self.socket) as stream:
            await stream.send_all(b'{"jsonrpc":"2.0","method":"Task.watch","params":{"log":true},"id":1}\n')
            rest = b""
            while not self.done.is_set():
                *lines, rest = (rest + await stream.receive_some(1 << 20)).split(b"\n")
                for line in lines:
                    self.take(orjson.loads(line), task_status)
                if self.slow:
                    await trio.sleep(AWAY)

    def take(self, message: Any, task_status: trio.TaskStatus[None]) -> None:
        event = message.get("params")
        if event is None:
            return
        self.events += 1
        match event["event"]:
            case "synced":
                task_status.started()
            case "log":
                self.logs.setdefault(event["id"], []).extend(line["line"] for line in event["lines"])
            case "changed" | "snapshot":
                self.tasks[event["task"]["id"]] = event["task"]
        if len(self.tasks) == TASKS and all(task["finished_at"] for task in self.tasks.values()):
            self.done.set()


def resident(pid: int) -> float:
    """MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


async def produce(socket: str, ids: list[str], changes: int) -> None:
    """Each task has a producer of its own, with a connection of its own."""

    async def one(at: int) -> None:
        async with client.open(socket) as daemon:
            for n in range(at, changes, TASKS):
                await daemon.update(ids[at], done=n, total=changes, log=[f"change {n}"])
            await daemon.complete(ids[at])

    async with trio.open_nursery() as nursery:
        for at in range(TASKS):
            nursery.start_soon(one, at)


async def measure(process: DaemonProcess, watchers: int, changes: int) -> None:
    assert process.process is not None
    pid, highest = process.process.pid, 0.0
    async with client.open(process.socket) as daemon, trio.open_nursery() as nursery:
        ids = [(await daemon.start("external")).id for _ in range(TASKS)]
        before = resident(pid)
        crowd = [Watcher(process.socket, slow=n % 10 == 0) for n in range(watchers)]
        for watcher in crowd:
            await nursery.start(watcher.run)
        there = resident(pid)

        async def look() -> None:
            nonlocal highest
            while True:
                highest = max(highest, resident(pid))
                await trio.sleep(0.05)

        nursery.start_soon(look)
        began = time.monotonic()
        await produce(process.socket, ids, changes)
        produced = time.monotonic() - began
        for watcher in crowd:
            await watcher.done.wait()
        took = time.monotonic() - began
        nursery.cancel_scope.cancel()
    expected = {id: [f"change {n}" for n in range(changes) if n % TASKS == at] for at, id in enumerate(ids)}
    wrong = sum(
        watcher.logs != expected or {task["state"] for task in watcher.tasks.values()} != {"completed"}
        for watcher in crowd
    )
    events = sum(watcher.events for watcher in crowd)
    print(
        f"{watchers} watchers, {changes} changes of {TASKS} tasks: {wrong} of them ended with less than the truth"
    )
    print(f"changes made in {produced:.1f} s ({changes / produced:.0f} a second), all told after {took:.1f} s")
    print(f"{events} notifications delivered, {events / took:.0f} a second")
    print(f"resident: {before:.1f} MiB before, {there:.1f} with all connected, {highest:.1f} at most")


def main(watchers: int = 1000, changes: int = 10_000) -> None:
    with tempfile.TemporaryDirectory(prefix="taskd-") as folder:
        process = DaemonProcess(Path(folder))
        process.start()
        try:
            trio.run(measure, process, watchers, changes)
        finally:
            process.end()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
