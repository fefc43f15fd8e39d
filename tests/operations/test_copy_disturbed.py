"""``copy`` between files, disturbed in its middle: by cancels, by strangers, by a full disk."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from taskd.operations.image import Image, open_image, work
from taskd.operations.image.transfer import Transfer, pieces_of
from taskd.states import State
from tests.bench import ROOT
from tests.operations.conftest import Bench, at_bench, descriptors, image, mounted, moved, needs_root
from tests.operations.test_copy import SIZE, code, paths, slowly
from tests.process import PATIENCE


@pytest.mark.parametrize("overwrite", [False, True])
async def test_a_cancel_in_the_middle_leaves_everything_as_it_was(
    overwrite: bool, bench: Bench, autojump_clock: MockClock
) -> None:
    target = bench.folder / "target"
    if overwrite:
        image(target, SIZE, seed=2)
    before = target.read_bytes() if overwrite else None
    live = await bench.start("copy", **slowly(bench, overwrite=overwrite))
    await moved(live, SIZE // 2)

    task = await bench.cancel(live)

    assert task.state is State.CANCELLED
    assert (target.read_bytes() if target.exists() else None) == before


async def test_a_cancel_is_obeyed_between_two_chunks_however_long_a_hop_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "_HOP_S", 3600.0)
    image(tmp_path / "source", 4 << 20)
    image(tmp_path / "target", 0)
    chunks: list[int] = []
    scope, token = trio.CancelScope(), trio.lowlevel.current_trio_token()

    def put_and_cancel(target: Image, data: memoryview, at: int) -> None:
        chunks.append(len(data))
        cancelled = threading.Event()
        token.run_sync_soon(scope.cancel)
        token.run_sync_soon(cancelled.set)
        assert cancelled.wait(PATIENCE)

    with ExitStack() as files, scope:
        source = open_image(str(tmp_path / "source"), os.O_RDONLY, files)
        target = open_image(str(tmp_path / "target"), os.O_RDWR, files)
        await work.Passes().run(Transfer(source, target, pieces_of(((0, source.size),)), put=put_and_cancel))

    assert scope.cancelled_caught
    assert sum(chunks) < 4 << 20


async def test_a_copy_ends_also_where_every_hop_has_used_up_its_time_before_its_first_chunk(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine whose threads stand still: it went on for ever."""
    monkeypatch.setattr(work, "_HOP_S", 0.0)
    source = image(bench.folder / "source", SIZE)

    with trio.fail_after(PATIENCE):
        task = await bench.run("copy", **paths(bench))

    assert task.state is State.COMPLETED, task.error
    assert (bench.folder / "target").read_bytes() == source.read_bytes()


async def test_a_target_that_a_stranger_makes_meanwhile_survives(bench: Bench, autojump_clock: MockClock) -> None:
    live = await bench.start("copy", **slowly(bench))
    await moved(live)
    (bench.folder / "target").write_text("a stranger's")

    task = await bench.end(live)

    assert code(task) == "TARGET_EXISTS"
    assert (bench.folder / "target").read_text() == "a stranger's"


async def test_with_overwrite_a_target_made_meanwhile_is_replaced(bench: Bench, autojump_clock: MockClock) -> None:
    live = await bench.start("copy", **slowly(bench, overwrite=True))
    await moved(live)
    image(bench.folder / "target", 5, seed=2)
    os.chown(bench.folder / "target", 1234, 1235)

    task = await bench.end(live)

    assert task.state is State.COMPLETED
    assert (bench.folder / "target").read_bytes() == (bench.folder / "source").read_bytes()
    assert (bench.folder / "target").stat().st_uid == 1234


async def test_a_target_that_turns_into_a_folder_stays(bench: Bench, autojump_clock: MockClock) -> None:
    target = image(bench.folder / "target", 5)
    live = await bench.start("copy", **slowly(bench, overwrite=True))
    await moved(live)
    target.unlink()
    target.mkdir()

    assert code(await bench.end(live)) == "NOT_AN_IMAGE"
    assert target.is_dir()


