"""``copy`` with ``blocks``: only those ranges, into a new file, aside, and in place."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from pathlib import Path

import pytest
from trio.testing import MockClock

from taskd import codec
from taskd.errors import BadParams
from taskd.model import JSON
from taskd.operations import copy
from taskd.operations.image import merged, open_image
from taskd.operations.image.transfer import Digest, Transfer, packed
from taskd.states import State
from tests.operations.conftest import Bench, filesystem, image, mounted, moved, needs_root
from tests.operations.test_copy import Params, code, paths

BLOCK = 16 * 1024
SIZE = 8 * BLOCK + 100


def blocks(*ranges: list[int]) -> Params:
    return {"blocks": {"blocksize": BLOCK, "ranges": list(ranges)}, "verify": True}


def expected(old: bytes, source: Path, *ranges: tuple[int, int]) -> bytes:
    """``old`` with those blocks of the source in it."""
    new, content = bytearray(old), source.read_bytes()
    for start, length in ranges:
        piece = content[start * BLOCK : (start + length) * BLOCK]
        new.extend(bytes(max(0, start * BLOCK - len(new))))
        new[start * BLOCK : start * BLOCK + len(piece)] = piece
    return bytes(new)


async def test_a_new_file_has_the_sources_size_and_only_those_blocks(bench: Bench) -> None:
    """They may overlap, come in any order, and end within the source's last block."""
    source = image(bench.folder / "source", SIZE)

    task = await bench.run("copy", **paths(bench), **blocks([7, 2], [1, 2], [2, 1], [5, 0]))

    target = bench.folder / "target"
    assert task.state is State.COMPLETED, task.error
    assert target.read_bytes() == expected(bytes(SIZE), source, (7, 2), (1, 2))
    assert target.stat().st_blocks * 512 <= 3 * BLOCK + 4096
    assert isinstance(task.result, dict)
    assert task.result["copied"] == 3 * BLOCK + 100


@needs_root
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
async def test_an_existing_file_is_replaced_by_a_changed_copy(kind: str, bench: Bench, tmp_path: Path) -> None:
    with filesystem(kind, tmp_path) as folder:
        source, target = image(folder / "source", SIZE), image(folder / "target", SIZE - 1, seed=2)
        os.truncate(target, SIZE * 100)
        target.chmod(0o604)
        os.chown(target, 1234, 1235)
        before = target.stat()
        content = expected(target.read_bytes(), source, (0, 1), (3, 2))
        params = {"source": str(source), "target": str(target), "overwrite": True}

        task = await bench.run("copy", **params, **blocks([0, 1], [3, 2]))

        after = target.stat()
        assert target.read_bytes() == content
        assert after.st_ino != before.st_ino
        assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (1234, 1235, 0o604)
        assert after.st_blocks <= before.st_blocks + 8
        assert isinstance(task.result, dict)
        assert task.result["way"] == "replace"
        assert sorted(set(os.listdir(folder)) - {"lost+found"}) == ["source", "target"]


async def test_blocks_past_the_targets_end_extend_it(bench: Bench) -> None:
    source, target = image(bench.folder / "source", SIZE), image(bench.folder / "target", BLOCK, seed=2)
    content = expected(target.read_bytes(), source, (3, 1), (8, 1))

    await bench.run("copy", **paths(bench), **blocks([3, 1], [8, 1]), overwrite=True)

    assert target.read_bytes() == content
    assert len(content) == SIZE


async def test_a_hole_in_the_source_clears_what_the_target_had_there(bench: Bench) -> None:
    os.truncate(image(bench.folder / "source", BLOCK), SIZE)
    target = image(bench.folder / "target", SIZE, seed=2)

    await bench.run("copy", **paths(bench), **blocks([0, 3]), overwrite=True)

    assert target.read_bytes()[BLOCK : 3 * BLOCK] == bytes(2 * BLOCK)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_target_with_hard_links_is_written_in_place(
    cancelled: bool, bench: Bench, autojump_clock: MockClock
) -> None:
    """Also past its end; a cancel cuts it back."""
    source, target = image(bench.folder / "source", SIZE), image(bench.folder / "target", 2 * BLOCK, seed=2)
    os.link(target, bench.folder / "other")
    before, inode = target.read_bytes(), target.stat().st_ino
    ranges = blocks([1, 1], [5, 2])
    live = await bench.start("copy", **paths(bench), **ranges, overwrite=True, rate_limit=BLOCK)
    await moved(live, 3 * BLOCK)
    assert len((bench.folder / "other").read_bytes()) > 2 * BLOCK

    task = await (bench.cancel(live) if cancelled else bench.end(live))

    assert task.state is (State.CANCELLED if cancelled else State.COMPLETED)
    assert target.read_bytes() == (before if cancelled else expected(before, source, (1, 1), (5, 2)))
    assert (bench.folder / "other").stat().st_ino == target.stat().st_ino == inode


@needs_root
async def test_where_there_is_no_room_beside_it_it_is_written_in_place(bench: Bench, tmp_path: Path) -> None:
    source = image(bench.folder / "source", 100 * BLOCK)
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=2m", "none") as folder:
        target = image(folder / "target", 100 * BLOCK, seed=2)
        content = expected(target.read_bytes(), source, (7, 2))
        params = {**paths(bench), "target": str(target), "overwrite": True}

        task = await bench.run("copy", **params, **blocks([7, 2]))

        assert task.state is State.COMPLETED, task.error
        assert isinstance(task.result, dict)
        assert task.result["way"] == "in_place"
        assert target.read_bytes() == content
        assert os.listdir(folder) == ["target"]


