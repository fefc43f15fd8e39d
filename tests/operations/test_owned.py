"""The law of the files that a task makes: what an undo takes away, and what it leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import pytest

from taskd.errors import OsRefusal, Unproven
from taskd.operations.image.owned import Mark, mark_at, remove, replace, unlink
from taskd.operations.image.preimage import restore
from tests.operations.conftest import descriptors, image, loop_device, mounted, needs_root, output
from tests.starved import no_thread

CONNECTIONS = Path("/sys/fs/fuse/connections")


def mark(path: Path) -> Mark:
    found = mark_at(str(path))
    assert found is not None
    return found


@contextmanager
def disk(kind: str, root: Path, point: Path) -> Iterator[None]:
    """The disk in ``root``, made where there is none yet, mounted at ``point``."""
    if shutil.which(f"mkfs.{kind}") is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    image = root / "disk"
    if not image.exists():
        with image.open("wb") as file:
            file.truncate(320 << 20)
        output(f"mkfs.{kind}", "-q", image)
    with loop_device(image) as node, mounted(point, str(node)):
        yield


def test_a_file_with_the_mark_is_removed_and_again_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.write_text("content")
    home, own = mark(tmp_path), mark(path)

    for _ in range(2):
        remove(str(path), home, own)
        assert not path.exists()


def test_a_large_file_that_is_removed_is_let_go_of_also_where_there_is_no_thread_for_that(tmp_path: Path) -> None:
    path = tmp_path / "part"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 17 << 20)
    home, own = mark(tmp_path), mark(path)
    before = descriptors()

    with no_thread():
        remove(str(path), home, own)

    assert not path.exists()
    assert descriptors() <= before


@needs_root
def test_a_removal_that_is_refused_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.write_text("content")
    home, own = mark(tmp_path), mark(path)
    output("chattr", "+i", tmp_path)
    try:
        with pytest.raises(OsRefusal, match=f"{path}: Operation not permitted"):
            remove(str(path), home, own)
    finally:
        output("chattr", "-i", tmp_path)


def test_a_file_of_a_stranger_under_a_used_inode_number_stays(tmp_path: Path) -> None:
    """An inode number is reused at once by some filesystems; the generation in the mark tells."""
    path = tmp_path / "part"
    for _ in range(20):
        path.write_text("ours")
        home, own = mark(tmp_path), mark(path)
        path.unlink()
        path.write_text("a stranger's")

        remove(str(path), home, own)

        assert path.read_text() == "a stranger's"


def test_a_mark_outlives_a_reboot_that_renumbers_the_filesystem(tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.write_text("content")
    home, own = mark(tmp_path), mark(path)
    assert own.handle is not None, "the filesystem of the tests gives no file handles"

    remove(str(path), Mark(home.dev + 1, home.ino, home.handle), Mark(own.dev + 1, own.ino, own.handle))

    assert not path.exists()


def test_without_handles_device_and_inode_decide_on_one_mount() -> None:
    assert Mark(1, 2, None, "boot").same(Mark(1, 2, None, "boot"))
    assert not Mark(1, 2, None, "boot").same(Mark(1, 2, None, "another"))
    # A filesystem that has handles, and no name: what is mounted next may have the same numbers.
    assert not Mark(1, 2, None, "boot").same(Mark(1, 2, "x"))
    # As a journal of earlier days has them: without a name, and of vfat with a handle.
    assert Mark(1, 2).same(Mark(1, 2, None, "boot"))
    assert not Mark(1, 2, "x").same(Mark(1, 2, None, "boot"))
    assert Mark(1, 2).same(Mark(1, 2, "x"))
    assert not Mark(1, 2).same(Mark(2, 2))
    assert not Mark(1, 2, "x").same(Mark(1, 2, "y"))
    assert not Mark(1, 2).same(None)


def test_without_a_mark_only_what_an_exclusive_create_leaves_is_removed(tmp_path: Path) -> None:
    home, path = mark(tmp_path), tmp_path / "part"

    path.touch(mode=0o600)
    remove(str(path), home, None)
    assert not path.exists()

    path.touch(mode=0o644)
    remove(str(path), home, None)
    assert path.exists()

    path.chmod(0o600)
    path.write_text("content")
    remove(str(path), home, None)
    assert path.exists()

    path.unlink()
    path.symlink_to("nowhere")
    remove(str(path), home, None)
    assert path.is_symlink()


@needs_root
def test_on_a_filesystem_that_is_not_mounted_nothing_is_known_to_be_gone(tmp_path: Path) -> None:
    point = tmp_path / "storage"
    with mounted(point, "-t", "tmpfs", "none"):
        (point / "folder").mkdir()
        path = point / "folder" / "part"
        path.write_text("content")
        home, own = mark(point / "folder"), mark(path)
    with pytest.raises(Unproven):
        remove(str(path), home, own)


@needs_root
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_another_disk_at_the_place_of_the_tasks_proves_nothing_gone(kind: str, tmp_path: Path) -> None:
    """The roots of any two have one inode number and generation."""
    for name in ("ours", "another", "backup"):
        (tmp_path / name).mkdir()
    point = tmp_path / "backup"
    path = point / ".taskd-1.part"
    with disk(kind, tmp_path / "ours", point):
        path.write_text("content")
        home, own = mark(point), mark(path)
    if home.fs is None:
        pytest.skip("this kernel does not tell its uuid")
    with disk(kind, tmp_path / "another", point):
        path.write_text("a stranger's")
        with pytest.raises(Unproven, match="not mounted here"):
            remove(str(path), home, own)
        assert path.read_text() == "a stranger's"


@needs_root
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_the_same_disk_at_another_device_is_known_again(kind: str, tmp_path: Path) -> None:
    for name in ("ours", "backup"):
        (tmp_path / name).mkdir()
    point = tmp_path / "backup"
    path = point / ".taskd-1.part"
    with disk(kind, tmp_path / "ours", point):
        path.write_text("content")
        home, own = mark(point), mark(path)
    (tmp_path / "first").write_bytes(bytes(1 << 20))
    with ExitStack() as others:
        for _ in range(20):
            # It may have been somebody else's number that is free now: then that is taken, too.
            others.enter_context(loop_device(tmp_path / "first"))
            with disk(kind, tmp_path / "ours", point):
                moved = mark(point).dev != home.dev or kind == "btrfs"  # whose numbers are of no device
                if moved:
                    remove(str(path), home, own)
                    assert not path.exists()
                    break
    assert moved


def test_a_part_file_that_nothing_tells_from_the_tasks_is_owed(tmp_path: Path) -> None:
    """On a filesystem without handles an inode may have another number after a reboot."""
    path = tmp_path / ".taskd-1.part"
    path.write_text("content")
    home, own = mark(tmp_path), mark(path)

    with pytest.raises(Unproven, match="cannot be told"):
        remove(str(path), home, Mark(own.dev, own.ino + 1))

    assert path.read_text() == "content"


def test_without_handles_what_has_the_targets_name_is_a_strangers_only_where_the_part_has_its_own(
    tmp_path: Path,
) -> None:
    part, target = tmp_path / ".taskd-1.part", tmp_path / "target"
    part.write_text("content")
    target.write_text("a stranger's, or under another number the task's")
    home, own = mark(tmp_path), attrs.evolve(mark(part), handle=None)

    remove(str(target), home, own, part.name)
    part.unlink()
    with pytest.raises(Unproven, match="cannot be told"):
        remove(str(target), home, own, part.name)

    assert target.exists()


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    """Where FUSE is mounted, and the kernel shows its connections."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("to mount FUSE takes root, and a kernel that has it")
    with ExitStack() as mounts:
        if not os.path.ismount(CONNECTIONS):
            mounts.enter_context(mounted(CONNECTIONS, "-t", "fusectl", "none"))
        (tmp_path / "point").mkdir()
        yield tmp_path / "point"