async def test_a_strangers_file_at_the_name_of_the_part_is_left_alone(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """One task runs at a time, so that the id of the second is known before it starts."""
    async with at_bench(tmp_path, running_tasks=1) as bench:
        first = await bench.start("copy", **slowly(bench))
        second = await bench.start("copy", **{**paths(bench), "target": f"{bench.folder}/two", "verify": True})
        part = bench.folder / f".taskd-{second.task.id}.part"
        part.touch(mode=0o600)
        await bench.service.runner.cancel(first)
        task = await bench.service.wait(ROOT, second.task.id)

        assert task.state is State.COMPLETED
        assert (bench.folder / "two").read_bytes() == (bench.folder / "source").read_bytes()
        assert part.read_bytes() == b""
        assert sorted(os.listdir(bench.folder)) == sorted([part.name, "source", "two"])


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_stranger_who_takes_the_place_of_the_part_is_not_removed(
    cancelled: bool, bench: Bench, autojump_clock: MockClock
) -> None:
    live = await bench.start("copy", **slowly(bench))
    await moved(live)
    part = bench.folder / f".taskd-{live.task.id}.part"
    part.unlink()
    part.write_text("a stranger's")
    if cancelled:
        await bench.service.runner.cancel(live)

    task = await bench.service.wait(ROOT, live.task.id)

    assert task.state is State.CANCELLED if cancelled else code(task) == "UNPROVEN"
    assert part.read_text() == "a stranger's"
    assert not (bench.folder / "target").exists()


@pytest.mark.parametrize("size", [SIZE // 4, SIZE * 2])
async def test_a_source_that_changes_its_size_is_no_image(
    size: int, bench: Bench, autojump_clock: MockClock
) -> None:
    live = await bench.start("copy", **slowly(bench))
    await moved(live, SIZE // 2)
    os.truncate(bench.folder / "source", size)

    task = await bench.end(live)

    assert code(task) == "SOURCE_CHANGED"
    assert task.error is not None
    assert task.error.data == (str(bench.folder / "source"), str(SIZE), str(size))
    assert os.listdir(bench.folder) == ["source"]


async def test_a_source_that_is_unlinked_meanwhile_can_still_be_read(
    bench: Bench, autojump_clock: MockClock
) -> None:
    live = await bench.start("copy", **slowly(bench))
    await moved(live)
    content = (bench.folder / "source").read_bytes()
    (bench.folder / "source").unlink()

    assert (await bench.end(live)).state is State.COMPLETED
    assert (bench.folder / "target").read_bytes() == content


async def test_a_source_that_is_gone_when_its_turn_comes_is_missing(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with at_bench(tmp_path, running_tasks=1) as bench:
        first = await bench.start("copy", **slowly(bench))
        second = await bench.start("copy", **{**paths(bench), "target": f"{bench.folder}/two"})
        (bench.folder / "source").unlink()
        await bench.cancel(first)

        assert code(await bench.end(second)) == "SOURCE_MISSING"


async def test_a_source_that_is_written_to_is_a_line_in_the_log(bench: Bench, autojump_clock: MockClock) -> None:
    live = await bench.start("copy", **slowly(bench))
    await moved(live)
    os.utime(bench.folder / "source")

    assert (await bench.end(live)).state is State.COMPLETED
    lines = await bench.service.store.log(live.task.id, 0, 10)
    assert [line.line for line in lines] == [f"{bench.folder}/source was written to while it was copied"]


@pytest.mark.parametrize("spoiled", ["source", "part"])
async def test_verify_catches_a_byte_that_is_not_the_sources(
    spoiled: str, bench: Bench, autojump_clock: MockClock
) -> None:
    """The byte is changed when the copy is past it: in the source, or in what the disk keeps of it."""
    live = await bench.start("copy", **slowly(bench, verify=True))
    await moved(live, SIZE // 2)
    path = bench.folder / ("source" if spoiled == "source" else f".taskd-{live.task.id}.part")
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff")

    task = await bench.end(live)

    assert code(task) == "VERIFY_FAILED"
    assert task.error is not None
    assert task.error.data == (str(bench.folder / "target"), "5000")
    assert os.listdir(bench.folder) == ["source"]


async def test_verify_catches_a_byte_in_what_should_be_a_hole(bench: Bench, autojump_clock: MockClock) -> None:
    params = slowly(bench, verify=True)
    os.truncate(bench.folder / "source", SIZE * 3)
    live = await bench.start("copy", **params)
    await moved(live, SIZE // 2)
    with (bench.folder / f".taskd-{live.task.id}.part").open("r+b") as file:
        file.seek(SIZE * 2 + 9)
        file.write(b"\xff")

    task = await bench.end(live)

    assert code(task) == "VERIFY_FAILED"
    assert task.error is not None
    assert task.error.data[1] == str(SIZE * 2 + 9)


async def test_a_rate_limit_is_kept(bench: Bench, autojump_clock: MockClock) -> None:
    began = trio.current_time()

    task = await bench.run("copy", **slowly(bench))

    assert task.state is State.COMPLETED
    assert trio.current_time() - began == pytest.approx(10, rel=0.01)


@needs_root
async def test_a_full_disk_fails_the_copy_and_is_emptied_again(bench: Bench, tmp_path: Path) -> None:
    image(bench.folder / "source", 3 << 20)
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m", "none") as folder:
        target = image(folder / "target", 100, seed=2)
        before = target.read_bytes()
        params = {**paths(bench), "target": str(target), "overwrite": True}

        task = await bench.run("copy", **params)

        assert code(task) == "ENOSPC"
        assert task.error is not None
        assert task.error.data[0] == str(target)
        assert os.listdir(folder) == ["target"]
        assert target.read_bytes() == before


async def test_no_descriptor_stays_open(bench: Bench, autojump_clock: MockClock) -> None:
    """However a copy ends: completed, cancelled, failed."""
    image(bench.folder / "source", 10)
    await bench.run("copy", **paths(bench))
    before = descriptors()

    for n in range(5):
        live = await bench.start("copy", **slowly(bench, target=f"{bench.folder}/cancelled"))
        await moved(live, n * SIZE // 5)
        assert (await bench.cancel(live)).state is State.CANCELLED
        live = await bench.start("copy", **slowly(bench, target=f"{bench.folder}/failed"))
        await moved(live)
        os.truncate(bench.folder / "source", 0)
        assert code(await bench.end(live)) == "SOURCE_CHANGED"

    assert descriptors() <= before
