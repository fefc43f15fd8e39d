"""A small filesystem that is really full, but for some blocks more each time, until the scenario fits into them.

The callers' folder is on it, or the daemon's. What does not fit is refused, or fails and is undone; when there is
room again, all that waited goes on, and the same can be done. And one that was killed starts where there is no
room for its state.

What is written in place needs room in the callers' folder where there are holes in what it is written over, and
only there: so there are.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from taskd.errors import NoDaemon, Refused
from tests.operations.conftest import mounted, output
from tests.proof import Outcome, Proof, Sample, Verdict
from tests.proof.faults import LASTS, lived
from tests.proof.gate import Gated, kill_at
from tests.proof.scenarios import (
    BLOCK,
    BLOCKS,
    BLOCKS_ASIDE,
    BLOCKS_DEVICE,
    BLOCKS_IN_PLACE,
    CANCELLED_IN_PLACE,
    DEVICE_VERIFIED,
    EXTERNAL,
    SCENARIOS,
    Place,
    Scenario,
)
from tests.proof.stage import Ground, Stage, perform
from tests.proof.syscalls import TOO_MANY

# Bytes of the filesystem.
SMALL: Final = 4 << 20

# Seconds in which a recovery meets it.
SOON: Final = 0.5

# A program that meets it says so by its exit status.
CODES: Final = frozenset({"ENOSPC", "STORE_UNAVAILABLE", "UNDO_FAILED", "COMMAND_FAILED"})

# A loop device over a file there has an error of its own. And where only a part of a write got into that file, it
# has none, neither for the write nor for the sync, for the kernel takes it for all: only to read it back tells.
DEVICE_CODES: Final = CODES | {"EIO", "VERIFY_FAILED"}


@contextmanager
def _small(folder: Path) -> Iterator[Path]:
    disk = folder / "disk.img"
    with disk.open("wb") as file:
        file.truncate(SMALL)
    output("mkfs.ext4", "-q", "-m", "0", "-b", "1024", "-O", "^has_journal", disk)
    with mounted(folder / "small", "-o", "loop", str(disk)) as there:
        (there / "here").mkdir()
        yield there / "here"


@contextmanager
def data_on_it(folder: Path) -> Iterator[Place]:
    with _small(folder) as here:
        yield Place(here, folder / "state")


@contextmanager
def state_on_it(folder: Path) -> Iterator[Place]:
    (folder / "data").mkdir()
    with _small(folder) as here:
        yield Place(folder / "data", here / "state")


def fill(folder: Path, room: int) -> Path:
    """The file that takes all but so many bytes of the filesystem."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        with suppress(OSError):
            while file.write(bytes(64 << 10)):
                pass
        with suppress(OSError):
            while file.write(bytes(1024)):
                pass
        os.fsync(file.fileno())
        os.truncate(ballast, max(0, os.path.getsize(ballast) - room))
    return ballast


# How each task of a run ended, if that was while the filesystem was full: its state, and its error.
Ends = list[tuple[str, str]]


def fitting(ground: Ground, step: int, scenario: Scenario, sample: Sample) -> Iterator[Outcome]:
    """With more and more room, each time so many bytes more, until all ends as where there is room for all."""
    usual: Ends = []
    perform(scenario, partial(_squeezed, SMALL, [], usual), ground)
    assert usual, f"{scenario} does not even fit where there is room"
    for n in filter(sample.takes, range(1, TOO_MANY)):
        ends: Ends = []
        outcome = perform(scenario, partial(_squeezed, (n - 1) * step, usual, ends), ground)
        if n == 1 and ends == usual:
            outcome = Outcome(Verdict.WRONG, faults=0, what="it needs no room: this proves nothing")
        yield outcome
        if ends == usual:
            return


def _squeezed(room: int, usual: Ends, ends: Ends, stage: Stage) -> Outcome:
    gated = stage.start()
    with gated.connect() as daemon:
        daemon.ids()
        ballast = fill(stage.folder / "small", room)
        mended = threading.Timer(LASTS, ballast.unlink)
        mended.start()
        with suppress(NoDaemon, Refused):
            stage.scenario.act(daemon, stage.place, stage.said)
            if ballast.exists() or room == SMALL:
                ends += [(task.state, task.error.message if task.error else "") for task in daemon.list()]
        mended.cancel()
        mended.join()
        ballast.unlink(missing_ok=True)
    stage.faults += ends != usual
    return lived(DEVICE_CODES if (stage.place.data / "device").exists() else CODES, gated, stage)


def restarted(scenario: Scenario, sample: Sample) -> Iterator[Outcome]:
    """Killed at the n-th call, and started again where there is no room for the state, for every n."""
    for n in filter(sample.takes, range(1, TOO_MANY)):
        first: list[Gated] = []
        yield perform(scenario, partial(_restarted, n, first), state_on_it)
        if first and not first[0].killed:
            return


def _restarted(n: int, first: list[Gated], stage: Stage) -> Outcome:
    first.append(stage.play(kill_at(n)))
    ballast = fill(stage.folder / "small", 0)
    gated = stage.start()
    with gated.connect() as daemon:
        mended = threading.Timer(SOON, ballast.unlink)
        mended.start()
        for id in daemon.ids():
            daemon.get(id)
        mended.join()
    stage.faults += 1
    return lived(CODES | {"INTERRUPTED"}, gated, stage)


def _over_holes(scenario: Scenario, name: str = "target") -> Scenario:
    """The same, into holes in the file of that name."""

    def prepare(folder: Path) -> None:
        scenario.prepare(folder)
        for start, length in BLOCKS:
            where = ("--offset", str(start * BLOCK), "--length", str(length * BLOCK))
            output("fallocate", "--punch-hole", *where, folder / name)

    return attrs.evolve(scenario, name=f"{scenario.name}, over holes", prepare=prepare)


IN_PLACE: Final = _over_holes(BLOCKS_IN_PLACE)
OVER_HOLES: Final = {
    BLOCKS_ASIDE: _over_holes(BLOCKS_ASIDE),
    BLOCKS_IN_PLACE: IN_PLACE,
    BLOCKS_DEVICE: _over_holes(DEVICE_VERIFIED, "disk"),
    CANCELLED_IN_PLACE: _over_holes(CANCELLED_IN_PLACE),
}

# All that puts something into the callers' folder; a block at a time, so that it fails between two blocks, too.
INTO_DATA: Final = [OVER_HOLES.get(each, each) for each in SCENARIOS if each is not EXTERNAL]

PROOFS: Final = (
    *(
        Proof(
            scenario.name,
            f"a full filesystem for {what}",
            partial(fitting, ground, step, scenario),
            f"every {step >> 10} KiB of room",
        )
        for what, ground, step, scenarios in (
            ("the data", data_on_it, BLOCK, INTO_DATA),
            ("the state", state_on_it, 2 * BLOCK, SCENARIOS),
        )
        for scenario in scenarios
    ),
    *(
        Proof(scenario.name, "killed, and started on a full filesystem", partial(restarted, scenario))
        for scenario in SCENARIOS
    ),
)
