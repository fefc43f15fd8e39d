"""``copy``, killed around any of its system calls: 1, 2, 3 … until it gets through; then recovered.

The sweeps of ``test_all_or_nothing`` crash between two steps of the task. A worker thread makes many system calls
within one step; the power fails between those too.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from taskd.errors import StoreUnavailable
from taskd.model import LogLine, Task
from taskd.operations.image import kernel
from taskd.runner import rights
from taskd.states import State
from taskd.store.memory import MemoryStore
from tests.bench import ended
from tests.cases import CASES, Case, photograph
from tests.operations.conftest import filesystem, image, let_go, loop_device, needs_root, output
from tests.test_all_or_nothing import World, in_another_process, recovers, untouched

# What changes the world, or makes a change durable. A read in between changes nothing.
CALLS = {
    os: (
        "open",
        "unlink",
        "rename",
        "link",
        "ftruncate",
        "fchmod",
        "fchown",
        "fsync",
        "pwrite",
        "copy_file_range",
    ),
    kernel: ("rename_new", "clone_range"),
}

TOO_MANY = 400

# A filesystem's emergency stop: what is not on the disk by now never gets there.
FS_IOC_SHUTDOWN, WITHOUT_FLUSH = 0x8004587D, 2

_open = os.open  # which the tests replace


@attrs.define
class Killer:
    """Ends the process at the n-th of the moments before and after its calls."""

    n: int
    world: World
    moments: int = 0

    def moment(self) -> None:
        self.moments += 1
        if self.moments == self.n:
            with rights.own():  # whatever the thread wears that it is in
                self.world.crash()

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def killed(*args: Any, **kwargs: Any) -> Any:
            self.moment()
            result = call(*args, **kwargs)
            self.moment()
            return result

        return killed

    def put_in_place(self) -> None:
        """For the rest of this process, which is a fork made to die."""
        for module, names in CALLS.items():
            for name in names:
                setattr(module, name, self.around(getattr(module, name)))
        # A slow disk: what is not synced is not written by luck.
        kernel.start_writeback = lambda fd, at, length: None


def killed_at(world: World, n: int, at_the_end: Callable[[], None] | None = None) -> bool:
    """False if it got through; then ``at_the_end`` comes last, where nothing is left to be undone."""

    async def main() -> None:
        async with world.service() as service:
            Killer(n, world).put_in_place()
            await ended(service, await world.start(service))
        world.save()
        if at_the_end is not None:
            at_the_end()

    status = in_another_process(lambda: trio.run(main))
    assert status in (0, 9)
    return status == 9


COPIES = [case for case in CASES if case.name.startswith("copy")]


@pytest.fixture(params=[*COPIES, "copy onto a device"], ids=str)
def case(request: pytest.FixtureRequest, commons: Path) -> Iterator[Case]:
    if isinstance(request.param, Case):
        yield request.param
        return
    if os.geteuid() != 0:
        pytest.skip("a loop device needs root")
    with ExitStack() as devices:

        def prepare(folder: Path) -> dict[str, object]:
            devices.close()
            node = devices.enter_context(loop_device(image(folder / "disk", 1 << 18, seed=2)))
            source = image(folder / "source", 200_000)
            return {"source": str(source), "target": str(node), "overwrite": True}

        yield attrs.evolve(COPIES[0], name=request.param, prepare=prepare)


def test_killed_around_any_system_call_it_is_recovered(case: Case, commons: Path) -> None:
    after, _ = trio.run(untouched, case, "memory", commons / "untouched")
    for n in count(1):
        assert n < TOO_MANY
        world = World(case, "memory", commons / "world")
        if not killed_at(world, n):
            break
        killed_at(world, n // 2)  # and again, in the recovery
        world.hold(recovers(world), after)
    assert n > 24


@attrs.define(eq=False)
class FullStore(MemoryStore):
    """Cannot write from a commit on, which it tells of; nor then, when all that is left is to note the end."""

    committing: Callable[[], None] = lambda: None
    ending: Callable[[], None] = lambda: None
    full: bool = False

    async def write(self, task: Task, *, expect: State, log: Sequence[LogLine] = (), keep: int = 0) -> None:
        if task.state is State.COMMITTED and not self.full:
            self.full = True
            self.committing()
        if self.full and task.state.ended:
            self.ending()
        if self.full:
            raise StoreUnavailable("no space left on device")
        await super().write(task, expect=expect, log=log, keep=keep)


def killed_undoing(world: World, n: int) -> bool:
    """Killed at moment n of an undo that the store cannot note; False if nothing was left but to note its end."""

    def commit() -> None:
        (world.folder / "source").unlink()
        Killer(n, world).put_in_place()

    def end() -> None:
        world.save()
        os._exit(0)

    async def main() -> None:
        async with world.service() as service:
            await ended(service, await world.start(service))

    world.memory = FullStore(committing=commit, ending=end)
    status = in_another_process(lambda: trio.run(main))
    assert status in (0, 9)
    return status == 9


def test_killed_in_an_undo_that_the_store_cannot_note_it_owes_nothing(commons: Path) -> None:
    """All of it is done again, though its pre-image may be gone. Without its source the copy is not."""
    case = next(case for case in COPIES if "in place" in case.name)
    for n in count(1):
        world = World(case, "memory", commons / "world")
        killed = killed_undoing(world, n)
        world.before = {name: photo for name, photo in world.before.items() if name != "source"}
        task = recovers(world)
        assert task.error is not None
        assert task.error.code == "SOURCE_MISSING"
        world.hold(task, world.before)
        if not killed:
            break
    assert n > 10


@attrs.define(eq=False)
class MountedWorld(World):
    """A world on a filesystem of its own; its crash is a power cut, which loses all that was not synced."""

    @property
    def _pickled(self) -> Path:
        """The rows of the store, which had been synced, are kept elsewhere."""
        return self.root.parent.parent / "memory.pickle"

    def cut_power(self) -> None:
        folder = _open(self.root, os.O_RDONLY)
        fcntl.ioctl(folder, FS_IOC_SHUTDOWN, struct.pack("I", WITHOUT_FLUSH))

    def crash(self) -> None:
        self.save()
        self.cut_power()
        os._exit(9)


@attrs.frozen
class Disk:
    """A filesystem that can lose its power."""

    image: Path
    folder: Path

    def world(self, case: Case) -> MountedWorld:
        world = MountedWorld(case, "memory", self.folder / "world")
        world._pickled.unlink(missing_ok=True)
        os.sync()
        return world

    def power_on(self) -> None:
        output("umount", self.folder)
        let_go(self.image)
        output("mount", "-o", "loop", self.image, self.folder)


@pytest.fixture(params=["ext4", "xfs"])
def disk(request: pytest.FixtureRequest, commons: Path) -> Iterator[Disk]:
    with filesystem(request.param, commons) as folder:
        yield Disk(commons / f"{request.param}.img", folder)


@needs_root
@pytest.mark.parametrize("copy", COPIES, ids=str)
def test_after_a_power_cut_before_any_system_call_it_is_recovered(copy: Case, disk: Disk, commons: Path) -> None:
    """Odd moments are those before a call; and when it got through, what was answered stays true."""
    after, _ = trio.run(untouched, copy, "memory", commons / "untouched")
    for n in count(1, step=2):
        assert n < TOO_MANY
        world = disk.world(copy)
        killed = killed_at(world, n, world.cut_power)
        disk.power_on()
        task = recovers(world)
        world.hold(task, after)
        if not killed:
            break
    assert task.state is State.COMPLETED
    assert n > 24


@needs_root
def test_what_was_put_back_stays_so_after_a_power_cut(disk: Disk) -> None:
    """Without its source the copy cannot be done again, so that the undo is what is left to be seen."""
    case = next(case for case in COPIES if "in place" in case.name)
    put_back = 0
    for n in count(1):
        world = disk.world(case)
        killed_at(world, n, world.cut_power)
        disk.power_on()
        if photograph(world.folder) != world.before:
            (world.folder / "source").unlink()
            killed_at(world, TOO_MANY, world.cut_power)
            disk.power_on()
            if recovers(world).state is State.COMPLETED:  # it was committed before it was killed
                break
            world.before = {name: photo for name, photo in world.before.items() if name != "source"}
            assert photograph(world.folder) == world.before
            assert os.listdir(world.workspace) == []
            put_back += 1
    assert put_back > 0
