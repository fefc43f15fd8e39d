"""The law of the files that a task makes: what an undo takes away, and what it leaves."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from taskd.errors import OsRefusal, Unproven
from taskd.operations.image.owned import Mark, mark_at, remove, replace, unlink
from tests.operations.conftest import loop_device, mounted, needs_root, output
from tests.starved import no_thread


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
    before = os.listdir("/proc/self/fd")

    with no_thread():
        remove(str(path), home, own)

    assert not path.exists()
    assert os.listdir("/proc/self/fd") == before


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


def test_without_handles_device_and_inode_decide() -> None:
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
        remove(str(path), Mark(home.dev, home.ino), own)
