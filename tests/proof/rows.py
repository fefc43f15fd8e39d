"""The proofs, run in processes side by side, and their outcomes counted."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import import_module
from multiprocessing import get_context
from typing import Final
from zlib import crc32

import attrs

from taskd.operations.launch import PR_SET_PDEATHSIG
from tests.proof import Proof, Sample, Verdict

# Each has PROOFS.
MODULES: Final = ("syscalls", "faults", "full", "power", "syncs", "mutants", "model", "histories", "fuzz", "age")

# What takes longest, found in a proof's name: hours, one hour, pairs of points that wait for a fault to go away,
# pairs.
LONGEST: Final = ("mutant", "an hour", "killed, then", "again")


@attrs.define
class Row:
    """The outcomes of a proof, counted."""

    proof: Proof
    faults: int = 0
    verdicts: Counter[Verdict] = attrs.field(factory=Counter)

    def cells(self) -> tuple[str, ...]:
        injected = f"{self.proof.injected} ({self.faults:,})"
        counts = (self.verdicts.total(), *(self.verdicts[verdict] for verdict in Verdict))
        return self.proof.scenario, injected, *(f"{count:,}" for count in counts)


def proofs(only: str = "") -> list[Proof]:
    """All that the modules have, in their order."""
    every = [proof for name in MODULES for proof in import_module(f"tests.proof.{name}").PROOFS]
    return [proof for proof in every if re.search(only, str(proof))]


def count(proof: Proof, sample: Sample) -> Row:
    """Run it; what is wrong is said as it comes, and so is why it ended where it cannot go on."""
    row, began = Row(proof), time.monotonic()
    try:
        for outcome in proof.run(sample):
            row.verdicts[outcome.verdict] += 1
            row.faults += outcome.faults
            if outcome.verdict is Verdict.WRONG:
                print(f"WRONG: {proof}: {outcome.what}", file=sys.stderr, flush=True)
    except Exception as error:
        row.verdicts[Verdict.WRONG] += 1
        print(f"WRONG: {proof} ended early: {error!r}", file=sys.stderr, flush=True)
    print(f"{proof}: {row.verdicts.total()} runs in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return row


def counts(chosen: Iterable[Proof], sample: Sample, jobs: int) -> Iterator[Row]:
    """The rows of all, each as soon as it is there; so many run at once."""
    named = {str(proof): proof for proof in chosen}
    # A proof goes by its name, for its functions cannot be sent; a fork would share the nursery of our daemons.
    with ProcessPoolExecutor(jobs, get_context("spawn"), _end_with_us) as pool:
        try:
            running = {pool.submit(_counted, name, sample): name for name in sorted(named, key=_turn)}
            for done in as_completed(running):
                yield Row(named[running[done]], *done.result())
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_us() -> None:
    """Where who asked for the rows has died, whoever runs one is interrupted, and cleans up."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM))


def _counted(name: str, sample: Sample) -> tuple[int, Counter[Verdict]]:
    (proof,) = (each for each in proofs() if str(each) == name)
    try:
        row = count(proof, sample)
    except KeyboardInterrupt:
        os._exit(1)  # or it would go on with the next
    return row.faults, row.verdicts


def _turn(name: str) -> tuple[int, int]:
    """First what takes longest; of the others, those that work among those that wait."""
    rank = next((n for n, each in enumerate(LONGEST) if each in name), len(LONGEST))
    return rank, crc32(name.encode())
