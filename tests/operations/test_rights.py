"""``copy`` by whoever is no admin: what the kernel grants to the caller, and nothing that the daemon could do."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import MockClock

from taskd.errors import NotAnImage, OsRefusal, PermissionDenied, SourceMissing
from taskd.model import Caller, Rights
from taskd.operations import command, copy
from taskd.runner import credentials, rights
from taskd.states import State
from taskd.store.memory import MemoryStore
from tests.bench import ROOT, by_token, ended, running, user
from tests.operations.conftest import (
    OPERATIONS,
    OTHER,
    USER,
    Bench,
    as_user,
    at_bench,
    given,
    image,
    loop_device,
    mounted,
    moved,
    needs_root,
    output,
)
from tests.operations.test_copy import SIZE, Params, code, paths, slowly
from tests.test_all_or_nothing import in_another_process

pytestmark = needs_root

UID, FOREIGN = 60001, 60002


@pytest.fixture
async def bench(commons: Path) -> AsyncIterator[Bench]:
    """A bench of a user; the folder is the user's, and so is the source in it."""
    async with at_bench(commons, caller=USER) as bench:
        given(bench.folder, UID)
        given(image(bench.folder / "source", SIZE), UID)
        yield bench


async def test_a_users_pre_image_leaves_a_tenth_of_the_room_also_where_others_take_it_meanwhile(
    commons: Path, autojump_clock: MockClock
) -> None:
    small, size = commons / "workspace", 4 << 20
    with mounted(small, "-t", "tmpfs", "-o", "size=16m", "none"):
        async with at_bench(commons, caller=USER) as bench:
            given(bench.folder, UID)
            given(image(bench.folder / "source", size), UID)
            target = given(image(bench.folder / "target", size, seed=2), UID)
            os.link(target, bench.folder / "other")
            before = target.read_bytes()
            blocks = {"blocksize": 4096, "ranges": [[0, size // 4096]]}

            live = await bench.start("copy", **paths(bench), overwrite=True, blocks=blocks, rate_limit=size // 10)
            await moved(live, size // 10)
            (small / "others").write_bytes(bytes(12 << 20))
            task = await bench.service.wait(ROOT, live.task.id)

            assert code(task) == "ENOSPC"
            assert target.read_bytes() == before
            assert os.listdir(small) == ["others"]


# What is granted.


async def test_a_user_copies_what_is_the_users_and_the_new_file_is_too(bench: Bench) -> None:
    task = await bench.run("copy", **paths(bench), verify=True)

    found = (bench.folder / "target").stat()
    assert task.state is State.COMPLETED, task.error
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (UID, UID, 0o640)


async def test_a_supplementary_group_counts(bench: Bench, commons: Path) -> None:
    shared = commons / "shared"
    shared.mkdir()
    given(shared, 0, 777).chmod(0o770)
    given(image(shared / "source", SIZE), FOREIGN, 777)
    params: Params = {"source": f"{shared}/source", "target": f"{shared}/target"}

    with pytest.raises(OsRefusal):
        await bench.run("copy", **params)
    member = attrs.evolve(bench, caller=user("60001", UID, 777))
    task = await member.run("copy", **params)

    assert task.state is State.COMPLETED, task.error
    assert (shared / "target").stat().st_uid == UID


async def test_an_acl_counts(bench: Bench, commons: Path) -> None:
    source = image(commons / "private", SIZE)
    source.chmod(0o600)
    with pytest.raises(OsRefusal):
        await bench.run("copy", **{**paths(bench), "source": str(source)})
    try:
        os.setxattr(source, "system.posix_acl_access", acl(UID))
    except OSError as error:
        pytest.skip(f"no access lists here: {error}")

    assert (await bench.run("copy", **{**paths(bench), "source": str(source)})).state is State.COMPLETED


def acl(uid: int, may: int = 4) -> bytes:
    """That user may read, beside the owner, and the group may not: as linux/posix_acl_xattr.h writes acl(5)."""
    nobody = 0xFFFFFFFF
    rows = ((1, 6, nobody), (2, may, uid), (4, 0, nobody), (16, may, nobody), (32, 0, nobody))
    return (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + rights.to_bytes(2, "little") + id.to_bytes(4, "little")
        for tag, rights, id in rows
    )


async def test_an_own_file_is_replaced_and_one_with_two_names_written_in_place(bench: Bench) -> None:
    """The pre-image of the latter is in the workspace, which is the daemon's own."""
    target = given(image(bench.folder / "target", SIZE, seed=2), UID)
    blocks = {"blocksize": 4096, "ranges": [[1, 2]]}
    params = {**paths(bench), "overwrite": True, "blocks": blocks}

    aside = await bench.run("copy", **params)
    os.link(target, bench.folder / "other")
    in_place = await bench.run("copy", **params)
    whole = await bench.run("copy", **{**params, "blocks": None})

    ways = [task.result["way"] for task in (aside, in_place, whole) if isinstance(task.result, dict)]
    assert ways == ["replace", "in_place", "replace"]
    assert target.read_bytes() == (bench.folder / "source").read_bytes()
    assert target.stat().st_uid == UID


async def test_a_folder_that_may_be_written_and_not_read_is_enough(bench: Bench, commons: Path) -> None:
    drop = commons / "drop"
    drop.mkdir()
    drop.chmod(0o733)

    task = await bench.run("copy", **{**paths(bench), "target": f"{drop}/target"})

    assert task.state is State.COMPLETED, task.error
    assert os.listdir(drop) == ["target"]


async def test_a_device_is_for_those_whom_its_node_lets(bench: Bench, commons: Path) -> None:
    with loop_device(image(commons / "disk", SIZE, seed=2)) as device:
        given(device, 0, 778)
        device.chmod(0o660)
        node = str(device)
        params = {**paths(bench), "target": node, "overwrite": True}
        for refused in (params, {**paths(bench), "source": node}):
            with pytest.raises(OsRefusal) as caught:
                await bench.run("copy", **refused)
            assert caught.value.code == "EACCES"
        member = attrs.evolve(bench, caller=user("60001", UID, 778))
        task = await member.run("copy", **params)
        assert task.state is State.COMPLETED, task.error
        assert device.read_bytes() == (bench.folder / "source").read_bytes()


async def test_a_cancel_puts_a_device_back_with_the_users_rights(
    bench: Bench, commons: Path, autojump_clock: MockClock
) -> None:
    with loop_device(image(commons / "disk", SIZE, seed=2)) as device:
        given(device, UID).chmod(0o600)
        before = device.read_bytes()
        params = {**slowly(bench), "target": str(device), "overwrite": True}
        live = await bench.start("copy", **params)
        await moved(live, SIZE * 3 // 2)
        assert device.read_bytes() != before

        task = await bench.cancel(live)

        assert task.state is State.CANCELLED, task.error
        assert device.read_bytes() == before


# What is not.


def secret(root: Path) -> Path:
    """A file that is root's alone, in a folder that everybody may look into."""
    path = image(root / "secret", SIZE, seed=9)
    path.chmod(0o600)
    return path


async def refused(bench: Bench, error: type[Exception] = OsRefusal, **params: object) -> str:
    """The code of the refusal; nothing was made and nothing changed."""
    before = {path: (path.lstat(), path.read_bytes()) for path in bench.folder.parent.rglob("*") if path.is_file()}
    with pytest.raises(error) as caught:
        await bench.start("copy", **{**paths(bench), **params})
    after = {path: (path.lstat(), path.read_bytes()) for path in bench.folder.parent.rglob("*") if path.is_file()}
    assert [(p, s.st_ino, s.st_mode, s.st_uid, c) for p, (s, c) in after.items()] == [
        (p, s.st_ino, s.st_mode, s.st_uid, c) for p, (s, c) in before.items()
    ]
    return str(getattr(caught.value, "code", ""))


async def test_what_the_user_may_not_read_is_not_read(bench: Bench, commons: Path) -> None:
    hidden = secret(commons)
    (bench.folder / "link").symlink_to(hidden)
    os.link(hidden, bench.folder / "name")
    data = bench.folder.name
    for source in (
        str(hidden),
        f"{bench.folder}/../secret",
        f"{bench.folder}/../{data}/../secret",
        f"{bench.folder}/link",
        f"{bench.folder}/name",
    ):
        assert await refused(bench, source=source) == "EACCES", source


async def test_what_the_daemon_has_open_is_not_reached_through_proc(bench: Bench, commons: Path) -> None:
    """Everybody may read this file who gets to it; nobody but root gets through its folder, or this daemon."""
    closed = commons / "closed"
    closed.mkdir(mode=0o700)
    inside = image(closed / "file", SIZE)
    inside.chmod(0o666)
    with inside.open("r+b") as file, open_folder(closed) as folder:
        pid, thread = os.getpid(), threading.get_native_id()
        (bench.folder / "link").symlink_to(f"/proc/self/fd/{file.fileno()}")
        for path in (
            f"/proc/self/fd/{file.fileno()}",
            f"/dev/fd/{file.fileno()}",
            f"/proc/{pid}/fd/{file.fileno()}",
            f"/proc/self/task/{thread}/fd/{file.fileno()}",
            f"/proc/self/fd/{folder}/file",
            f"/proc/self/root{inside}",
            f"/proc/{pid}/root{inside}",
            f"/proc/1/root{inside}",
            f"{bench.folder}/link",
        ):
            assert await refused(bench, source=path) in ("EACCES", "ELOOP"), path
            assert await refused(bench, target=path, overwrite=True) in ("EACCES", "ELOOP"), path
        assert await refused(bench, target=f"/proc/self/fd/{folder}/new") in ("EACCES", "ELOOP")
        assert await refused(bench, source="/proc/self/maps") == "EACCES"
        assert await refused(bench, target="/proc/thread-self/attr/current", overwrite=True) == "EACCES"


class open_folder:  # noqa: N801  # used as a function
    """A folder that this process has open."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


@pytest.mark.parametrize("blocks", [None, {"blocksize": 4096, "ranges": [[0, 1]]}], ids=["whole", "blocks"])
async def test_what_the_user_may_not_write_is_not_written(blocks: object, bench: Bench, commons: Path) -> None:
    foreign = image(commons / "foreign", SIZE, seed=9)
    foreign.chmod(0o644)
    os.link(foreign, bench.folder / "name")
    (bench.folder / "link").symlink_to(foreign)
    given(image(bench.folder / "roots own", SIZE, seed=9), 0).chmod(0o600)
    for target in (str(foreign), f"{bench.folder}/name", f"{bench.folder}/link", f"{bench.folder}/roots own"):
        if blocks is None:
            assert await refused(bench, target=target, overwrite=True) in ("EACCES", "EPERM"), target
        else:  # the way in place is tried when it comes to it
            before = foreign.read_bytes()
            task = await bench.run("copy", **{**paths(bench), "target": target}, overwrite=True, blocks=blocks)
            assert code(task) in ("EACCES", "EPERM"), target
            assert foreign.read_bytes() == before


async def test_no_file_is_made_where_the_user_may_make_none(bench: Bench, commons: Path) -> None:
    assert await refused(bench, target=f"{commons}/new") == "EACCES"
    assert await refused(bench, target=f"{bench.folder}/../new") == "EACCES"
    assert await refused(bench, target=f"{bench.workspace}/new") == "EACCES"


async def test_a_foreign_file_that_may_be_written_is_not_replaced_but_written_in_place(bench: Bench) -> None:
    """What replaces it could not be given its owner; in place it keeps him."""
    target = given(image(bench.folder / "target", SIZE, seed=2), FOREIGN)
    target.chmod(0o666)
    inode = target.stat().st_ino

    assert await refused(bench, overwrite=True) == "EPERM"
    blocks = {"blocksize": SIZE, "ranges": [[0, 1]]}
    task = await bench.run("copy", **paths(bench), overwrite=True, blocks=blocks)

    assert task.state is State.COMPLETED, task.error
    found = target.stat()
    assert target.read_bytes() == (bench.folder / "source").read_bytes()
    assert (found.st_ino, found.st_uid, stat.S_IMODE(found.st_mode)) == (inode, FOREIGN, 0o666)


async def test_in_a_sticky_folder_a_foreign_file_is_not_replaced(bench: Bench, commons: Path) -> None:
    sticky = commons / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    target = given(image(sticky / "target", SIZE, seed=2), FOREIGN)
    target.chmod(0o666)

    assert await refused(bench, target=str(target), overwrite=True) == "EPERM"


async def test_a_set_user_id_file_is_not_written_in_place(bench: Bench) -> None:
    """The kernel takes the bit off when it is written to, and no undo could put it back."""
    target = given(image(bench.folder / "target", SIZE, seed=2), FOREIGN)
    target.chmod(0o4777)
    blocks = {"blocksize": SIZE, "ranges": [[0, 1]]}

    task = await bench.run("copy", **paths(bench), overwrite=True, blocks=blocks)

    assert code(task) == "EPERM"
    assert stat.S_IMODE(target.stat().st_mode) == 0o4777


async def test_what_is_no_longer_granted_is_not_done(commons: Path, autojump_clock: MockClock) -> None:
    """Granted when the task was made, and not when its turn comes."""
    async with at_bench(commons, running_tasks=1, caller=USER) as bench:
        given(bench.folder, UID)
        params = slowly(bench, target=f"{bench.folder}/first")
        (bench.folder / "source").chmod(0o644)
        first = await bench.start("copy", **params)
        second = await bench.start("copy", **paths(bench))
        (bench.folder / "source").chmod(0o600)
        await bench.cancel(first)

        assert code(await bench.end(second)) == "EACCES"


async def test_another_user_is_told_nothing_of_a_private_folder(bench: Bench) -> None:
    bench.folder.chmod(0o700)
    stranger = attrs.evolve(bench, caller=OTHER)
    for name in ("source", "no such file"):
        assert await refused(stranger, source=f"{bench.folder}/{name}") == "EACCES"


async def test_kinds_that_are_no_image_are_refused_as_ever(bench: Bench) -> None:
    os.mkfifo(given(bench.folder, UID) / "fifo")
    await refused(bench, NotAnImage, source=f"{bench.folder}/fifo")
    await refused(bench, SourceMissing, source=f"{bench.folder}/none")


# How it is done.


async def test_a_thread_has_its_own_rights_again_whatever_happened_in_it() -> None:
    own = await trio.to_thread.run_sync(credentials.worn)
    seen: list[credentials.Credentials] = []

    def fail() -> None:
        seen.append(credentials.worn())
        with rights.own():
            seen.append(credentials.worn())
        seen.append(credentials.worn())
        raise OSError(5, "Input/output error")

    with rights.acting(Rights(UID, FOREIGN, (3, 1))):
        for _ in range(20):
            with pytest.raises(OSError):
                await rights.in_thread(fail)
            # Whichever thread of the pool that was, none is left with anything of it.
            assert await trio.to_thread.run_sync(credentials.worn) == own

    user = credentials.Credentials(UID, FOREIGN, (1, 3))
    assert seen == [user, own, user] * 20
    assert credentials.worn() == own
    assert user.capabilities == (0, 0)


async def test_threads_that_act_at_once_have_each_its_own_rights() -> None:
    barrier = threading.Barrier(8, timeout=20)

    def look() -> int:
        barrier.wait()
        uid = credentials.worn().uid
        barrier.wait()
        return uid

    async def act(uid: int | None) -> None:
        with rights.acting(None if uid is None else Rights(uid, uid)):
            found.append((uid or 0, await rights.in_thread(look)))

    found: list[tuple[int, int]] = []
    async with trio.open_nursery() as nursery:
        for n in range(8):
            nursery.start_soon(act, 60000 + n if n % 2 else None)

    assert all(asked == worn for asked, worn in found)
    assert len(found) == 8


async def test_the_rights_outlive_a_restart_and_no_record_shows_them(commons: Path) -> None:
    store = MemoryStore()
    caller = user("60001", UID, 7, 5)
    async with at_bench(commons, store, caller=caller) as bench:
        given(bench.folder, UID)
        given(image(bench.folder / "source", SIZE), UID)
        live = await bench.start("copy", **paths(bench))
        await bench.end(live)
    kept = await store.get(live.task.id)
    assert kept is not None
    assert kept.rights == Rights(UID, UID, (5, 7))


async def test_a_command_is_never_run_with_the_rights_of_a_user(commons: Path) -> None:
    """Also where somebody lets users start it: a program would have the daemon's."""
    open_to_all = attrs.evolve(command.OPERATION, roles=frozenset({"user"}))
    async with running(MemoryStore(), {"command": open_to_all}, str(commons)) as service:
        task = await service.start(USER, "command", {"argv": ["/bin/touch", f"{commons}/made"]})
        task = await ended(service, task.id)

    assert code(task) == "PERMISSION_DENIED"
    assert not (commons / "made").exists()


async def test_only_admins_start_a_command(commons: Path) -> None:
    async with running(MemoryStore(), {"command": command.OPERATION}, str(commons)) as service:
        with pytest.raises(PermissionDenied):
            await service.start(USER, "command", {"argv": ["/bin/true"]})


def test_a_daemon_that_is_not_root_acts_for_nobody_else(commons: Path) -> None:
    folder = given(commons, UID)
    given(image(folder / "source", SIZE), UID)
    mine = attrs.evolve(ROOT, uid=UID, gid=UID, user="60001")
    params: Params = {"source": f"{folder}/source", "target": f"{folder}/target"}

    async def main() -> None:
        async with running(
            MemoryStore(), OPERATIONS, str(folder / "workspace"), roots=(str(folder), "/tmp")
        ) as service:
            with pytest.raises(PermissionDenied, match="not root"):
                await service.start(OTHER, "copy", params)
            with pytest.raises(PermissionDenied, match="not root"):
                await service.start(by_token("60001"), "copy", {**params, "source": "/tmp/x", "target": "/tmp/y"})
            for n, caller in enumerate((mine, by_token("60001"))):
                task = await service.start(caller, "copy", {**params, "target": f"{folder}/{n}"})
                assert (await ended(service, task.id)).state is State.COMPLETED

    def life() -> None:
        os.setgroups([])
        os.setgid(UID)
        os.setuid(UID)
        trio.run(main)

    assert in_another_process(life) == 0


async def test_with_all_that_root_may_an_admin_copies_what_is_anybodys(commons: Path) -> None:
    async with at_bench(commons, caller=ROOT) as bench:
        given(image(bench.folder / "source", SIZE), FOREIGN).chmod(0o600)
        given(image(bench.folder / "target", 5), UID)
        task = await bench.run("copy", **paths(bench), overwrite=True)

        assert task.state is State.COMPLETED
        assert (bench.folder / "target").stat().st_uid == UID


def test_the_users_of_these_tests_are_strangers_here() -> None:
    """Else what is refused to them here might be granted."""
    assert all(output("sh", "-c", f"getent passwd {uid} || true") == "" for uid in (UID, FOREIGN))
    with as_user(UID), pytest.raises(PermissionError):
        Path("/etc/shadow").read_bytes()
    assert isinstance(USER, Caller)
    assert copy.OPERATION.roles >= USER.roles
