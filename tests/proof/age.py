"""Load and age: ``python -m tests.proof.age [--minutes M] [--seed N] [--folder DIR]``.

The clients of ``load`` are at work while the daemon is killed at random moments, and sometimes stopped; a stretch
in the middle, of more than a quarter of the time, has no death, so that what grows can be seen. The figures are
printed; the exit status is 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import Final

import trio

from taskd.client import on_trio
from taskd.model import JSON
from taskd.registry import feed
from taskd.states import State
from tests.cases import empty
from tests.process import DaemonProcess
from tests.proof import RANDOM, Outcome, Proof, Sample, Verdict
from tests.proof.load import CLIENTS, Client, Look, World, fetched
from tests.proof.told import Told, clock

MINUTES: Final = 60.0

# Seconds between two deaths of the daemon.
PAUSES: Final = (2.0, 15.0)

# How many of the deaths are a SIGTERM.
POLITE: Final = 0.15

# Seconds between two looks at the daemon's memory and descriptors.
LOOK: Final = 0.5

# Calls in one batch.
BATCH: Final = 500

# What may be more at the end than at the beginning of a stretch: KiB, descriptors. A shorter one says nothing.
GROWTH: Final = (12 * 1024, 4)
TELLING: Final = 120.0


# What is done to the daemon, and how it is looked at.


async def begun(world: World) -> None:
    """Start the daemon, and count how long that takes."""
    before = clock()
    await trio.to_thread.run_sync(world.daemon.start)
    world.started = clock()
    world.starts.append((world.at, world.started - before))


async def ended(world: World, *, polite: bool) -> None:
    """One death of the daemon."""
    world.started = 0.0
    if not polite:
        await trio.to_thread.run_sync(world.daemon.kill)
        world.counts["SIGKILL"] += 1
        return
    status = await trio.to_thread.run_sync(world.daemon.stop)
    world.counts["SIGTERM"] += 1
    if status != 0:
        world.wrong(f"the daemon stopped with status {status}")


async def deaths(world: World) -> None:
    """Kill it, and start it again, until the time is up."""
    least, most = PAUSES
    while True:
        await trio.sleep(world.rng.uniform(least, min(most, max(least * 1.5, world.seconds / 8))))
        if world.calm:
            await filled(world)
        while world.calm:
            await trio.sleep(LOOK)
        if world.over:
            return
        await ended(world, polite=world.rng.random() < POLITE)
        await begun(world)


async def filled(world: World) -> None:
    """Make as many changes as the daemon keeps for watchers (``registry.feed``): from here on it must not grow."""
    for _ in range(feed.LIMIT // BATCH if world.seconds >= TELLING else 0):
        ids: list[JSON] = [None] * BATCH
        for method, params in (("start", {"operation": "external"}), ("complete", {}), ("destroy", {})):
            calls = [{"jsonrpc": "2.0", "method": f"Task.{method}", "id": 1, "params": dict(params)} for _ in ids]
            for call, id in zip(calls, ids, strict=True):
                call["params"] |= {} if id is None else {"id": id}  # type: ignore[operator]  # it is an object
            _, said = await fetched(world.daemon.socket, "POST", "/jsonrpc", json.dumps(calls).encode())
            if method == "start":
                ids = [reply["result"]["id"] for reply in json.loads(said)]
    world.settled = world.at


async def looks(world: World) -> None:
    """At its memory and its descriptors; until cancelled."""
    while True:
        await trio.sleep(LOOK)
        process = world.daemon.process
        if process is None or not world.started:
            continue
        if process.poll() is not None:
            world.wrong(f"the daemon is dead by itself: {process.returncode}")
            await begun(world)
            continue
        status = Path(f"/proc/{process.pid}/status").read_text()
        kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
        fds = len(os.listdir(f"/proc/{process.pid}/fd"))
        world.looks.append(Look(world.at, clock() - world.started, kib, fds, world.calm and world.settled > 0))


async def lived(world: World, folder: Path) -> None:
    """The whole of it."""
    await begun(world)
    async with trio.open_nursery() as around:
        around.start_soon(looks, world)
        with ExitStack() as stack:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(deaths, world)
                for n, (work, number) in enumerate(CLIENTS):
                    for m in range(number):
                        client = stack.enter_context(closing(Client(world, http=m % 2 == 1)))
                        nursery.start_soon(work, client, folder / f"{n}.{m}")
        around.cancel_scope.cancel()
    await ended(world, polite=False)
    await begun(world)
    await judged(world, folder)
    await ended(world, polite=True)


async def judged(world: World, folder: Path) -> None:
    """When all is over: everything that was told is there, and nothing else of ours is anywhere."""
    told, asked, labels = world.told, clock(), Counter[str]()
    async with on_trio.open(world.daemon.socket) as daemon:
        found = set()
        async for record in daemon.list(page_size=1000):
            found.add(told.hear(record, asked).id)
            labels[record.label] += 1
            if not record.ended:
                world.wrong(f"nobody waits for it any more, and it goes on: {record.raw}")
    for id in {*told.kept()} - found:
        told.unknown(id, asked)
    for id in found - {*told.kept()}:
        world.wrong(f"nobody started it, or it was destroyed, and it is there: {id}")
    if twice := [label for label, number in labels.items() if number > 1]:
        world.wrong(f"one request made several tasks: {twice}")
    left = [*folder.rglob(".taskd-*"), *(world.daemon.folder / "state" / "workspace").iterdir()]
    world.counts["left behind"] = len(left)
    if left:
        world.wrong(f"left behind: {left}")
    if strays := [*_strays(told)]:
        world.wrong(f"processes of ended tasks are alive: {strays}")
    if faults := [line for line in world.daemon.log.splitlines() if "traceback=" in line]:
        world.wrong(f"{len(faults)} faults in the log, the first: {faults[0]}")


def _strays(told: Told) -> Iterator[int]:
    """Processes that say they belong to a task of ours."""
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            words = environment.read_bytes().split(b"\0")
        except OSError:
            continue
        for word in words:
            name, _, id = word.decode(errors="replace").partition("=")
            if name == "TASKD_TASK" and id in told.accounts:
                yield int(environment.parent.name)


# The figures.


def quarters(looks: Sequence[Look]) -> tuple[Sequence[Look], Sequence[Look]]:
    """The first and the last quarter of them, by time; without the first seconds of a run, which are a start's."""
    settled = [look for look in looks if look.up > 1]
    part = len(settled) // 4
    return settled[:part], settled[len(settled) - part :]


