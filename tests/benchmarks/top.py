"""``taskctl top`` over many tasks: ``python -m tests.benchmarks.top [TASKS [CHANGES_PER_SECOND [SECONDS]]]``.

A real daemon, so many external tasks, a producer that reports so often, and top in a pseudo terminal of 80 by 24,
by each of some orders. Prints the seconds until the screen stood, and then, for so many seconds of watching, what
top took of a processor and how many bytes it wrote to the terminal.
"""

from __future__ import annotations

import fcntl
import os
import pty
import random
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path

import attrs
import trio

from taskd import client
from tests.process import DaemonProcess

ORDERS = ("state", "progress")

# Calls in flight while the tasks are made.
AT_ONCE = 100


@attrs.define(eq=False)
class Shown:
    """A top in a terminal; counts what it writes."""

    process: subprocess.Popen[bytes]
    ours: int
    written: int = 0
    text: bytes = b""

    def read(self) -> None:
        while True:
            try:
                piece = os.read(self.ours, 65536)
            except OSError:
                return
            self.written += len(piece)
            self.text = (self.text + piece)[-65536:]

    def processor(self) -> float:
        """Seconds of user and system time."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def show(socket: str, order: str) -> Shown:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = "from taskd.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "--socket", socket, "top", "--sort", order],
        stdin=theirs,
        stdout=theirs,
        env=os.environ | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"},
        start_new_session=True,
    )
    os.close(theirs)
    shown = Shown(process, ours)
    threading.Thread(target=shown.read, daemon=True).start()
    return shown


async def fill(socket: str, tasks: int) -> list[str]:
    ids: list[str] = []
    async with client.open(socket) as daemon, trio.open_nursery() as nursery:

        async def some(share: int) -> None:
            for n in range(share, tasks, AT_ONCE):
                ids.append((await daemon.start("external", label=f"copy /srv/images/{n}.img to /backup")).id)

        for share in range(AT_ONCE):
            nursery.start_soon(some, share)
    return ids


async def produce(socket: str, ids: list[str], per_second: int) -> None:
    """Random tasks move on, for ever; half of the changes are of the few that stand first."""
    done = dict.fromkeys(ids, 0)
    async with client.open(socket) as daemon:
        begin, count = trio.current_time(), 0
        while True:
            id = random.choice(ids[:40] if count % 2 else ids)
            done[id] += random.randrange(1, 1 << 24)
            await daemon.update(id, done=done[id], total=1 << 32, unit="bytes")
            count += 1
            await trio.sleep_until(begin + count / per_second)


async def measure(socket: str, tasks: int, per_second: int, seconds: float) -> None:
    ids = await fill(socket, tasks)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce, socket, ids, per_second)
        for order in ORDERS:
            started = time.monotonic()
            shown = show(socket, order)
            while f"{tasks} running".encode() not in shown.text:
                await trio.sleep(0.05)
            print(f"by {order}: {time.monotonic() - started:.1f} s until all {tasks} are there,", end=" ")
            print(f"{shown.processor():.1f} s of a processor; then in {seconds:.0f} s", end=" ", flush=True)
            processor, written = shown.processor(), shown.written
            await trio.sleep(seconds)
            print(f"{shown.processor() - processor:.2f} s of a processor, {shown.written - written} bytes written")
            os.write(shown.ours, b"q")
            await trio.to_thread.run_sync(shown.process.wait)
            os.close(shown.ours)
        nursery.cancel_scope.cancel()


def main() -> None:
    tasks, per_second, seconds = [*map(int, sys.argv[1:]), *(10_000, 200, 20)[len(sys.argv) - 1 :]]
    with tempfile.TemporaryDirectory() as folder:
        process = DaemonProcess(Path(folder))
        process.start()
        try:
            trio.run(measure, process.socket, tasks, per_second, seconds)
        finally:
            process.end()


if __name__ == "__main__":
    main()
