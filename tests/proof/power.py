"""The power is cut while the daemon works, at every moment that differs from the one before.

A cut loses what was not synced (``disks``), so what it leaves changes only when something gets to the disk, and
what it must not break only when something is answered. Before each system call by which the daemon changes the
world (``gate``) it is seen whether either has changed since the last one: that is the next moment. The moments of
a run are kept, and then, for each, the disks are what they were, and a daemon starts on them and recovers. When
it has said how all tasks ended, the power is cut once more: what it said then has to be true on the disks as well.

Three layouts for each filesystem: state and data together on one disk, where a sync of one brings much of the
other along; each on its own, where nothing comes along; and each on its own with the data written out at once,
so that everything in it is ahead of the journal.

sync_file_range(2) is refused as by a filesystem that has it not: it promises nothing (see ``image.kernel``), but
would hide that the sync which does promise is missing.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

import attrs

from taskd import client
from taskd.model import JSON
from tests.cases import Photo
from tests.proof import EVERY, Outcome, Proof, Sample, Verdict
from tests.proof.disks import FILESYSTEMS, Disk, Filesystem, copied, disks
from tests.proof.gate import Call, Gated, Kill
from tests.proof.scenarios import (
    BLOCK,
    BLOCKS,
    BLOCKS_IN_PLACE,
    COPY_NEW,
    SCENARIOS,
    START,
    Act,
    Place,
    Said,
    Scenario,
    judge,
    owed,
    past,
)
from tests.proof.syscalls import OF_EACH_KIND, kinds


@attrs.frozen
class Layout:
    """On which disks it is; ``ahead``: what is written to the data gets to its disk at once."""

    name: str
    disks: tuple[str, ...] = ("data", "state")
    ahead: bool = False


TOGETHER: Final = Layout("together", ("both",))
APART: Final = Layout("apart")
AHEAD: Final = Layout("apart, data ahead", ahead=True)

LAYOUTS: Final = (TOGETHER, APART, AHEAD)


@attrs.frozen
class Moment:
    """What a power cut leaves, and what had been answered by then; ``call`` was the next to be made."""

    call: str
    said: Said
    images: Sequence[Path]


def _copy(said: Said) -> Said:
    # First what is known for longest: it may be added to meanwhile, in that order.
    return attrs.evolve(
        said,
        destroyed=set(said.destroyed),
        ended=dict(said.ended),
        cancelled=set(said.cancelled),
        doomed=set(said.doomed),
        started=dict(said.started),
    )


@attrs.define(eq=False)
class World:
    """A scenario on its disks, and the moments that were seen of it."""

    scenario: Scenario
    layout: Layout
    disks: Sequence[Disk]
    folder: Path
    before: Photo = attrs.field(factory=dict)
    kept: int = 0

    @property
    def place(self) -> Place:
        return Place(self.disks[0].folder / "data", self.disks[-1].folder / "state")

    @contextmanager
    def powered(self) -> Iterator[None]:
        """The disks are there, and what the scenario needs beside them."""
        with ExitStack() as stack:
            for disk in self.disks:
                stack.enter_context(disk.mounted())
            if self.place.data.exists():
                stack.enter_context(self.scenario.attached(self.place.data))
            yield

    def prepare(self) -> None:
        """What there is before; all of it is on the disks."""
        with self.powered():
            self.place.data.mkdir()
            self.scenario.prepare(self.place.data)
            self.before = self.place.photo()

    def restore(self, moment: Moment) -> None:
        """The disks are what they were at that moment; they are not mounted."""
        for disk, image in zip(self.disks, moment.images, strict=True):
            copied(image, disk.image)

    def get_ahead(self) -> None:
        """What is written to the data is on its disk."""
        device = self.place.data / "device"
        if device.exists():
            fd = os.open(device, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        self.disks[0].sync()

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        """The images that are kept meanwhile are not needed afterwards."""
        kept = self.kept
        try:
            yield
        finally:
            for n in range(kept, self.kept):
                for image in self.folder.glob(f"{n + 1}.*"):
                    image.unlink()

    def keep(self) -> Sequence[Path]:
        """The images as they are."""
        self.kept += 1
        images = [self.folder / f"{self.kept}.{n}" for n, _ in enumerate(self.disks)]
        for disk, image in zip(self.disks, images, strict=True):
            copied(disk.image, image)
        return images


@attrs.define(eq=False)
class Watch:
    """Sees the moments of one daemon: the fate of its calls is to be looked at. Where only what it leaves at last
    is wanted, none is kept at a call.
    """

    world: World
    said: Said
    only_last: bool = False
    moments: list[Moment] = attrs.field(factory=list)
    error: Exception | None = None
    _written: Sequence[int] = ()
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def fate(self, call: Call) -> int | Kill | None:
        try:
            if self.only_last:
                self.get_ahead()
            else:
                self.look(str(call))
        except Exception as error:
            self.error = error
            return Kill()
        return errno.ENOSYS if call.name == "sync_file_range" else None

    def look(self, call: str) -> None:
        """Keep the moment, if it differs from the last one."""
        with self._lock:
            self._look(call)

    def get_ahead(self) -> None:
        """Where the layout says so, what is written to the data is on its disk before the call."""
        if self.world.layout.ahead:
            self.world.get_ahead()

    def _look(self, call: str) -> None:
        self.get_ahead()
        # First what was said: no answer gets out until this has returned.
        said, written = _copy(self.said), [disk.written for disk in self.world.disks]
        last = self.moments[-1] if self.moments else None
        if last is not None and written == self._written:
            if said != last.said:
                self.moments.append(Moment(call, said, last.images))
        else:
            self.moments.append(Moment(call, said, self.world.keep()))
        self._written = written


@contextmanager
def _daemon(world: World, watch: Watch, *, armed: bool = True) -> Iterator[Gated]:
    """On disks that are mounted; nothing of it is alive when they are to be unmounted."""
    gated = Gated(world.folder, world.place, fate=watch.fate, armed=armed)
    gated.start()
    try:
        yield gated
    finally:
        gated.close()
        gated.survivors()
        if watch.error is not None:
            raise watch.error


def undisturbed(world: World) -> Sequence[Moment]:
    """The scenario runs to its end: the moments of it, from its first call on; those of the start have a scenario
    of their own.
    """
    watch = Watch(world, Said())
    with world.powered(), _daemon(world, watch, armed=world.scenario is START) as gated, gated.connect() as daemon:
        daemon.ids()
        gated.arm()
        world.scenario.act(daemon, world.place, watch.said)
        watch.look("all is done")
    return watch.moments


@attrs.frozen
class Recovery:
    """How it was judged, the moments of it, and what kinds of calls it made."""

    outcome: Outcome
    moments: Sequence[Moment]
    kinds: tuple[str, ...] = ()


def recovered(world: World, moment: Moment, *, only_last: bool = False) -> Recovery:
    """The power comes back after a cut at that moment, a daemon starts, recovers, and is judged. The last moment
    is when all has been said; the others may not be wanted.
    """
    world.restore(moment)
    watch, calls = Watch(world, _copy(moment.said), only_last), list[Call]()
    try:
        with world.powered():
            links = {name: each for name, each in world.place.photo().items() if each[0] == "link"}
            with _daemon(world, watch) as gated, gated.connect() as daemon:
                calls = gated.calls
                outcome = judge(world.scenario, world.place, {**world.before, **links}, daemon, watch.said)
                for task in daemon.list():
                    watch.said.told(task)
                watch.look("all is said")
            if debts := owed(world.place):
                outcome = Outcome(Verdict.WRONG, what="; ".join([outcome.what, *debts]))
    except Exception as error:
        outcome = Outcome(Verdict.WRONG, what=repr(error))
    return Recovery(outcome, watch.moments, kinds(calls))


def cut(world: World, *moments: Moment) -> Outcome:
    """Cut the power at the last of these moments, each of which is one of the recovery from the one before; and
    again when that recovery has told how it ended.
    """
    first = recovered(world, moments[-1], only_last=True)
    outcome, faults = first.outcome, len(moments)
    if outcome.verdict is not Verdict.WRONG:
        faults += 1
        again = recovered(world, first.moments[-1], only_last=True).outcome
        if again.verdict is not outcome.verdict:
            what = (
                f"{outcome.verdict.value} when told, and after one more cut: {again.what or again.verdict.value}"
            )
            outcome = Outcome(Verdict.WRONG, what=what)
    if outcome.what:
        when = ", and before ".join(moment.call for moment in moments)
        where = f"{world.disks[0].filesystem}, {world.layout.name}, before {when}"
        outcome = attrs.evolve(outcome, what=f"{where}: {outcome.what}")
    return attrs.evolve(outcome, faults=faults)


@contextmanager
def worlds(scenario: Scenario, filesystem: Filesystem, layout: Layout) -> Iterator[World]:
    """New disks, on which the scenario is prepared."""
    with (
        disks(filesystem, *layout.disks) as found,
        tempfile.TemporaryDirectory(dir=found[0].image.parent) as folder,
    ):
        world = World(scenario, layout, found, Path(folder))
        world.prepare()
        yield world


def once(scenario: Scenario, filesystem: Filesystem, sample: Sample) -> Iterator[Outcome]:
    """At each moment, in each layout."""
    n = count(1)
    for layout in LAYOUTS:
        with worlds(scenario, filesystem, layout) as world:
            for moment in undisturbed(world):
                if sample.takes(next(n)):
                    with world.forgetting():
                        yield cut(world, moment)


def twice(scenario: Scenario, filesystem: Filesystem, sample: Sample) -> Iterator[Outcome]:
    """At each moment, and at each moment of the recovery from that. Of all recoveries that make the same calls one
    is taken. A sample takes as many of either.
    """
    n, m = count(1), count(1)
    first, second = sample.pair
    for layout in LAYOUTS:
        with worlds(scenario, filesystem, layout) as world:
            seen: set[tuple[str, ...]] = set()
            for moment in undisturbed(world):
                if not first.takes(next(n)):
                    continue
                with world.forgetting():
                    recovery = recovered(world, moment)
                    if recovery.kinds in seen:
                        continue
                    seen.add(recovery.kinds)
                    for again in recovery.moments:
                        if second.takes(next(m)):
                            with world.forgetting():
                                yield cut(world, moment, again)


def _cancelled_late(last: float, **params: JSON) -> Act:
    """A copy that is cancelled when all of it is synced, and only its last pass, the verification, goes on:
    from that share of its progress on.
    """

    def act(daemon: client.Daemon, place: Place, said: Said) -> None:
        where: dict[str, JSON] = {"source": str(place.data / "source"), "target": str(place.data / "target")}
        id = said.start(daemon, "copy", {**where, **params, "verify": True, "rate_limit": 2 * BLOCK})
        past(daemon, id, last)
        said.cancel(daemon, id)
        said.end(daemon, id)

    return act


_BLOCKS: Final[JSON] = {"blocksize": BLOCK, "ranges": [list(pair) for pair in BLOCKS]}

NEW_CANCELLED: Final = attrs.evolve(
    COPY_NEW, name="copy, new file, cancelled late", act=_cancelled_late(1 / 2), endless=True
)
IN_PLACE_CANCELLED: Final = attrs.evolve(
    BLOCKS_IN_PLACE,
    name="blocks in place, cancelled late",
    act=_cancelled_late(2 / 3, overwrite=True, blocks=_BLOCKS),
    endless=True,
)


def _proofs(
    injected: str, run: Callable[[Scenario, Filesystem, Sample], Iterator[Outcome]], points: str
) -> tuple[Proof, ...]:
    return tuple(
        Proof(scenario.name, f"{injected}, {filesystem}", partial(run, scenario, filesystem), points)
        for scenario in (START, *SCENARIOS, NEW_CANCELLED, IN_PLACE_CANCELLED)
        for filesystem in FILESYSTEMS
    )


ONCE: Final = _proofs("power cut", once, EVERY)
TWICE: Final = _proofs("power cut, and again in its recovery", twice, OF_EACH_KIND)
PROOFS: Final = (*ONCE, *TWICE)
