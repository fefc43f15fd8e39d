"""``copy`` by whoever comes by a token, and so is no user of this machine: beneath the daemon's roots, with the
rights of the user that they belong to.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest

from taskd.errors import FolderMissing, NotAnImage, OsRefusal, PermissionDenied
from taskd.operations import copy
from taskd.operations.image import paths as walking
from taskd.service import Service
from taskd.states import State
from taskd.store.memory import MemoryStore
from tests.bench import by_token, ended, running
from tests.operations.conftest import as_user, given, image, needs_root
from tests.operations.test_copy import SIZE, Params

pytestmark = needs_root

# The owner of the root, and another user.
OWNER, OTHER = 60003, 60002

# It is no user's name that counts: root is one here.
CALLER = by_token("root")


@attrs.frozen(eq=False)
class Rooted:
    """A service with one root, in which there is a source; ``commons`` is the folder that it is in."""

    service: Service
    root: Path
    commons: Path

    async def run(self, source: object = None, target: object = None, **more: object) -> State:
        params: Params = {
            "source": str(source or self.root / "source"),
            "target": str(target or self.root / "target"),
            **more,
        }
        task = await self.service.start(CALLER, "copy", params)
        task = await ended(self.service, task.id)
        assert task.error is None, task.error
        return task.state


@asynccontextmanager
async def rooted(commons: Path, *more: Path, owner: int = OWNER) -> AsyncIterator[Rooted]:
    root = folder(commons / "root", owner)
    given(image(root / "source", SIZE), owner)
    roots = tuple(map(str, (root, *more)))
    async with running(
        MemoryStore(), {"copy": copy.OPERATION}, str(commons / "workspace"), roots=roots
    ) as service:
        yield Rooted(service, root, commons)


@pytest.fixture
async def bench(commons: Path) -> AsyncIterator[Rooted]:
    async with rooted(commons) as bench:
        yield bench


def folder(path: Path, uid: int = OWNER, mode: int = 0o755) -> Path:
    """A new folder of that user."""
    path.mkdir()
    path.chmod(mode)
    return given(path, uid)


async def test_beneath_a_root_a_copy_belongs_to_the_user_that_the_root_does(bench: Rooted) -> None:
    target = folder(bench.root / "deep") / "target"

    assert await bench.run(target=target, verify=True) is State.COMPLETED
    assert await bench.run(target=target, overwrite=True) is State.COMPLETED

    found = target.stat()
    assert (found.st_uid, found.st_gid) == (OWNER, OWNER)
    assert target.read_bytes() == (bench.root / "source").read_bytes()


async def test_what_is_beneath_no_root_is_refused(bench: Rooted, commons: Path) -> None:
    """Also what only begins like one."""
    near = folder(commons / "root of somebody")
    outside = given(image(near / "source", SIZE), OWNER)
    for source, target in (
        (outside, None),
        (None, near / "target"),
        ("/etc/passwd", None),
        ("source", None),
        (f"{commons}/./root/source", None),
    ):
        with pytest.raises(PermissionDenied, match="is not beneath one of the daemon's roots"):
            await bench.run(source, target)
    with pytest.raises(OsRefusal):
        await bench.run(target=bench.root)


async def test_a_way_out_of_a_root_is_none(bench: Rooted, commons: Path) -> None:
    """By ``..`` or by a link, at the end or in the middle; the root's owner could go there."""
    outside = folder(commons / "outside")
    given(image(outside / "file", SIZE), OWNER)
    with as_user(OWNER):
        (bench.root / "folder").symlink_to(outside)
        (bench.root / "file").symlink_to(outside / "file")
        (bench.root / "above").symlink_to("../outside")
    before = sorted(os.listdir(outside))
    for way in ("../outside/file", "folder/file", "file", "above/file", "./../root/../outside/file"):
        with pytest.raises((OsRefusal, NotAnImage)):
            await bench.run(source=f"{bench.root}/{way}")
        with pytest.raises((OsRefusal, NotAnImage)):
            await bench.run(target=f"{bench.root}/{way}", overwrite=True)
    for way in ("../outside/new", "folder/new", "above/new", ".."):
        with pytest.raises((OsRefusal, NotAnImage, FolderMissing)):
            await bench.run(target=f"{bench.root}/{way}", overwrite=True)
    assert sorted(os.listdir(outside)) == before


async def test_no_link_is_followed_that_stays_beneath_the_root_either(bench: Rooted) -> None:
    """Whoever owns a folder there would say with it where somebody else's task goes."""
    private = folder(bench.root / "private", mode=0o700)
    given(image(private / "file", SIZE), OWNER)
    other = folder(bench.root / "other's", OTHER)
    with as_user(OTHER):
        (other / "file").symlink_to("../private/file")
        (other / "folder").symlink_to("../private")
    for path in (other / "file", other / "folder" / "file"):
        with pytest.raises(OsRefusal):
            await bench.run(source=path)
        with pytest.raises(OsRefusal):
            await bench.run(target=path, overwrite=True)


