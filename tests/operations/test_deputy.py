"""``copy`` is no confused deputy: a hostile owner of the folders exchanges what is in them, at every step.

For n = 1, 2, 3 … until the copy gets through, one thing is exchanged before step n, with the rights of whoever
owns it: the target's folder, the part file, the source, the target, for a link to what is out of bounds. In bounds
is, for a user, what the kernel grants to the user; for who comes by a token, what is beneath the roots, whatever
the user that they belong to could do elsewhere. Afterwards nothing out of bounds is read or changed, what the
task says is true, and what it made and did not complete is gone.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import pytest
import trio
from trio.testing import MockClock

from taskd.model import JSON, Caller, Task
from taskd.operations import copy
from taskd.runner.credentials import wearing, worn
from taskd.service import Service
from taskd.states import State
from taskd.store.memory import MemoryStore
from tests.bench import ROOT, by_token, running
from tests.cases import empty
from tests.operations.conftest import USER, as_user, given, needs_root
from tests.test_all_or_nothing import TOO_MANY, at_step

pytestmark = needs_root

UID, CHUNK = 60001, 4096
ALL = worn()

# The pauses before something is tried again pass in no time. (An autojump clock would look all the time whether
# they may, while threads work.)
FAST = 1e6
TOKEN = by_token("root")  # which nobody takes for the root of this machine


@attrs.frozen
class Bounds:
    """Who copies, with the rights of ``UID``; ``victim`` is the owner of what is out of bounds."""

    caller: Caller
    victim: int

    def __str__(self) -> str:
        return "a user" if self.caller is USER else "a token"


BOUNDS = (Bounds(USER, 0), Bounds(TOKEN, UID))


@pytest.fixture
def commons() -> Iterator[Path]:
    """In memory where there is room for it, for nothing here is about disks."""
    memory = "/dev/shm"
    with TemporaryDirectory(prefix="taskd-", dir=memory if os.path.isdir(memory) else None) as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@attrs.define(eq=False)
class Yard:
    """``mine`` is in bounds, with a folder for the target in it; ``theirs`` is not."""

    root: Path
    bounds: Bounds
    way: str
    mine: Path = attrs.field(init=False)
    theirs: Path = attrs.field(init=False)
    store: MemoryStore = attrs.field(factory=MemoryStore)

    def __attrs_post_init__(self) -> None:
        empty(self.root)
        empty(self.root / "workspace")
        self.mine = given(empty(self.root / "mine"), UID)
        given(empty(self.mine / "folder"), UID)
        self._file(self.source, 1, UID)
        if self.way != "new":
            self._file(self.target, 100, UID)
        if self.way == "in place":
            os.link(self.target, self.mine / "other")
        self.theirs = given(empty(self.root / "theirs"), self.bounds.victim)
        self.theirs.chmod(0o755)
        for name in ("source", "target"):
            self._file(self.theirs / name, 200, self.bounds.victim)

    @staticmethod
    def _file(path: Path, seed: int, uid: int) -> None:
        path.write_bytes(pattern(seed))
        path.chmod(0o600)
        given(path, uid)

    @property
    def source(self) -> Path:
        return self.mine / "source"

    @property
    def folder(self) -> Path:
        return self.mine / "folder"

    @property
    def target(self) -> Path:
        return self.folder / "target"

    @property
    def params(self) -> dict[str, JSON]:
        blocks = {"blocksize": CHUNK, "ranges": [[0, 1], [2, 1]]}
        return {
            "source": str(self.source),
            "target": str(self.target),
            "overwrite": self.way != "new",
            "blocks": blocks if self.way in ("aside", "in place") else None,
            "verify": True,
        }

    @asynccontextmanager
    async def service(self) -> AsyncIterator[Service]:
        table, workspace = {"copy": copy.OPERATION}, str(self.root / "workspace")
        async with running(self.store, table, workspace, roots=(str(self.mine),)) as service:
            yield service

    async def start(self, service: Service) -> str:
        return (await service.start(self.bounds.caller, "copy", self.params, request_id="one")).id

    def photograph(self) -> dict[str, object]:
        """All that is out of bounds: what, whose, and what is in it."""
        return {
            path.name: (found.st_ino, found.st_mode, found.st_uid, found.st_gid, path.read_bytes())
            for path in self.theirs.iterdir()
            if (found := path.lstat())
        }

    def files(self) -> dict[Path, bytes]:
        """What is in bounds, but for links to what is not."""
        foreign = {path.stat().st_ino for path in self.theirs.iterdir()}
        return {
            path: path.read_bytes()
            for path in self.mine.rglob("*")
            if not path.is_symlink() and path.is_file() and path.stat().st_ino not in foreign
        }


# Each is done with the rights of whoever owns what is exchanged, and puts away what was there.


def the_folder(yard: Yard) -> None:
    yard.folder.rename(yard.mine / "moved")
    yard.folder.symlink_to(yard.theirs)


def another_folder(yard: Yard) -> None:
    """In bounds as well: what is begun in the one is not gone on with in the other."""
    yard.folder.rename(yard.mine / "moved")
    yard.folder.mkdir()


def exchange(path: Path, other: Path, link: Callable[[Path, Path], None]) -> None:
    if os.path.lexists(path):
        path.rename(path.parent.parent / f"old {path.name}")
    link(path, other)


def symlink(path: Path, other: Path) -> None:
    path.symlink_to(other)


def another(path: Path, _: Path) -> None:
    path.write_bytes(OTHER)


def hard_link(path: Path, other: Path) -> None:
    """As whoever owns no more than the folder can where fs.protected_hardlinks is 0."""
    with wearing(ALL):
        os.link(other, path)


def the_part(yard: Yard) -> None:
    for part in yard.folder.glob(".taskd-*"):
        exchange(part, yard.theirs / "target", symlink)


ATTACKS: dict[str, Callable[[Yard], None]] = {
    "the folder": the_folder,
    "the folder by another": another_folder,
    "the part": the_part,
    "the source": lambda yard: exchange(yard.source, yard.theirs / "source", symlink),
    "the source by a hard link": lambda yard: exchange(yard.source, yard.theirs / "source", hard_link),
    "the target": lambda yard: exchange(yard.target, yard.theirs / "target", symlink),
    "the target by another": lambda yard: exchange(yard.target, yard.theirs / "target", another),
    "the target by a hard link": lambda yard: exchange(yard.target, yard.theirs / "target", hard_link),
}


@attrs.define(eq=False)
class Strike:
    """An attack on a yard, when it is called; ``photo`` is what was out of bounds then."""

    yard: Yard
    attack: str
    photo: dict[str, object] = attrs.field(factory=dict)

    def __call__(self) -> None:
        for part in self.yard.folder.glob(".taskd-*"):
            # Under the name that an undo looks for, there is an empty file in the other folder too.
            decoy = self.yard.theirs / part.name
            decoy.touch(mode=0o600)
            given(decoy, self.yard.bounds.victim)
        self.photo = self.yard.photograph()
        with as_user(UID), suppress(OSError):
            ATTACKS[self.attack](self.yard)

    def hold(self, task: Task) -> None:
        """The law."""
        yard = self.yard
        assert yard.photograph() == self.photo
        made = {path: content for path, content in yard.files().items() if not path.name.startswith("old .taskd")}
        contents = [content for path, content in made.items() if path.name in ("target", "old target")]
        assert STOLEN[:CHUNK] not in b"".join(made.values())
        done = [content for content in contents if content in outcomes(yard.way)]
        if task.state is State.COMPLETED:
            assert done
        elif self.attack == "the target by another":
            assert OTHER in contents
        if task.journal:  # it is told that something is left to be done, and what
            assert task.residue
            assert task.state is State.COMMITTED or (task.error and task.error.code == "UNDO_FAILED")
            return
        if task.state is not State.COMPLETED:
            # What was published and not committed, and was put away meanwhile, its owner may keep.
            assert not done or (yard.way == "new" and content(yard.target) != NEW)
            assert yard.way == "new" or OLD in contents
        assert [path for path in made if path.name.startswith(".taskd")] == []
        assert os.listdir(yard.root / "workspace") == []


def content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def pattern(seed: int) -> bytes:
    return b"".join(bytes([seed + i]) * CHUNK for i in range(4))


NEW, OLD, OTHER, STOLEN = (pattern(seed) for seed in (1, 100, 50, 200))


def outcomes(way: str) -> list[bytes]:
    """What the target may hold when the copy is done: blocks go over what was there when it looked."""
    if way in ("new", "over"):
        return [NEW]
    return [
        NEW[:CHUNK] + old[CHUNK : 2 * CHUNK] + NEW[2 * CHUNK : 3 * CHUNK] + old[3 * CHUNK :]
        for old in (OLD, OTHER, bytes(4 * CHUNK))
    ]


async def settled(service: Service, id: str) -> Task:
    """The task, when it has ended or tells that it cannot."""
    live = service.registry.get(id)
    if live is None:
        return await service.get(ROOT, id)
    while not live.task.state.ended and not (live.task.state is State.COMMITTED and live.task.residue):
        await live.changed()
    return live.task


WAYS = ("new", "over", "aside", "in place")

# Only a file that has several names is written in place, and with a token nobody gets at one.
PAIRS = [(bounds, way) for bounds in BOUNDS for way in WAYS if not (bounds.caller is TOKEN and way == "in place")]


@pytest.fixture(params=PAIRS, ids=lambda pair: f"{pair[0]} {pair[1]}")
def bounds_and_way(request: pytest.FixtureRequest) -> tuple[Bounds, str]:
    bounds, way = request.param
    return bounds, str(way)


@pytest.fixture(params=ATTACKS)
def attack(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_whatever_is_exchanged_at_any_step_of_a_copy(
    bounds_and_way: tuple[Bounds, str], attack: str, commons: Path, mock_clock: MockClock
) -> None:
    mock_clock.rate = FAST
    ends = set()
    for n in count(1):
        assert n < TOO_MANY
        yard = Yard(commons / "yard", *bounds_and_way)
        strike = Strike(yard, attack)
        async with yard.service() as service, at_step(n, strike) as steps:
            task = await settled(service, await yard.start(service))
        if steps.count < n:
            break
        strike.hold(task)
        ends.add(task.state)
    assert task.state is State.COMPLETED, task.error
    assert n > 20


async def test_whatever_is_exchanged_while_the_daemon_is_away(
    bounds_and_way: tuple[Bounds, str], attack: str, commons: Path, mock_clock: MockClock
) -> None:
    """Stopped before any step, and started again: undo, finish and a new attempt keep to the bounds too.

    Every second step is enough: those between begin or end a thread's work, as their neighbours do.
    """
    mock_clock.rate = FAST
    for n in count(1, step=2):
        assert n < TOO_MANY
        yard = Yard(commons / "yard", *bounds_and_way)
        strike, stop = Strike(yard, attack), trio.CancelScope()
        with stop:
            async with at_step(n, stop.cancel) as steps, yard.service() as service:
                id = await yard.start(service)
                await settled(service, id)
        if steps.count < n:
            break
        strike()
        async with yard.service() as service:
            (live,) = (await service.store.ids(owner=None, operation=None),)
            task = await settled(service, live[0])
        strike.hold(task)
    assert n > 20
