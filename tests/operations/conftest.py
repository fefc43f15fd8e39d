"""A bench for one operation: the real service and runner over the store in memory, and a folder to work in.

Where a test stops a copy in its middle, it does so in trio's time: with a rate limit the copy sleeps between its
chunks, the autojump clock passes the time when nobody has anything else to do, and a test that waits for
progress acts before that. Such a test sets no timeout: a worker thread would look like nobody working.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import attrs
import pytest

from taskd.model import JSON, Caller, Task
from taskd.operations import Operation, copy
from taskd.registry import Live
from taskd.runner.credentials import Credentials, wearing
from taskd.service import Service
from taskd.store.memory import MemoryStore
from tests.bench import ROOT, running, user
from tests.process import PATIENCE

OPERATIONS: Mapping[str, Operation] = {"copy": copy.OPERATION}

# Users of whom the tables of this machine know nothing.
USER, OTHER = user("60001", 60001), user("60002", 60002)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts, loop devices and other users' rights need root")


@attrs.frozen(eq=False)
class Bench:
    """A service that runs; ``folder`` is the caller's, ``workspace`` the daemon's."""

    service: Service
    folder: Path
    workspace: Path
    caller: Caller = ROOT

    async def start(self, operation: str, **params: JSON) -> Live:
        """A task that was made, alive.

        Raises:
            Refusal: the operation's check refused it.
        """
        task = await self.service.start(self.caller, operation, params)
        live = self.service.registry.get(task.id)
        assert live is not None
        return live

    async def end(self, live: Live) -> Task:
        """The task when it has ended; nothing of ours may be left but what it owes."""
        task = await self.service.wait(ROOT, live.task.id)
        if not task.journal:
            assert os.listdir(self.workspace) == []
            assert [name for name in os.listdir(self.folder) if name.startswith(".taskd")] == []
        return task

    async def run(self, operation: str, **params: JSON) -> Task:
        return await self.end(await self.start(operation, **params))

    async def cancel(self, live: Live) -> Task:
        await self.service.runner.cancel(live)
        return await self.end(live)


async def moved(live: Live, bytes: int = 1) -> None:
    """Wait until a task has made that much progress."""
    while live.task.progress.done < bytes:
        assert not live.task.state.ended, live.task.error
        await live.changed()


@contextmanager
def as_user(uid: int, *groups: int) -> Iterator[None]:
    """Inside, what this thread does to files it does with the rights of that user."""
    with wearing(Credentials(uid, uid, groups)):
        yield


def given(path: Path, uid: int, gid: int | None = None) -> Path:
    """``path``, which now belongs to that user."""
    os.chown(path, uid, uid if gid is None else gid, follow_symlinks=False)
    return path


@asynccontextmanager
async def at_bench(
    root: Path, store: MemoryStore | None = None, running_tasks: int = 64, caller: Caller = ROOT
) -> AsyncIterator[Bench]:
    """A bench in ``root``; one that is given the ``store`` of another goes on with its tasks."""
    folder, workspace = root / "data", root / "workspace"
    folder.mkdir(exist_ok=True)
    store = store or MemoryStore()
    async with running(store, OPERATIONS, str(workspace), running_tasks=running_tasks) as service:
        yield Bench(service, folder, workspace, caller)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with at_bench(tmp_path) as bench:
        yield bench


def image(path: Path, size: int, seed: int = 1) -> Path:
    """A file of ``size`` bytes in which no two pages are alike."""
    pages = (f"{seed}:{page}".encode().ljust(4096, bytes([seed])) for page in range(-(-size // 4096)))
    path.write_bytes(b"".join(pages)[:size])
    path.chmod(0o640)
    return path


def descriptors() -> set[tuple[str, str]]:
    """What this process has open: numbers, and of what. Some may be an earlier test's, and closed at any time:
    what counts is what is new.
    """
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # what listed them
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found


def output(*argv: str | Path) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def loop_device(backing: Path, at: Path | None = None) -> Iterator[Path]:
    """A block device over a file; ``at`` a given node, when it is free, or the next free one."""
    device = at or Path(output("losetup", "--find", "--show", str(backing)))
    if at:
        _set_up(at, backing)
    try:
        yield device
    finally:
        output("losetup", "--detach", device)
        let_go(backing, device)


def let_go(backing: Path, device: Path | None = None) -> None:
    """Wait until the kernel shows this file as no block device any more, or not as this one: it was unmounted, or
    detached.

    A machine that another test boots (``tests.machine``) has what is mounted in its namespace, too, until it has
    unmounted it. Whoever mounts the file again meanwhile gets the filesystem as it was, or none.
    """
    name, until = os.path.realpath(backing), time.monotonic() + 4 * PATIENCE
    while name in _shown(device.name if device else "loop*"):
        assert time.monotonic() < until, f"{name} is still a block device"
        time.sleep(0.01)


def _shown(devices: str) -> Iterator[str]:
    """The files behind the loop devices of that name."""
    for path in Path("/sys/block").glob(f"{devices}/loop/backing_file"):
        with suppress(OSError):  # detached by now
            yield path.read_text().removesuffix("\n")


def _set_up(node: Path, backing: Path) -> None:
    """Whoever takes the next free one, in another process, may have taken this one, for a while."""
    until = time.monotonic() + 4 * PATIENCE
    while True:
        try:
            output("losetup", node, backing)
            return
        except subprocess.CalledProcessError as error:
            if "busy" not in error.stderr or time.monotonic() > until:
                raise
        time.sleep(0.01)


@contextmanager
def mounted(folder: Path, *argv: str) -> Iterator[Path]:
    """``mount ARGV folder``, and unmounted at the end."""
    folder.mkdir(exist_ok=True)
    output("mount", *argv, folder)
    try:
        yield folder
    finally:
        output("umount", folder)


@contextmanager
def filesystem(kind: str, root: Path) -> Iterator[Path]:
    """A filesystem of that kind in an image, mounted."""
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    disk = root / f"{kind}.img"
    with disk.open("wb") as file:
        file.truncate(320 << 20)
    output(f"mkfs.{kind}", "-q", disk)
    try:
        with mounted(root / kind, "-o", "loop", str(disk)) as folder:
            yield folder
    finally:
        let_go(disk)
