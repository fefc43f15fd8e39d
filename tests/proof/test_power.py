"""Where the power is cut, a task is whole or was never made: samples of the proof, which has teeth."""

from __future__ import annotations

import filecmp
from collections import defaultdict
from pathlib import Path

import pytest

from tests.breakage import ROOT
from tests.proof import Proof, Sample, rotating, wrongs
from tests.proof.disks import FILESYSTEMS, Filesystem, copied, disks, missing
from tests.proof.power import ONCE, TWICE
from tests.proof.syncs import SPARED, SYNCS, Sync, lines_of, missed, syncs_of

needs_disks = pytest.mark.skipif(missing() is not None, reason=str(missing()))

# Another one on each day, of so many: of the scenarios on their filesystems, of those whose recovery is cut too,
# of the syncs; and of the moments of each.
PROOF, AGAIN, SYNC = rotating(19), rotating(39), rotating(13)
MOMENT, MOMENT_AGAIN = rotating(8), rotating(49)

SAMPLES = [
    *((proof, MOMENT) for n, proof in enumerate(ONCE) if PROOF.takes(n)),
    *((proof, MOMENT_AGAIN) for n, proof in enumerate(TWICE) if AGAIN.takes(n)),
]


@needs_disks
@pytest.mark.parametrize(("proof", "sample"), SAMPLES, ids=str)
def test_where_the_power_is_cut_a_task_is_whole_or_was_never_made(proof: Proof, sample: Sample) -> None:
    assert wrongs(proof, sample) == []


@needs_disks
@pytest.mark.parametrize("sync", [sync for n, sync in enumerate(SYNCS) if SYNC.takes(n)], ids=str)
def test_a_sync_that_is_left_out_is_missed(sync: Sync) -> None:
    assert missed(sync) is not None


@pytest.mark.parametrize("sync", SYNCS, ids=str)
def test_what_is_left_out_is_there_once(sync: Sync) -> None:
    assert (ROOT / sync.file).read_text().count(sync.passage) == 1
    assert sync.passage != sync.instead


def test_no_sync_is_forgotten() -> None:
    named: dict[str, set[int]] = defaultdict(set)
    for file, passage in [*((sync.file, sync.passage) for sync in SYNCS), *SPARED]:
        named[file].update(lines_of(file, passage))
    forgotten = [
        f"{file}:{line}"
        for path in (*(ROOT / "taskd").rglob("*.py"), *(ROOT / "examples").rglob("*.py"))
        for file in [str(path.relative_to(ROOT))]
        for line in syncs_of(path)
        if line not in named[file]
    ]

    assert forgotten == []


@needs_disks
@pytest.mark.parametrize("filesystem", FILESYSTEMS, ids=str)
def test_a_copy_of_the_image_is_what_a_shut_down_filesystem_leaves(filesystem: Filesystem, tmp_path: Path) -> None:
    with disks(filesystem, "disk") as (disk,):
        with disk.mounted():
            (disk.folder / "old").write_bytes(b"old")
            disk.sync()
            # In place: what is truncated XFS writes out when it is closed.
            with open(disk.folder / "old", "r+b") as old:
                old.write(b"new")
            (disk.folder / "new").write_bytes(b"new")
            copied(disk.image, tmp_path / "cut")
            disk.shut_down()
        assert filecmp.cmp(tmp_path / "cut", disk.image, shallow=False)
        with disk.mounted():
            assert (disk.folder / "old").read_bytes() == b"old"
            assert not (disk.folder / "new").exists()