@needs_root
async def test_a_disk_that_fills_up_in_the_middle_gives_everything_back(bench: Bench, tmp_path: Path) -> None:
    """The old holes that were filled are empty again, although there was no room to write."""
    source = image(bench.folder / "source", 200 * BLOCK)
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=2m", "none") as folder:
        target = image(folder / "target", 10 * BLOCK, seed=2)
        os.truncate(target, source.stat().st_size)
        before = target.read_bytes()
        params = {**paths(bench), "target": str(target), "overwrite": True}

        task = await bench.run("copy", **params, **blocks([5, 190]))

        assert code(task) == "ENOSPC"
        assert target.read_bytes() == before
        assert os.listdir(folder) == ["target"]


async def test_what_a_stranger_writes_into_the_target_meanwhile_is_not_lost(
    bench: Bench, autojump_clock: MockClock
) -> None:
    image(bench.folder / "source", SIZE)
    target = image(bench.folder / "target", SIZE, seed=2)
    live = await bench.start("copy", **paths(bench), **blocks([0, 4]), overwrite=True, rate_limit=BLOCK)
    await moved(live, SIZE)
    with target.open("r+b") as file:
        file.write(b"a stranger's")

    assert code(await bench.end(live)) == "TARGET_CHANGED"
    assert target.read_bytes().startswith(b"a stranger's")


@pytest.mark.parametrize("aside", [False, True])
async def test_verify_catches_a_wrong_byte_in_the_blocks(
    aside: bool, bench: Bench, autojump_clock: MockClock
) -> None:
    image(bench.folder / "source", SIZE)
    target = image(bench.folder / "target", SIZE, seed=2)
    if not aside:
        os.link(target, bench.folder / "other")
    before, first = target.read_bytes(), (SIZE if aside else 4 * BLOCK)
    live = await bench.start("copy", **paths(bench), **blocks([1, 4]), overwrite=True, rate_limit=BLOCK)
    await moved(live, first + 2 * BLOCK)
    with (bench.folder / "source").open("r+b") as file:
        file.seek(BLOCK + 7)
        file.write(b"\xff")

    task = await bench.end(live)

    assert code(task) == "VERIFY_FAILED"
    assert task.error is not None
    assert task.error.data[1] == str(BLOCK + 7)
    assert target.read_bytes() == before


BAD: dict[str, tuple[JSON, int, str]] = {
    "no block size": ([[0, 1]], 0, "params.blocks.blocksize"),
    "no pair": ([[0, 1], [1, 2, 3]], BLOCK, "params.blocks.ranges[1]"),
    "negative": ([[0, -1]], BLOCK, "params.blocks.ranges[0]"),
    "past the source's end": ([[0, 1], [8, 2]], BLOCK, "params.blocks.ranges[1]"),
    "far past it": ([[1 << 62, 1]], BLOCK, "params.blocks.ranges[0]"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_range_is_named(what: str, tmp_path: Path) -> None:
    ranges, size, path = BAD[what]
    source, blocks = image(tmp_path / "source", SIZE), {"blocksize": size, "ranges": ranges}
    params = {"source": str(source), "target": f"{tmp_path}/target", "blocks": blocks}

    with pytest.raises(BadParams) as caught:
        copy.check(codec.structure(params, copy.CopyParams))

    assert caught.value.path == path


def test_ranges_are_put_in_order_and_merged() -> None:
    assert merged([(5, 9), (0, 1), (6, 7), (9, 10), (3, 3)]) == ((0, 1), (5, 10))


def test_a_digest_is_of_the_content_whatever_the_chunks_and_the_holes(tmp_path: Path) -> None:
    """In its blocks of 1 MiB: something, then across a border, then nothing, then a bit at the end."""
    size = (4 << 20) + 5000
    data = {10: b"0123456789", (2 << 20) - 1: b"ab", size - 1: b"c"}

    def digest(name: str, *, most: int, holes: bool, data: dict[int, bytes] = data) -> str:
        with (tmp_path / name).open("wb") as file:
            file.write(b"" if holes else bytes(size))
            file.truncate(size)
            for at, content in data.items():
                os.pwrite(file.fileno(), content, at)
        digest = Digest()
        with ExitStack() as files:
            source = open_image(str(tmp_path / name), os.O_RDONLY, files)
            ranges = ((0, (2 << 20) - 1), ((2 << 20) - 1, size))
            transfer = Transfer(source, source, packed(ranges), put=digest.put, sparse=(source.fd,))
            while transfer.unfinished:
                transfer.advance(most)
        return digest.text()

    one = digest("holes", most=1 << 20, holes=True)
    assert digest("zeros", most=10_007, holes=False) == one
    assert digest("elsewhere", most=1 << 20, holes=True, data={**data, size - 1: b"", size - 2: b"c"}) != one
    assert digest("other", most=1 << 20, holes=True, data={**data, 10: b"012345678"}) != one
    assert digest("another block", most=1 << 20, holes=True, data={10: data[10]}) != digest(
        "and another", most=1 << 20, holes=True, data={10 + (1 << 20): data[10]}
    )