@contextmanager
def fuse(point: Path, files: Mapping[str, tuple[int, str]], *words: str) -> Iterator[None]:
    command = [sys.executable, "-m", "tests.operations.fuse", str(point), json.dumps(files), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"mounted\n"
        try:
            yield
        finally:
            output("umount", point)
    assert server.returncode == 0


def test_on_fuse_a_file_is_removed_as_long_as_it_is_mounted(point: Path) -> None:
    path = point / ".taskd-1.part"
    with fuse(point, {path.name: (2, "half a copy"), "other": (3, "a stranger's")}):
        home, own = mark(point), mark(path)
        for _ in range(2):
            remove(str(path), home, own)
            assert not path.exists()
        assert (point / "other").exists()


@pytest.mark.parametrize("name", [".taskd-1.part", "target"])
@pytest.mark.parametrize(
    "found",
    [{}, {".taskd-1.part": (3, "half a copy")}, {"target": (3, "a copy")}, {"target": (2, "a stranger's")}],
)
async def test_what_is_mounted_next_of_fuse_proves_nothing_whatever_numbers_it_has(
    name: str, found: Mapping[str, tuple[int, str]], point: Path
) -> None:
    """The kernel gives the number of the last mount at once, and the root is always inode 1."""
    for _ in range(20):
        with fuse(point, {name: (2, "half a copy")}):
            home, own = mark(point), mark(point / name)
        with fuse(point, found):
            same = mark(point).dev == home.dev
            with pytest.raises(Unproven, match="not mounted here"):
                remove(str(point / name), home, own, ".taskd-1.part")
            assert {each: (point / each).read_text() for each in found} == {
                each: text for each, (_, text) in found.items()
            }
        if same:  # nobody else mounted or unmounted something in between, of which the numbers are too
            break
    assert same


async def test_what_is_mounted_next_of_fuse_is_not_written_to(point: Path, tmp_path: Path) -> None:
    path, saved = point / "target", image(tmp_path / "saved", 4)
    with fuse(point, {path.name: (2, "the task's")}):
        identity = mark(path).json()
    with fuse(point, {path.name: (2, "a stranger's")}):
        with pytest.raises(Unproven, match="not provably the one"):
            await restore(
                preimage=str(saved),
                file=mark(saved).json(),
                target=str(path),
                identity=identity,
                size=4,
                ranges=[[0, 4]],
            )
        assert path.read_text() == "a stranger's"


@pytest.mark.parametrize("name", [".taskd-1.part", "target"])
def test_a_file_that_has_another_number_by_now_is_owed(name: str, point: Path) -> None:
    """As on FUSE and vfat, where an inode that is forgotten is read in under another."""
    with fuse(point, {name: (2, "half a copy")}, "restless"):
        home, own = mark(point), mark(point / name)
        with pytest.raises(Unproven, match="cannot be told"):
            remove(str(point / name), home, own, ".taskd-1.part")
        assert (point / name).exists()


@needs_root
def test_on_overlayfs_no_mark_outlives_a_reboot(tmp_path: Path) -> None:
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    folders = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    with mounted(tmp_path / "point", "-t", "overlay", "-o", folders, "none") as point:
        path = point / ".taskd-1.part"
        path.write_text("content")
        home, own = mark(point), mark(path)
        assert (home.handle, own.handle) == (None, None), "this overlayfs gives file handles"
        assert home.fs is not None
        before = "another boot"
        with pytest.raises(Unproven, match="not mounted here"):
            remove(str(path), attrs.evolve(home, fs=before), attrs.evolve(own, fs=before))
        assert path.exists()
        remove(str(path), home, own)
        assert not path.exists()


def test_with_its_folder_a_file_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "part"
    path.write_text("content")
    home, own = mark(folder), mark(path)
    path.unlink()
    folder.rmdir()

    remove(str(path), home, own)

    folder.mkdir()
    remove(str(path), home, own)


async def test_replace_is_done_once_and_then_only_synced(tmp_path: Path) -> None:
    part, target = tmp_path / "part", tmp_path / "target"
    part.write_text("new")
    target.write_text("old")
    own = mark(part).json()

    for _ in range(2):
        await replace(str(part), str(target), own)
        assert target.read_text() == "new"
        assert not part.exists()


async def test_replace_never_puts_a_strangers_file_in_place(tmp_path: Path) -> None:
    part, target = tmp_path / "part", tmp_path / "target"
    part.write_text("new")
    target.write_text("old")
    own = mark(part).json()
    with ExitStack() as files:
        files.enter_context(part.open())  # so that the number of its inode is not given again
        part.unlink()
        part.write_text("a stranger's")

        with pytest.raises(Unproven):
            await replace(str(part), str(target), own)

    assert target.read_text() == "old"


async def test_the_verb_understands_what_was_journaled(tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.touch(mode=0o600)
    home = mark(tmp_path).json()
    await unlink(path=str(part), home=home)
    assert os.listdir(tmp_path) == []


@needs_root
@pytest.mark.parametrize("replaced", [False, True], ids=["moved", "moved and replaced"])
def test_in_a_folder_that_was_moved_it_is_found_and_removed(tmp_path: Path, replaced: bool) -> None:
    """To find nothing at the old path proves nothing; the folder's handle opens it wherever it is."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "part"
    path.write_text("content")
    home, own = mark(folder), mark(path)
    folder.rename(tmp_path / "elsewhere")
    if replaced:
        folder.mkdir()

    remove(str(path), home, own)

    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_without_a_handle_a_folder_that_is_another_one_proves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "part"
    path.write_text("content")
    home, own = mark(folder), mark(path)
    folder.rename(tmp_path / "elsewhere")

    with pytest.raises(Unproven, match="no longer the folder"):
        remove(str(path), attrs.evolve(home, handle=None), own)