@pytest.mark.parametrize("blocks", [None, {"blocksize": 4096, "ranges": [[0, 1]]}], ids=["whole", "blocks"])
async def test_a_file_with_several_names_is_neither_source_nor_target(
    blocks: object, bench: Rooted, commons: Path
) -> None:
    """One of them may be elsewhere."""
    outside = given(image(folder(commons / "outside") / "file", SIZE, seed=2), OWNER)
    os.link(outside, bench.root / "name")
    before = outside.read_bytes()

    with pytest.raises(OsRefusal, match="several names"):
        await bench.run(source=bench.root / "name")
    if blocks is None:
        with pytest.raises(OsRefusal, match="several names"):
            await bench.run(target=bench.root / "name", overwrite=True)
    else:  # the way in place is tried when it comes to it
        params = {"source": f"{bench.root}/source", "target": f"{bench.root}/name", "overwrite": True}
        task = await bench.service.start(CALLER, "copy", {**params, "blocks": blocks})
        task = await ended(bench.service, task.id)
        assert task.error is not None
        assert "several names" in task.error.message
    assert outside.read_bytes() == before


@pytest.mark.parametrize("protected", [False, True])
async def test_where_hard_links_are_not_protected_a_folder_that_others_write_to_is_no_place(
    protected: bool, bench: Rooted, commons: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name in it may have come from anywhere, and the file's other names may be gone by now."""
    setting = commons / "protected_hardlinks"
    setting.write_text(f"{int(protected)}\n")
    monkeypatch.setattr(walking, "_PROTECTED", str(setting))
    foreign, shared = folder(bench.root / "foreign", OTHER), folder(bench.root / "shared", mode=0o775)
    for place in (foreign, shared):
        given(image(place / "file", SIZE), OWNER)
        if protected:
            copied = bench.root / f"from {place.name}"
            assert await bench.run(source=place / "file", target=copied) is State.COMPLETED
        else:
            with pytest.raises(OsRefusal, match="others may write to its folder"):
                await bench.run(source=place / "file")
            with pytest.raises(OsRefusal, match="others may write to its folder"):
                await bench.run(target=place / "new")


async def test_what_the_roots_owner_may_not_do_is_refused(bench: Rooted) -> None:
    """The daemon could, and so could the admin who named the root."""
    for uid in (0, OTHER):
        private = given(image(bench.root / f"private {uid}", SIZE), uid)
        private.chmod(0o600)
        with pytest.raises(OsRefusal, match="Permission denied"):
            await bench.run(source=private)
        with pytest.raises(OsRefusal, match="Permission denied"):
            await bench.run(target=private, overwrite=True)


async def test_in_a_root_of_roots_a_task_is_roots_but_has_none_of_its_powers(commons: Path) -> None:
    async with rooted(commons, owner=0) as bench:
        assert await bench.run() is State.COMPLETED
        assert (bench.root / "target").stat().st_uid == 0
        given(image(bench.root / "other's", SIZE), OTHER).chmod(0o600)
        with pytest.raises(OsRefusal, match="Permission denied"):
            await bench.run(source=bench.root / "other's")


async def test_a_copy_from_one_root_to_another_is_one_users(commons: Path) -> None:
    same, other = folder(commons / "same"), folder(commons / "different", OTHER)
    async with rooted(commons, same, other) as bench:
        assert await bench.run(target=same / "target") is State.COMPLETED
        with pytest.raises(PermissionDenied, match="belong to different users"):
            await bench.run(target=other / "target")


async def test_without_roots_a_token_copies_nothing(commons: Path) -> None:
    async with running(MemoryStore(), {"copy": copy.OPERATION}, str(commons / "workspace")) as service:
        with pytest.raises(PermissionDenied):
            await service.start(CALLER, "copy", {"source": "/a", "target": "/b"})


async def test_an_operation_that_does_not_say_its_paths_is_not_for_tokens(commons: Path) -> None:
    silent = attrs.evolve(copy.OPERATION, paths=None)
    async with running(MemoryStore(), {"copy": silent}, str(commons / "workspace"), roots=("/",)) as service:
        with pytest.raises(PermissionDenied, match="start copy by a token"):
            await service.start(CALLER, "copy", {"source": "/a", "target": "/b"})


async def test_a_root_that_is_gone_is_told(commons: Path) -> None:
    async with rooted(commons) as bench:
        bench.root.rename(commons / "elsewhere")
        with pytest.raises(PermissionDenied, match="No such file"):
            await bench.run()
