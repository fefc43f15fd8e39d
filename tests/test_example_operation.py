"""The package in ``examples/operations`` installs, is found by its entry point, and keeps the promise.

It is installed once, into a folder of its own, and used by processes that have this folder on their path.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
import trio

from taskd import codec
from taskd.model import JSON
from taskd.operations import load
from taskd.service import Service
from taskd.store.memory import MemoryStore
from tests.bench import ROOT, Steps, ended, running

HERE = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip installed the example, with no help from outside."""
    source, target = tmp_path_factory.mktemp("example") / "operations", tmp_path_factory.mktemp("site")
    shutil.copytree(HERE / "examples" / "operations", source)  # a build writes beside its source
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)]
    subprocess.run(pip, check=True, capture_output=True, timeout=120)
    return target


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """20 MiB and a bit in a folder of its own: six reads, so that the first progress is far from the end."""
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "disk.img").write_bytes(bytes(range(256)) * (20 * 4096) + b"tail")
    return folder / "disk.img"


@asynccontextmanager
async def serving(image: str) -> AsyncIterator[Service]:
    async with running(MemoryStore(), load(), os.path.dirname(image) + ".workspace") as service:
        yield service


async def digest(image: str) -> JSON:
    async with serving(image) as service:
        task = await service.start(ROOT, "digest", {"image": image})
        return codec.unstructure(await ended(service, task.id))


async def digest_while_a_stranger_takes_the_name(image: str) -> JSON:
    async with serving(image) as service:
        task = await service.start(ROOT, "digest", {"image": image})
        while task.progress.done == 0:
            task = await service.wait(ROOT, task.id, after_revision=task.revision)
        Path(image + ".sha256").write_text("a stranger's")
        return codec.unstructure(await ended(service, task.id))


async def digest_cancelled_at_every_step(image: str) -> JSON:
    """How it ended and what was beside the image then, for a cancel before step 1, 2, 3 … until there is none."""
    ends: list[JSON] = []
    for n in count(1):
        async with serving(image) as service, trio.open_nursery() as nursery:

            def cancel(service: Service = service, nursery: trio.Nursery = nursery) -> None:
                for live in service.registry:
                    nursery.start_soon(service.cancel, ROOT, live.task.id)

            steps = Steps(n, cancel)
            trio.lowlevel.add_instrument(steps)
            task = await service.start(ROOT, "digest", {"image": image})
            task = await ended(service, task.id)
            trio.lowlevel.remove_instrument(steps)
        left = beside(Path(image))
        ends.append([task.state.value, left])
        for name in left:
            os.unlink(os.path.join(os.path.dirname(image), name))
        if steps.count < n:
            break
    return ends


def installed(site: Path, work: Callable[[str], Awaitable[JSON]], image: Path) -> JSON:
    """What ``work`` on ``image`` gives in a process that has the package."""
    name = work.__name__
    source = (
        f"import trio; from taskd import codec; from {__name__} import {name}\n"
        f"print(codec.dumps(trio.run({name}, {str(image)!r})).decode())"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    python = [sys.executable, "-c", source]
    done = subprocess.run(python, cwd=HERE, env=environment, check=True, stdout=subprocess.PIPE, timeout=120)
    return codec.loads(done.stdout)


def beside(image: Path) -> list[str]:
    return [name for name in sorted(os.listdir(image.parent)) if name != image.name]


def test_it_is_not_there_unless_it_is_installed() -> None:
    assert "digest" not in load()


def test_installed_it_runs_and_the_digest_is_right(site: Path, image: Path) -> None:
    task = installed(site, digest, image)

    assert isinstance(task, dict)
    content = hashlib.sha256(image.read_bytes()).hexdigest()
    assert (task["state"], task["result"]) == ("completed", {"sha256": content})
    assert beside(image) == ["disk.img.sha256"]
    subprocess.run(["sha256sum", "--check", "--quiet", "disk.img.sha256"], cwd=image.parent, check=True)


def test_cancelled_at_any_step_it_leaves_nothing_or_the_digest(site: Path, image: Path) -> None:
    ends = installed(site, digest_cancelled_at_every_step, image)

    assert isinstance(ends, list)
    cancelled, completed = ["cancelled", []], ["completed", ["disk.img.sha256"]]
    assert all(end in (cancelled, completed) for end in ends)
    assert cancelled in ends
    assert ends[-1] == completed


def test_a_file_that_takes_its_name_meanwhile_stays_as_it_is(site: Path, image: Path) -> None:
    task = installed(site, digest_while_a_stranger_takes_the_name, image)

    assert isinstance(task, dict)
    assert task["state"] == "failed"
    assert task["error"]["code"] == "DIGEST_EXISTS"
    assert beside(image) == ["disk.img.sha256"]
    assert Path(f"{image}.sha256").read_text() == "a stranger's"
