"""A run: a scenario on a place of its own, played by daemons behind gates, one after the other."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final

import attrs

from taskd.errors import NoDaemon
from tests.cases import Photo
from tests.operations.conftest import filesystem
from tests.proof import Outcome, Verdict
from tests.proof.gate import Counted, Fate, Gated, every, passing
from tests.proof.scenarios import Place, Said, Scenario, judge, owed

# How much of the daemon's log is shown where something is wrong, in characters.
_SHOWN: Final = 3000


@attrs.define(eq=False)
class Stage:
    """``before``: what the callers had. ``said``: what was answered by any of the ``daemons``, oldest first.
    ``faults`` are those that were not met at a gate.
    """

    scenario: Scenario
    folder: Path
    place: Place
    before: Photo
    said: Said = attrs.field(factory=Said)
    daemons: list[Gated] = attrs.field(factory=list)
    faults: int = 0

    def start(
        self, fate: Fate = passing, *, armed: bool = False, counted: Counted = every, opens: bool = False
    ) -> Gated:
        """One more daemon; ``armed``: its calls count from the first."""
        gated = Gated(self.folder, self.place, fate, armed=armed, counted=counted, opens=opens)
        self.daemons.append(gated)
        gated.start()
        return gated

    def play(self, fate: Fate) -> Gated:
        """The scenario, with a daemon whose calls count once it has answered; it is dead afterwards."""
        gated = self.start(fate)
        with suppress(NoDaemon), gated.connect() as daemon:
            daemon.ids()
            gated.arm()
            self.scenario.act(daemon, self.place, self.said)
        gated.end()
        if not (gated.killed or self.said.ended.keys() >= self.said.started.keys() - self.said.doomed):
            raise AssertionError("the daemon died by itself")
        return gated

    def recover(self, fate: Fate = passing) -> tuple[Gated, Outcome | None]:
        """A daemon whose calls count from the first, and how it says that all ended; None if it was killed
        before that. It is dead afterwards.
        """
        gated, outcome = self.start(fate, armed=True), None
        with suppress(NoDaemon), gated.connect() as daemon:
            outcome = judge(self.scenario, self.place, self.before, daemon, self.said)
        gated.end()
        if outcome is None and not gated.killed:
            raise AssertionError("the daemon died by itself")
        return gated, outcome

    def outcome(self, told: Outcome | None) -> Outcome:
        """What was told, and what can be seen when the last daemon is dead."""
        wrong = [told.what if told else "never recovered"] if told is None or told.what else []
        wrong += owed(self.place)
        wrong += ["a process that it started lives on" for each in self.daemons if each.survivors()]
        if wrong or told is None:
            return Outcome(Verdict.WRONG, what="; ".join(wrong))
        return told


# Makes, in an empty folder, the folders that a run takes place in; the daemon's own may be missing.
Ground = Callable[[Path], AbstractContextManager[Place]]


@contextmanager
def plain(folder: Path) -> Iterator[Place]:
    """All on one filesystem, that of temporary files."""
    (folder / "data").mkdir()
    yield Place(folder / "data", folder / "state")


@contextmanager
def sharing(folder: Path) -> Iterator[Place]:
    """The callers' on an XFS, on which a copy shares its blocks with what it is a copy of (FICLONERANGE)."""
    with filesystem("xfs", folder) as disk:
        (disk / "data").mkdir()
        yield Place(disk / "data", folder / "state")


@contextmanager
def stage(scenario: Scenario, ground: Ground = plain) -> Iterator[Stage]:
    """Prepared; nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="taskd-proof-") as name, ground(folder := Path(name)) as place:
        scenario.prepare(place.data)
        with scenario.attached(place.data):
            set_up = Stage(scenario, folder, place, place.photo())
            try:
                yield set_up
            finally:
                for each in set_up.daemons:
                    each.close()


def perform(scenario: Scenario, play: Callable[[Stage], Outcome], ground: Ground = plain) -> Outcome:
    """One run; where something is wrong, with what the daemons did and said at last."""
    with stage(scenario, ground) as set_up:
        try:
            outcome = play(set_up)
        except Exception as error:
            outcome = Outcome(Verdict.WRONG, what=f"{type(error).__name__}: {error}")
        if outcome.what:
            met = ", ".join(f"{each.met[0]}" for each in set_up.daemons if each.met)
            story = f"at {met or 'no call'}\n{set_up.daemons[-1].log[-_SHOWN:] if set_up.daemons else ''}"
            outcome = attrs.evolve(outcome, what=f"{outcome.what}\n{story}")
        return attrs.evolve(outcome, faults=set_up.faults + sum(len(each.met) for each in set_up.daemons))
