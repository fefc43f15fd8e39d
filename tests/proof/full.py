"""A small filesystem that is really full, but for some blocks more each time, until the scenario fits into them.

The callers' folder is on it, or the daemon's. What does not fit is refused, or fails and is undone; when there is
room again, all that waited goes on, and the same can be done. And one that was killed starts where there is no
room for its state.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from taskd.errors import NoDaemon, Refused
from tests.operations.conftest import mounted, output
from tests.proof import Outcome, Proof, Sample
from tests.proof.faults import LASTS, lived
from tests.proof.gate import Gated, kill_at
from tests.proof.scenarios import SCENARIOS, Place, Scenario
from tests.proof.stage import Ground, Stage, perform
from tests.proof.syscalls import TOO_MANY

# Bytes: of the filesystem, and how much more room there is each time.
SMALL: Final = 4 << 20
STEP: Final = 8 << 10

# Seconds in which a recovery meets it.
SOON: Final = 0.5

# A program that meets it says so by its exit status.
CODES: Final = frozenset({"ENOSPC", "STORE_UNAVAILABLE", "UNDO_FAILED", "COMMAND_FAILED"})


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


def fitting(ground: Ground, scenario: Scenario, sample: Sample) -> Iterator[Outcome]:
    """With more and more room, until it fits."""
    for n in filter(sample.takes, range(1, TOO_MANY)):
        fits: list[bool] = []
        yield perform(scenario, partial(_squeezed, (n - 1) * STEP, fits), ground)
        if any(fits):
            return


def _squeezed(room: int, fits: list[bool], stage: Stage) -> Outcome:
    gated = stage.start()
    with gated.connect() as daemon:
        daemon.ids()
        ballast = fill(stage.folder / "small", room)
        mended = threading.Timer(LASTS, ballast.unlink)
        mended.start()
        with suppress(NoDaemon, Refused):
            stage.scenario.act(daemon, stage.place, stage.said)
            fits.append(ballast.exists() and stage.place.photo() == stage.scenario.ends(stage.before))
        mended.cancel()
        mended.join()
        ballast.unlink(missing_ok=True)
    stage.faults += not any(fits)
    return lived(CODES, gated, stage)


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


PROOFS: Final = (
    *(
        Proof(scenario.name, f"a full filesystem for {what}", partial(fitting, ground, scenario))
        for what, ground in (("the data", data_on_it), ("the state", state_on_it))
        for scenario in SCENARIOS
    ),
    *(
        Proof(scenario.name, "killed, and started on a full filesystem", partial(restarted, scenario))
        for scenario in SCENARIOS
    ),
)
