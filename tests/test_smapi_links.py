"""``taskd-smapi --link`` and ``--unlink``: a folder that xapi-storage-script finds scripts in."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskd.smapi import NAMES
from tests.storage_script import PROGRAM, program


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    folder = tmp_path / "datapath" / "taskd"
    assert program("--link", folder)[0] == 0
    return folder


def test_the_folder_has_every_script(scripts: Path) -> None:
    assert {path.name for path in scripts.iterdir()} == {*NAMES}
    assert {path.readlink() for path in scripts.iterdir()} == {PROGRAM}
    assert [*scripts.parent.iterdir()] == [scripts]


def test_linking_says_what_it_did_and_does_it_once(tmp_path: Path) -> None:
    assert program("--link", "new", cwd=tmp_path) == (0, f"made: {' '.join(NAMES)}\n", "")
    assert program("--link", "new", cwd=tmp_path) == (0, f"there already: {' '.join(NAMES)}\n", "")
    (tmp_path / "new" / "Data.stat").unlink()
    (tmp_path / "new" / "Data.ls").unlink()
    (tmp_path / "new" / "Data.ls").symlink_to("/old/bin/taskd-smapi")

    code, out, _ = program("--link", "new", "data.STAT", "Data.ls", "Task.ls", cwd=tmp_path)

    assert (code, out) == (0, "made: Data.stat\nmade anew: Data.ls\nthere already: Task.ls\n")
    assert {path.readlink() for path in (tmp_path / "new").iterdir()} == {PROGRAM}


def test_a_new_folder_appears_whole(tmp_path: Path) -> None:
    """xapi-storage-script asks a plugin what it is when its folder appears, and never again. So one that was
    left half made beside its place is made whole, and is not there any more."""
    (tmp_path / ".new.part").mkdir()
    (tmp_path / ".new.part" / "Task.ls").symlink_to(PROGRAM)

    assert program("--link", tmp_path / "new")[0] == 0

    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    assert {path.name for path in (tmp_path / "new").iterdir()} == {*NAMES}


@pytest.mark.parametrize("name", ["Data.copy", "data.copy"])
def test_what_is_not_ours_is_left_alone_and_nothing_is_made(tmp_path: Path, name: str) -> None:
    """Also in another case: of two, xapi-storage-script takes the first."""
    (tmp_path / name).write_text("theirs")

    code, out, err = program("--link", tmp_path)

    assert (code, out) == (1, "")
    assert err == f"taskd-smapi: {tmp_path}/{name} is left alone: it is no link to taskd-smapi\n"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert program("--link", tmp_path, "Data.stat") == (0, "made: Data.stat\n", "")


def test_unlinking_leaves_what_is_not_ours(scripts: Path) -> None:
    (scripts / "Data.copy").unlink()
    (scripts / "Data.copy").write_text("theirs")
    (scripts / "Datapath.attach").write_text("theirs")

    code, out, _ = program("--unlink", scripts, "Data.copy", "Data.stat", "data.ls")
    assert (code, out) == (0, "left, not ours: Data.copy\nremoved: Data.stat Data.ls\n")
    assert program("--unlink", scripts)[0] == 0

    assert {path.name for path in scripts.iterdir()} == {"Data.copy", "Datapath.attach"}


def test_unlinking_takes_an_empty_folder_away_and_never_its_parent(scripts: Path) -> None:
    assert program("--unlink", scripts)[0] == 0

    assert [*scripts.parent.iterdir()] == []


@pytest.mark.parametrize("args", ["", "--link", "--link x Volume.create", "--link x --unlink x"])
def test_a_wrong_command_line_does_nothing(tmp_path: Path, args: str) -> None:
    code, out, err = program(*args.split(), cwd=tmp_path)

    assert (code, out) == (2, "")
    assert "usage: taskd-smapi" in err
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("option", ["--link", "--unlink"])
def test_a_folder_that_cannot_be_one_is_named(tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("")

    assert program(option, tmp_path / "file") == (1, "", f"taskd-smapi: {tmp_path}/file: Not a directory\n")
