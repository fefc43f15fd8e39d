"""``copy`` of whole images between files: what it makes, what it refuses, what it replaces."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest
from trio.testing import MockClock

from taskd.errors import (
    BadParams,
    FolderMissing,
    NotAnImage,
    OsRefusal,
    Refusal,
    SameFile,
    SourceMissing,
    TargetExists,
)
from taskd.model import JSON, Task
from taskd.operations.copy import CopyParams, targets
from taskd.states import State
from tests.bench import ROOT
from tests.operations.conftest import (
    Bench,
    filesystem,
    image,
    mounted,
    needs_root,
    output,
)

SIZE = 64 * 1024
Params = dict[str, JSON]


def code(task: Task) -> str:
    assert task.state is State.FAILED, task
    assert task.error is not None
    return task.error.code


def paths(bench: Bench) -> Params:
    return {"source": str(bench.folder / "source"), "target": str(bench.folder / "target")}


def slowly(bench: Bench, **more: JSON) -> Params:
    """A copy that takes ten seconds of trio's time, in some ten chunks."""
    image(bench.folder / "source", SIZE)
    return {**paths(bench), "rate_limit": SIZE // 10, **more}


@pytest.mark.parametrize("size", [0, 1, 4095, (1 << 20) + 1, (3 << 20) + 7])
async def test_a_copy_has_the_bytes_and_the_mode_of_its_source(size: int, bench: Bench) -> None:
    source = image(bench.folder / "source", size)
    target = bench.folder / "target"

    task = await bench.run("copy", **paths(bench), verify=True)

    assert task.state is State.COMPLETED, task.error
    assert target.read_bytes() == source.read_bytes()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert isinstance(task.result, dict)
    assert task.result["bytes"] == size
    assert task.result["way"] == "new"


async def test_holes_stay_holes(bench: Bench) -> None:
    with (bench.folder / "source").open("wb") as file:
        for at in (0, 70 << 20, 300 << 20):
            file.seek(at)
            file.write(b"data" * 1024)
        file.truncate(400 << 20)

    task = await bench.run("copy", **paths(bench), verify=True)

    target = bench.folder / "target"
    assert task.state is State.COMPLETED, task.error
    assert target.stat().st_size == 400 << 20
    assert target.stat().st_blocks == (bench.folder / "source").stat().st_blocks
    assert output("cmp", bench.folder / "source", target) == ""
    assert isinstance(task.result, dict)
    assert task.result["copied"] == 3 * 4096


@needs_root
@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
async def test_a_filesystem_that_can_share_blocks_does(kind: str, bench: Bench, tmp_path: Path) -> None:
    with filesystem(kind, tmp_path) as folder:
        source = image(folder / "source", (5 << 20) + 3)

        task = await bench.run("copy", source=str(source), target=str(folder / "target"), verify=True)

        assert (folder / "target").read_bytes() == source.read_bytes()
        size = (5 << 20) + 3
    expected = {"bytes": size, "source_bytes": size, "copied": 0, "method": "reflink", "way": "new"}
    assert task.result == expected


@needs_root
async def test_between_filesystems_it_reads_and_writes(bench: Bench, tmp_path: Path) -> None:
    source = image(bench.folder / "source", (2 << 20) + 5)
    with mounted(tmp_path / "tmpfs", "-t", "tmpfs", "none") as folder:
        task = await bench.run("copy", source=str(source), target=str(folder / "target"), verify=True)

        assert (folder / "target").read_bytes() == source.read_bytes()
        assert os.listdir(folder) == ["target"]
        assert isinstance(task.result, dict)
        assert task.result["method"] == "read_write"


# Refused before there is a task.


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def _same_by(link: Callable[[Path, Path], None]) -> Callable[[Path], Params]:
    def prepare(folder: Path) -> Params:
        link(folder / "source", folder / "other")
        return {"target": str(folder / "other"), "overwrite": True}

    return prepare


def _with(field: str, make: Callable[[Path], object]) -> Callable[[Path], Params]:
    def prepare(folder: Path) -> Params:
        make(folder / "odd")
        return {field: str(folder / "odd"), "overwrite": True}

    return prepare


REFUSED: dict[str, tuple[Callable[[Path], Params], type[Refusal], str]] = {
    "a relative source": (lambda _: {"source": "image"}, BadParams, "params.source"),
    "an empty target": (lambda _: {"target": ""}, BadParams, "params.target"),
    "a target with NUL": (lambda _: {"target": "/a\0b"}, BadParams, "NUL"),
    "a target that names a folder": (lambda f: {"target": f"{f}/x/"}, BadParams, "params.target"),
    "a rate of nothing": (lambda _: {"rate_limit": 0}, BadParams, "params.rate_limit"),
    "no such source": (lambda f: {"source": f"{f}/no"}, SourceMissing, "/no"),
    "a source below a file": (lambda f: {"source": f"{f}/source/no"}, SourceMissing, "/source/no"),
    "a directory": (_with("source", Path.mkdir), NotAnImage, "a directory"),
    "a FIFO": (_with("source", _fifo), NotAnImage, "a FIFO"),
    "a socket": (_with("source", _socket), NotAnImage, "a socket"),
    "a character device": (lambda _: {"source": "/dev/null"}, NotAnImage, "a character device"),
    "onto a directory": (_with("target", Path.mkdir), NotAnImage, "a directory"),
    "onto a FIFO": (_with("target", _fifo), NotAnImage, "a FIFO"),
    "onto a dangling link": (_with("target", lambda p: p.symlink_to("no")), NotAnImage, "dangling"),
    "no such folder": (lambda f: {"target": f"{f}/no/x"}, FolderMissing, "/no "),
    "a folder that is a file": (lambda f: {"target": f"{f}/source/x"}, FolderMissing, "/source "),
    "itself": (lambda f: {"target": f"{f}/source"}, SameFile, "same file"),
    "itself by a hard link": (_same_by(os.link), SameFile, "same file"),
    "itself by a symlink": (_same_by(os.symlink), SameFile, "same file"),
    "a name too long": (lambda f: {"target": f"{f}/{'x' * 256}"}, OsRefusal, "too long"),
    "a loop of links": (_with("source", lambda p: p.symlink_to(p)), OsRefusal, "symbolic links"),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_cannot_be_is_refused_before_a_task_is_made(what: str, bench: Bench) -> None:
    prepare, error, words = REFUSED[what]
    image(bench.folder / "source", 10)
    params = {**paths(bench), **prepare(bench.folder)}
    before = sorted(os.listdir(bench.folder))

    with pytest.raises(error) as caught:
        await bench.start("copy", **params)

    assert words in str(caught.value)
    assert sorted(os.listdir(bench.folder)) == before
    assert await bench.service.ids(ROOT) == []


@pytest.mark.parametrize("make", [lambda path: image(path, 3), lambda path: path.symlink_to("no")])
async def test_without_overwrite_a_target_that_exists_is_refused(
    make: Callable[[Path], object], bench: Bench
) -> None:
    """A dangling symlink exists too."""
    image(bench.folder / "source", 10)
    make(bench.folder / "target")

    with pytest.raises(TargetExists):
        await bench.start("copy", **paths(bench))


@needs_root
async def test_what_a_rename_could_not_replace_is_refused(bench: Bench, tmp_path: Path) -> None:
    image(bench.folder / "source", 10)
    target = image(bench.folder / "target", 20, seed=2)
    with ExitStack() as cleanup:
        output("chattr", "+i", target)
        cleanup.callback(output, "chattr", "-i", target)
        with pytest.raises(OsRefusal) as caught:
            await bench.start("copy", **paths(bench), overwrite=True)
        assert caught.value.code == "EPERM"
    with ExitStack() as cleanup:
        output("mount", "--bind", target, target)
        cleanup.callback(output, "umount", target)
        with pytest.raises(OsRefusal) as caught:
            await bench.start("copy", **paths(bench), overwrite=True)
        assert caught.value.code == "EBUSY"
    with mounted(tmp_path / "ro", "-t", "tmpfs", "-o", "ro", "none") as folder:
        with pytest.raises(OsRefusal) as caught:
            await bench.start("copy", **{**paths(bench), "target": f"{folder}/x"})
        assert caught.value.code == "EROFS"


# Replacing a file.


async def test_the_old_target_stays_until_the_commit(bench: Bench, autojump_clock: MockClock) -> None:
    target = image(bench.folder / "target", SIZE * 2, seed=2)
    os.chown(target, 1234, 1235)
    before, inode = target.read_bytes(), target.stat().st_ino
    live = await bench.start("copy", **slowly(bench, overwrite=True))
    while live.task.state is not State.COMMITTED:
        assert (target.read_bytes(), target.stat().st_ino) == (before, inode)
        await live.changed()

    task = await bench.end(live)

    assert task.state is State.COMPLETED
    assert target.read_bytes() == (bench.folder / "source").read_bytes()
    found = target.stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 1235, 0o640)


async def test_a_link_to_the_target_stays_a_link(bench: Bench) -> None:
    source = image(bench.folder / "source", 10)
    real, link = image(bench.folder / "real", 20, seed=2), bench.folder / "target"
    link.symlink_to("real")

    task = await bench.run("copy", **paths(bench), overwrite=True)

    assert task.state is State.COMPLETED
    assert os.readlink(link) == "real"
    assert real.read_bytes() == source.read_bytes()


async def test_other_hard_links_to_a_replaced_target_keep_the_old_content(bench: Bench) -> None:
    source, other = image(bench.folder / "source", 10), image(bench.folder / "other", 20, seed=2)
    os.link(other, bench.folder / "target")
    before = other.read_bytes()

    await bench.run("copy", **paths(bench), overwrite=True)

    assert other.read_bytes() == before
    assert (bench.folder / "target").read_bytes() == source.read_bytes()


def test_a_target_is_the_same_before_its_filesystem_is_there(tmp_path: Path) -> None:
    """After a start, what is owed to it may be claimed before it is mounted."""
    params = CopyParams(source=str(tmp_path / "source"), target=str(tmp_path / "late" / "target"))
    before = targets(params)
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "target").touch()

    assert before & targets(params)
    assert not before & targets(attrs.evolve(params, target=str(tmp_path / "target")))
