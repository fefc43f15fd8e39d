"""``copy`` onto and from block devices, which are loop devices here."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest
from trio.testing import MockClock

from taskd.errors import SameFile, TargetExists, TargetTooSmall
from taskd.model import JSON
from taskd.operations import copy
from taskd.operations.image import device, open_image
from taskd.states import State
from taskd.store.memory import MemoryStore
from tests.bench import ROOT
from tests.operations.conftest import (
    Bench,
    at_bench,
    image,
    loop_device,
    moved,
    needs_root,
    output,
)
from tests.operations.test_copy import Params, code
from tests.operations.test_owned import disk as mounted_disk

pytestmark = needs_root

# linux/loop.h
LOOP_SET_STATUS64, LOOP_GET_STATUS64 = 0x4C04, 0x4C05

BLOCK = 64 * 1024
SIZE = 32 * BLOCK


@attrs.frozen
class Disk:
    node: Path
    backing: Path

    def read(self) -> bytes:
        return self.node.read_bytes()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    backing = image(tmp_path / "disk", SIZE, seed=2)
    with loop_device(backing) as node:
        yield Disk(node, backing)


def onto(disk: Disk, folder: Path, size: int = SIZE // 2) -> Params:
    source = image(folder / "source", size)
    return {"source": str(source), "target": str(disk.node), "overwrite": True}


async def test_a_device_is_written_up_to_the_sources_end(disk: Disk, bench: Bench) -> None:
    before = disk.read()
    params = onto(disk, bench.folder, size=SIZE // 2 + 100)

    task = await bench.run("copy", **params, verify=True)

    assert task.state is State.COMPLETED, task.error
    written = Path(str(params["source"])).read_bytes()
    assert disk.read() == written + before[len(written) :]
    written_bytes = {"source_bytes": len(written), "copied": len(written)}
    assert task.result == {"bytes": SIZE, "method": "read_write", "way": "in_place"} | written_bytes


async def test_blocks_go_to_their_places_on_a_device(disk: Disk, bench: Bench) -> None:
    before = disk.read()
    params = onto(disk, bench.folder)
    blocks = {"blocksize": BLOCK, "ranges": [[2, 1], [9, 3]]}

    await bench.run("copy", **params, blocks=blocks, verify=True)

    expected, content = bytearray(before), Path(str(params["source"])).read_bytes()
    for start, end in ((2, 3), (9, 12)):
        expected[start * BLOCK : end * BLOCK] = content[start * BLOCK : end * BLOCK]
    assert disk.read() == bytes(expected)


async def test_a_cancel_puts_the_device_back(disk: Disk, bench: Bench, autojump_clock: MockClock) -> None:
    """Cancelled while it is saved, and while it is written."""
    before = disk.read()
    for done in (SIZE // 4, SIZE * 3 // 4):
        live = await bench.start("copy", **onto(disk, bench.folder), rate_limit=SIZE // 10)
        await moved(live, done)
        assert (disk.read() == before) == (done < SIZE // 2)

        task = await bench.cancel(live)

        assert task.state is State.CANCELLED
        assert disk.read() == before


async def test_a_device_becomes_a_file_without_its_zeros(disk: Disk, bench: Bench) -> None:
    output("dd", "if=/dev/zero", f"of={disk.node}", f"bs={BLOCK}", "seek=4", "count=20", "oflag=direct")
    target = bench.folder / "target"

    task = await bench.run("copy", source=str(disk.node), target=str(target), verify=True)

    assert task.state is State.COMPLETED, task.error
    assert target.read_bytes() == disk.read()
    assert target.stat().st_blocks * 512 == SIZE - 20 * BLOCK
    assert target.stat().st_mode & 0o777 == 0o600


async def test_what_does_not_fit_is_refused_before_a_task_is_made(
    disk: Disk, bench: Bench, tmp_path: Path
) -> None:
    params = onto(disk, bench.folder, size=SIZE + 1)
    with pytest.raises(TargetTooSmall):
        await bench.start("copy", **params)
    with pytest.raises(TargetExists):
        await bench.start("copy", **{**params, "overwrite": False})
    (tmp_path / "link").symlink_to(disk.node)
    with pytest.raises(SameFile):
        await bench.start("copy", **{**params, "source": f"{tmp_path}/link"})


async def test_a_disk_and_its_partition_are_the_same_file(disk: Disk, bench: Bench) -> None:
    output("addpart", disk.node, "1", "8", "1024")
    try:
        partition = f"{disk.node}p1"
        for source, target in ((disk.node, partition), (partition, disk.node)):
            with pytest.raises(SameFile):
                await bench.start("copy", source=str(source), target=str(target), overwrite=True)
    finally:
        output("delpart", disk.node, "1")


async def test_a_loop_device_and_the_file_that_it_shows_are_the_same_file(disk: Disk, bench: Bench) -> None:
    os.link(disk.backing, bench.folder / "second name")
    for source, target in ((disk.node, disk.backing), (bench.folder / "second name", disk.node)):
        with pytest.raises(SameFile):
            await bench.start("copy", source=str(source), target=str(target), overwrite=True)


def test_a_loop_device_and_what_it_shows_are_one_target_under_whatever_names(disk: Disk, tmp_path: Path) -> None:
    def keys(path: Path) -> frozenset[str]:
        return copy.targets(copy.CopyParams(source="/source", target=str(path)))

    other, second = image(tmp_path / "other", SIZE), tmp_path / "second name"
    os.link(disk.backing, second)
    output("addpart", disk.node, "1", "8", "1024")
    try:
        disk.backing.unlink()
        with loop_device(second) as twin, loop_device(twin) as above, loop_device(other) as stranger:
            names = (disk.node, Path(f"{disk.node}p1"), second, twin, above)
            assert not [(a, b) for a in names for b in names if keys(a).isdisjoint(keys(b))]
            assert keys(stranger).isdisjoint(frozenset().union(*map(keys, names)))
    finally:
        output("delpart", disk.node, "1")


def test_what_an_undo_would_know_again_is_one_target_with_what_it_was(tmp_path: Path) -> None:
    """Its number is another one by now, and so is that of the filesystem beneath it."""
    point, stranger = tmp_path / "mnt", image(tmp_path / "stranger", BLOCK)
    point.mkdir()

    def found() -> tuple[set[str], Mapping[str, JSON]]:
        with mounted_disk("ext4", tmp_path, point):
            if not (point / "disk").exists():
                image(point / "disk", SIZE)
            with loop_device(point / "disk") as node:
                return set(device.layers(node.stat())), identity(node)

    keys, before = found()
    numbers = {key for key in keys if key.startswith(("disk", "file"))}
    with ExitStack() as others:
        for _ in range(20):
            others.enter_context(loop_device(stranger))  # takes a number that is free
            keys_now, now = found()
            if numbers.isdisjoint(keys_now):
                break

    assert len(numbers) == 2
    assert numbers.isdisjoint(keys_now)
    assert device.same_device(before, now)
    assert keys & keys_now


async def test_a_mounted_device_is_not_written(bench: Bench, tmp_path: Path) -> None:
    backing = tmp_path / "ext4.img"
    with backing.open("wb") as file:
        file.truncate(16 << 20)
    output("mkfs.ext4", "-q", backing)
    with loop_device(backing) as node:
        (tmp_path / "mnt").mkdir()
        output("mount", node, tmp_path / "mnt")
        try:
            before = node.read_bytes()
            task = await bench.run("copy", **onto(Disk(node, backing), bench.folder))
            assert code(task) == "EBUSY"
            assert node.read_bytes() == before
        finally:
            output("umount", tmp_path / "mnt")


async def stopped_in_the_middle(root: Path, disk: Disk, store: MemoryStore) -> str:
    """The id of a task whose daemon stopped when half of the new content was on the device."""
    async with at_bench(root, store) as bench:
        live = await bench.start("copy", **onto(disk, bench.folder), rate_limit=SIZE // 10)
        await moved(live, SIZE * 3 // 4)
    return live.task.id


async def test_a_device_is_put_back_before_the_copy_starts_anew(
    disk: Disk, tmp_path: Path, autojump_clock: MockClock
) -> None:
    before, store = disk.read(), MemoryStore()
    id = await stopped_in_the_middle(tmp_path, disk, store)
    assert disk.read() != before
    (tmp_path / "data" / "source").unlink()

    async with at_bench(tmp_path, store) as bench:
        task = await bench.service.wait(ROOT, id)

        assert code(task) == "SOURCE_MISSING"
        assert disk.read() == before
        assert os.listdir(bench.workspace) == []


async def test_an_undo_compares_with_the_disk_and_not_with_what_is_cached_of_it(
    disk: Disk, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """As a failed writeback leaves it: the old bytes are in the page cache, clean, the new ones on the disk."""
    before, store = disk.read(), MemoryStore()
    id = await stopped_in_the_middle(tmp_path, disk, store)
    (tmp_path / "data" / "source").unlink()
    written = disk.backing.read_bytes()
    assert written != before
    with disk.backing.open("r+b", buffering=0) as backing, disk.node.open("rb") as held:
        backing.write(before)
        assert held.read() == before
        backing.seek(0)
        backing.write(written)
        assert disk.read() == before, "the device is not cached"

        async with at_bench(tmp_path, store) as bench:
            task = await bench.service.wait(ROOT, id)

    assert code(task) == "SOURCE_MISSING"
    assert disk.backing.read_bytes() == before


@pytest.mark.parametrize("put_back", [False, True])
async def test_a_pre_image_that_is_gone_is_missed_only_where_the_device_does_not_hold_what_it_did(
    put_back: bool, disk: Disk, tmp_path: Path, autojump_clock: MockClock
) -> None:
    before, store = disk.read(), MemoryStore()
    id = await stopped_in_the_middle(tmp_path, disk, store)
    (tmp_path / "data" / "source").unlink()
    for preimage in (tmp_path / "workspace").iterdir():
        preimage.unlink()
    if put_back:
        disk.node.write_bytes(before)
    found = disk.read()

    async with at_bench(tmp_path, store) as bench:
        task = await bench.service.wait(ROOT, id)

    assert code(task) == ("SOURCE_MISSING" if put_back else "UNDO_FAILED")
    assert [step.verb for step in task.residue] == ([] if put_back else ["restore", "discard", "discard"])
    assert disk.read() == found


async def test_an_undo_never_writes_to_another_device(tmp_path: Path, autojump_clock: MockClock) -> None:
    """What is at the device's node now is as big and has its number; the residue waits until it is back."""
    backing, store = image(tmp_path / "disk", SIZE, seed=2), MemoryStore()
    other = image(tmp_path / "other", SIZE, seed=3)
    before, others = backing.read_bytes(), other.read_bytes()
    with loop_device(backing) as node:
        id = await stopped_in_the_middle(tmp_path, Disk(node, backing), store)
    with loop_device(other, at=node):
        async with at_bench(tmp_path, store) as bench:
            task = await bench.service.wait(ROOT, id)
            assert code(task) == "UNDO_FAILED"
            assert task.residue[0].verb == "restore"
            assert node.read_bytes() == others
            assert len(os.listdir(bench.workspace)) == 1
    with loop_device(backing, at=node):
        async with at_bench(tmp_path, store) as bench:
            while (task := await bench.service.get(ROOT, id)).journal:
                live = bench.service.registry.get(id)
                assert live is not None
                await live.changed()

            assert (task.state, task.residue) == (State.FAILED, ())
            assert node.read_bytes() == before
            assert os.listdir(bench.workspace) == []


