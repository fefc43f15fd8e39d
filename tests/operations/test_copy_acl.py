"""``copy`` and access lists: it opens no file to whom its list had kept out."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from taskd.states import State
from tests.operations.conftest import Bench, image, loop_device, needs_root
from tests.operations.test_copy import Params, paths
from tests.operations.test_rights import acl

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
SIZE = 64 * 1024

# A user beside the owner may read and write; the mode says so of the group, which may do nothing.
LIST = acl(60001, may=6)


def listed(path: Path) -> Path:
    """``path``, which now has the list."""
    try:
        os.setxattr(path, ACCESS, LIST)
    except OSError as error:
        pytest.skip(f"no access lists here: {error}")
    assert mode_and_list(path) == (0o660, LIST)
    return path


def mode_and_list(path: Path) -> tuple[int, bytes | None]:
    mode = stat.S_IMODE(path.stat().st_mode)
    return mode, os.getxattr(path, ACCESS) if ACCESS in os.listxattr(path) else None


@pytest.fixture
def params(bench: Bench) -> Params:
    image(bench.folder / "source", SIZE)
    return {**paths(bench), "overwrite": True}


async def test_a_file_that_blocks_are_copied_into_keeps_its_list(bench: Bench, params: Params) -> None:
    target = listed(image(bench.folder / "target", SIZE, seed=2))

    task = await bench.run("copy", **params, blocks={"blocksize": 4096, "ranges": [[1, 1]]})

    assert isinstance(task.result, dict)
    assert task.result["way"] == "replace"
    assert mode_and_list(target) == (0o660, LIST)


async def test_a_file_that_blocks_are_copied_into_gets_no_list_from_its_folder(
    bench: Bench, params: Params
) -> None:
    target = image(bench.folder / "target", SIZE, seed=2)
    listed(bench.folder / "source")  # or skipped
    os.setxattr(bench.folder, DEFAULT, LIST)

    task = await bench.run("copy", **params, blocks={"blocksize": 4096, "ranges": [[1, 1]]})

    assert task.state is State.COMPLETED, task.error
    assert mode_and_list(target) == (0o640, None)


@pytest.mark.parametrize("target", ["new", "old"])
async def test_a_copy_gives_its_group_no_more_than_the_sources_list_does(
    target: str, bench: Bench, params: Params
) -> None:
    listed(bench.folder / "source")
    if target == "old":
        image(bench.folder / "target", SIZE, seed=2)

    task = await bench.run("copy", **params)

    assert task.state is State.COMPLETED, task.error
    assert mode_and_list(bench.folder / "target") == (0o600, None)


@needs_root
async def test_what_a_device_is_copied_over_gives_its_group_no_more_than_its_list_did(
    bench: Bench, params: Params, tmp_path: Path
) -> None:
    target = listed(image(bench.folder / "target", SIZE, seed=2))
    with loop_device(image(tmp_path / "disk", SIZE)) as node:
        task = await bench.run("copy", **{**params, "source": str(node)})

    assert task.state is State.COMPLETED, task.error
    assert mode_and_list(target) == (0o600, None)