def flatness(world: World) -> Iterator[str]:
    """How memory and descriptors went, where there is enough to tell."""
    calm = [look for look in world.looks if look.calm]
    between = [look for look in world.looks if not (look.calm or look.up > PAUSES[1])]
    for name, some in (("between deaths", between), ("in the calm", calm)):
        first, last = quarters(some)
        if not first:
            continue
        kib = [int(median(look.kib for look in part)) for part in (first, last)]
        fds = [int(median(look.fds for look in part)) for part in (first, last)]
        span = some[-1].at - some[0].at
        most = max(look.fds for look in some)
        yield f"memory {name} ({span:.0f} s): {kib[0]}, then {kib[1]} KiB"
        yield f"descriptors {name}: {fds[0]}, then {fds[1]}, at most {most}"
        if span >= TELLING and (kib[1] - kib[0] > GROWTH[0] or fds[1] - fds[0] > GROWTH[1]):
            world.wrong(f"it grows {name}: {kib} KiB, {fds} descriptors")


def figures(world: World) -> Iterator[str]:
    """What was done, and what came of it."""
    told, counts = world.told, world.counts
    yield f"seconds: {world.at:.0f}; deaths: {counts['SIGKILL']} by SIGKILL, {counts['SIGTERM']} by SIGTERM"
    yield f"calls: {counts['calls']}, of them without an answer: {counts['calls without an answer']}"
    yield f"acknowledged starts: {counts['acknowledged starts']}, lost: {told.lost}"
    for operation in sorted({operation for operation, _ in world.ends}):
        ends = {state: number for (name, state), number in world.ends.items() if name == operation}
        yield f"{operation}: " + ", ".join(f"{number} {state}" for state, number in sorted(ends.items()))
    yield f"looks at targets: {counts['looks at targets']}, half-written: {counts['half-written']}"
    yield f"accepted cancels: {counts['accepted cancels']}, forgotten: {told.forgotten}"
    yield f"cancels that came too late: {counts['cancels that came too late']}"
    yield f"records heard: {told.records}, to watchers: {counts['told to watchers']}; untrue: {told.untrue}"
    yield f"destroyed: {counts['destroyed']}; residue and left behind: {counts['left behind']}"
    took = [seconds for _, seconds in world.starts]
    yield f"a start: {median(took):.2f} s, the first {took[0]:.2f} s, the last {took[-1]:.2f} s"
    yield from flatness(world)
    yield f"wrong: {len(world.wrongs)}"


def aged(seconds: float, seed: int, folder: Path) -> World:
    """Live so long in an empty folder."""
    daemon = DaemonProcess(folder)
    world = World(daemon, seconds, random.Random(seed))
    try:
        trio.run(lived, world, empty(folder / "data"))
    finally:
        daemon.end()
    for line in figures(world):
        print(line, flush=True)
    return world


def run(sample: Sample) -> Iterator[Outcome]:
    """All is an hour, one of so many points that part of it."""
    with tempfile.TemporaryDirectory() as folder:
        world = aged(MINUTES * 60 / sample.every, sample.seed, Path(folder))
    faults = world.counts["SIGKILL"] + world.counts["SIGTERM"]
    yield from (Outcome(Verdict.WRONG, 0, what) for what in world.wrongs)
    for (_, state), number in world.ends.items():
        verdict = Verdict.WHOLE if state == State.COMPLETED else Verdict.AS_BEFORE
        yield from (Outcome(verdict, faults if not n else 0) for n in range(number))
        faults = 0


PROOFS: Final = (Proof("an hour of mixed load from ten clients", "death at random moments", run, RANDOM),)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proof.age", description="Load, kill, count.")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="how long")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of what is random")
    parser.add_argument("--folder", type=Path, help="where; a new one by default, which is removed")
    args = parser.parse_args()
    print(f"seed: {args.seed}", flush=True)
    with tempfile.TemporaryDirectory() as new:
        world = aged(args.minutes * 60, args.seed, args.folder or Path(new))
    return 1 if world.wrongs else 0


if __name__ == "__main__":
    sys.exit(main())