def identity(node: str | Path) -> dict[str, JSON]:
    with ExitStack() as files:
        return device.identity(open_image(str(node), os.O_RDONLY, files))


def test_a_partition_that_was_moved_is_another_device(disk: Disk) -> None:
    found = []
    for start in ("8", "1024"):
        output("addpart", disk.node, "1", start, "512")
        try:
            found.append(identity(f"{disk.node}p1"))
        finally:
            output("delpart", disk.node, "1")
    before, after = found
    after["rdev"] = before["rdev"]  # the kernel gives the number anew, but not always to the next one

    assert before["diskseq"] == after["diskseq"]
    assert device.same_device(before, before)
    assert not device.same_device(before, after)


def test_a_loop_device_that_shows_another_place_of_its_file_is_another_device(disk: Disk) -> None:
    found = []
    with disk.node.open("rb") as node:
        info = bytearray(fcntl.ioctl(node, LOOP_GET_STATUS64, bytes(232)))
        for offset in (0, BLOCK):
            struct.pack_into("QQ", info, 24, offset, SIZE // 2)
            fcntl.ioctl(node, LOOP_SET_STATUS64, bytes(info))
            found.append(identity(disk.node))
    before, after = found

    assert (before["size"], before["diskseq"]) == (after["size"], after["diskseq"])
    assert not device.same_device(before, after)


@pytest.mark.skipif(not Path("/sys/class/zram-control").exists(), reason="this kernel has no zram")
def test_what_may_be_set_up_anew_and_tells_nothing_of_it_is_not_recognisable() -> None:
    control = Path("/sys/class/zram-control")
    number = (control / "hot_add").read_text().strip()
    try:
        Path(f"/sys/block/zram{number}/disksize").write_text("1M")
        found = identity(f"/dev/zram{number}")
    finally:
        (control / "hot_remove").write_text(number)

    assert found["size"] == 1 << 20
    assert not device.recognisable(found)


def test_within_one_boot_a_device_is_another_when_it_was_connected_anew_or_has_another_name() -> None:
    setup = {"pid": "7", "device/wwid": "naa.5"}
    before = {"size": 5, "rdev": 7, "boot": "a", "diskseq": "3", "names": {}, "setup": setup}

    assert device.same_device(before, before)
    assert not device.same_device(before, {**before, "setup": {**setup, "pid": "8"}})
    assert not device.same_device(before, {**before, "setup": {**setup, "device/wwid": "naa.6"}})


def test_what_was_journaled_before_a_setup_was_is_known_by_its_number() -> None:
    before = {"size": 5, "rdev": 7, "boot": "a", "diskseq": "3", "names": {}}

    assert device.same_device(before, {**before, "setup": {"start": "8"}})
    assert not device.same_device(before, {**before, "setup": {"start": "8"}, "boot": "b"})


def test_after_a_reboot_only_a_name_of_its_own_proves_a_device() -> None:
    before = {"size": 5, "rdev": 7, "boot": "a", "diskseq": "3", "setup": {}, "names": {"wwid": "naa.5"}}
    after = {**before, "boot": "b", "rdev": 8}

    assert device.same_device(before, before)
    assert device.same_device({**before, "names": {}}, {**before, "names": {}})
    assert device.same_device(before, after)
    assert not device.same_device(before, {**after, "names": {"wwid": "naa.6"}})
    assert not device.same_device({**before, "names": {}}, {**after, "names": {}})
    assert not device.same_device(before, {**before, "size": 6})
    assert not device.recognisable({**before, "names": {}, "diskseq": None})
