"""A call of the daemon is refused by the kernel: once, or from then on until somebody mends it.

The daemon lives on and answers: the task is whole, or as before, and says why in a word that is not "internal";
what it could not undo it says, and undoes it when asked again; and when the fault has gone, the same is done.
Refused are the daemon's own calls, of those that can fail so; what becomes of a program whose calls fail is
the program's.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from os.path import basename
from typing import Final

import attrs

from taskd import client
from taskd.errors import NoDaemon, Refused
from tests.proof import EVERY, Outcome, Proof, Sample, Verdict
from tests.proof.gate import Call, Counted, Fate, Gated, fail_at, fail_from, kill_at
from tests.proof.gated import DESCRIPTORS
from tests.proof.scenarios import SCENARIOS, START, Said, Scenario, judge
from tests.proof.stage import Stage, perform
from tests.proof.syscalls import OF_EACH_KIND, TOO_MANY, interruptions

_WRITES: Final = frozenset({"write", "writev", "pwrite64", "copy_file_range", "sendfile", "fallocate", "ioctl"})
_SYNCS: Final = frozenset({"fsync", "fdatasync", "sync_file_range"})
_NAMES: Final = frozenset({"openat", "mkdir", "mkdirat", "link", "linkat", "rename", "renameat", "renameat2"})
_MORE: Final = frozenset({"ftruncate", "unlink", "unlinkat", "fchmod", "fchown"})

# The calls that may fail with it, by their man pages.
CALLS: Final[Mapping[int, frozenset[str]]] = {
    errno.EIO: _WRITES | _SYNCS | _NAMES | _MORE,
    errno.ENOSPC: _WRITES | _SYNCS | _NAMES,
    errno.EDQUOT: _WRITES | _SYNCS | _NAMES,
    errno.EMFILE: frozenset({"open", "openat", *DESCRIPTORS}),
    errno.EAGAIN: frozenset({"clone", "clone3", "fork", "vfork"}),
}

# The last that every start opens, before it recovers.
OPENED: Final = "state/spare"

# Seconds that a lasting fault lasts: the undo is tried several times in that.
LASTS: Final = 2.5


@attrs.frozen
class Fails:
    """The calls that may fail with an errno; ``once`` where it is one call, not that call from then on."""

    number: int
    once: bool = True

    def __str__(self) -> str:
        name = errno.errorcode[self.number]
        return f"{name} from a system call" if self.once else f"{name} from a system call, until mended"

    def counted(self) -> Counted:
        """Those of files, for a socket has errors of its own. Lasting, the first of a row stands for all."""
        last: list[tuple[str, str]] = []

        def counted(call: Call) -> bool:
            if not call.own or call.name not in CALLS[self.number] or call.file in ("socket", "pipe"):
                return False
            before, last[:] = last[:], [(call.name, call.file)]
            return self.once or before != last

        return counted

    def fate(self, n: int) -> Fate:
        return fail_at(n, self.number) if self.once else fail_from(n, self.number)

    @property
    def opens(self) -> bool:
        """They are among those that only make a descriptor."""
        return self.number == errno.EMFILE

    @property
    def codes(self) -> frozenset[str]:
        """What a task may fail with."""
        return frozenset(
            {errno.errorcode[self.number], "STORE_UNAVAILABLE", *(() if self.once else ("UNDO_FAILED",))}
        )


def failing(fails: Fails, scenario: Scenario, sample: Sample) -> Iterator[Outcome]:
    """The n-th call of the scenario fails, for every n; the daemon has to live with it."""
    for n in filter(sample.takes, range(1, TOO_MANY)):
        gates: list[Gated] = []
        yield perform(scenario, partial(_failing_once, fails, n, gates))
        if gates and not gates[0].met:
            return


def _failing_once(fails: Fails, n: int, gates: list[Gated], stage: Stage) -> Outcome:
    gated = stage.start(fails.fate(n), counted=fails.counted(), opens=fails.opens)
    with gated.connect() as daemon:
        daemon.ids()
        gated.arm()
        # Until then the scenario waits for an end that does not come before.
        mended = threading.Timer(LASTS, gated.disarm)
        mended.start()
        with suppress(NoDaemon, Refused):
            stage.scenario.act(daemon, stage.place, stage.said)
        mended.cancel()
        gated.disarm()
    gates.append(gated)
    outcome = lived(fails.codes, gated, stage)
    # What is done when a lasting fault is mended is not counted.
    if fails.once and outcome.verdict is Verdict.WHOLE and (lost := _never_synced(gated)):
        return Outcome(Verdict.WRONG, what=f"completed, but never synced: {lost}")
    return outcome


def lived(codes: frozenset[str], gated: Gated, stage: Stage) -> Outcome:
    """How all ended, as the daemon says that met the fault; and that it can do the same again."""
    with gated.connect() as daemon:
        outcome = _judged(codes, daemon, stage)
        if outcome.verdict is Verdict.AS_BEFORE:
            again = Said("again")
            stage.scenario.act(daemon, stage.place, again)
            if stage.place.photo() != stage.scenario.ends(stage.before):
                outcome = Outcome(Verdict.WRONG, what="done again, without a fault, it is not whole")
    gated.end()
    return stage.outcome(outcome)


def _judged(codes: frozenset[str], daemon: client.Daemon, stage: Stage) -> Outcome:
    return judge(stage.scenario, stage.place, stage.before, daemon, stage.said, codes=codes, owes=True)


def _never_synced(gated: Gated) -> list[Call]:
    """Syncs that failed, of what was not synced after that; not of a part that came to be nothing."""
    synced = {call.file: call.n for call in gated.calls if call.name in _SYNCS and call not in gated.met}
    renamed = {basename(call.file) for call in gated.calls if call.name.startswith("rename")}
    failed = [call for call in gated.met if call.name in _SYNCS and synced.get(call.file, 0) < call.n]
    return [call for call in failed if not call.file.endswith(".part") or basename(call.file) in renamed]


def failing_start(fails: Fails, scenario: Scenario, sample: Sample) -> Iterator[Outcome]:
    """The n-th call of a start fails, for every n, on a state folder that is not there yet."""
    return _failing_starts(fails, scenario, sample, None)


def failing_recovery(fails: Fails, scenario: Scenario, sample: Sample) -> Iterator[Outcome]:
    """The scenario is killed at its n-th call, and the m-th call of the recovery fails, for every m."""
    first, then = sample.pair
    for n in interruptions(scenario, first):
        yield from _failing_starts(fails, scenario, then, n)


def _failing_starts(fails: Fails, scenario: Scenario, sample: Sample, killed: int | None) -> Iterator[Outcome]:
    for m in filter(sample.takes, range(1, TOO_MANY)):
        gates: list[Gated] = []
        yield perform(scenario, partial(_failing_start, fails, killed, m, gates))
        if gates and not gates[0].met:
            return


def _failing_start(fails: Fails, killed: int | None, m: int, gates: list[Gated], stage: Stage) -> Outcome:
    if killed is not None:
        stage.play(kill_at(killed))
    counted = fails.counted()
    if killed is not None and fails.opens:
        counted = _of_recovery(counted)
    gated = stage.start(fails.fate(m), armed=True, counted=counted, opens=fails.opens)
    gates.append(gated)
    try:
        outcome = _recovered(fails, gated, stage)
    except NoDaemon:
        if not gated.ends():
            return Outcome(Verdict.WRONG, what="it answers nobody, and does not end")
        if "Traceback" in gated.log or "\ntaskd: " not in f"\n{gated.log}":
            return Outcome(Verdict.WRONG, what="it ended without a word of its own")
        gated = stage.start()
        outcome = _recovered(fails, gated, stage)
    gated.end()
    return stage.outcome(outcome)


def _of_recovery(counted: Counted) -> Counted:
    """Of those that open, the ones from its beginning on; what every start opens is met in a start."""
    begun = False

    def its_own(call: Call) -> bool:
        nonlocal begun
        begun = begun or call.file == OPENED
        return begun and counted(call)

    return its_own


def _recovered(fails: Fails, gated: Gated, stage: Stage) -> Outcome:
    """One that does not start may say so, and one that cannot write, or serve a connection, may say so once."""
    codes = fails.codes | {"INTERRUPTED"}
    with suppress(Refused), gated.connect() as daemon:
        return _judged(codes, daemon, stage)
    with gated.connect() as daemon:
        return _judged(codes, daemon, stage)


ONCE: Final = tuple(map(Fails, CALLS))
LASTING: Final = Fails(errno.EIO, once=False)

PROOFS: Final = (
    *(Proof(START.name, str(fails), partial(failing_start, fails, START)) for fails in ONCE),
    *(
        Proof(
            scenario.name,
            str(fails),
            partial(failing, fails, scenario),
            EVERY if fails.once else "every one that does not repeat the one before",
        )
        for fails in (*ONCE, LASTING)
        for scenario in SCENARIOS
    ),
    *(
        Proof(scenario.name, f"killed, then {fails}", partial(failing_recovery, fails, scenario), OF_EACH_KIND)
        for fails in map(Fails, (errno.EIO, errno.ENOSPC, errno.EMFILE))
        for scenario in SCENARIOS
    ),
)
