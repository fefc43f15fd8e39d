"""Who is on a connection: the kernel's word for it, and the settings', over a real socket."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from taskd import access, peer, server
from taskd.config import Config
from taskd.dialects.xenapi import XenApi
from taskd.errors import ConfigError
from taskd.listener import listening
from taskd.peer import Peer
from taskd.server import Server
from taskd.store.memory import MemoryStore
from tests.bench import running
from tests.hostile import descriptors
from tests.others import NOBODY, being
from tests.server.conftest import Daemon, Start
from tests.server.conftest import Peer as Client

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become others")

GROUP = next(group for group in grp.getgrall() if group.gr_gid not in (0, NOBODY.pw_gid))


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """One that everybody gets into, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="taskd-test-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def connected(path: str, uid: int, gid: int, groups: Sequence[int]) -> Client:
    sock = socket.socket(socket.AF_UNIX)
    with being(uid, gid, groups):
        sock.connect(path)
    sock.setblocking(False)
    return Client(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))


def test_the_kernel_tells_process_user_and_groups() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer.of(ours.fileno()) == Peer(os.getpid(), os.geteuid(), os.getegid(), frozenset(os.getgroups()))


@as_root
@pytest.mark.parametrize("number", [0, 1, 64, 65, 256, 257, 5000])
def test_all_groups_are_told_however_many(number: int) -> None:
    groups = [*range(100_000, 100_000 + number)]
    with being(NOBODY.pw_uid, NOBODY.pw_gid, groups):
        ours, theirs = socket.socketpair()
    with ours, theirs:
        told = peer.of(ours.fileno())

    assert (told.uid, told.gid, told.groups) == (NOBODY.pw_uid, NOBODY.pw_gid, frozenset(groups))


def test_what_is_no_unix_socket_has_no_peer() -> None:
    with tempfile.TemporaryFile() as file, pytest.raises(OSError, match="non-socket"):
        peer.of(file.fileno())


async def may_see_tokens(client: Client) -> str:
    """``yes``, or the name of the refusal; only an admin may."""
    async with client.stream:
        reply = await client.ask("Token.ls")
    return reply["error"]["message"] if "error" in reply else "yes"


async def asked(daemon: Daemon, uid: int, gid: int, groups: Sequence[int]) -> str:
    return await may_see_tokens(connected(daemon.path, uid, gid, groups))


@as_root
async def test_a_supplementary_group_makes_an_admin_and_the_user_without_it_none(daemon: Start) -> None:
    """Also one after the other: what is remembered of a user is remembered of its groups."""
    nobody, group = (NOBODY.pw_uid, NOBODY.pw_gid), GROUP.gr_gid
    async with daemon(admins=(f"%{GROUP.gr_name}",), socket_mode="0666") as serving:
        assert await asked(serving, *nobody, []) == "Permission_denied"
        assert await asked(serving, *nobody, [group]) == "yes"
        assert await asked(serving, *nobody, []) == "Permission_denied"
        assert await asked(serving, NOBODY.pw_uid, group, []) == "yes"


@as_root
async def test_a_proxy_by_its_group_may_call_nothing(daemon: Start) -> None:
    nobody = (NOBODY.pw_uid, NOBODY.pw_gid)
    async with daemon(proxies=(f"%{GROUP.gr_name}",), socket_mode="0666") as serving:
        client = connected(serving.path, *nobody, [GROUP.gr_gid])
        async with client.stream:
            for method in ("Task.ls", "rpc.discover", "Token.add"):
                reply = await client.ask(method)
                assert reply["error"] == {"code": 1, "message": "Unauthenticated", "data": [access.NO_TOKEN]}
        assert await asked(serving, *nobody, []) == "Permission_denied"


async def test_the_daemons_own_user_may_be_a_proxy_and_is_nobody_then(daemon: Start) -> None:
    own = pwd.getpwuid(os.geteuid()).pw_name
    async with daemon(proxies=(own,)) as serving, serving.peer() as client:
        assert await may_see_tokens(client) == "Unauthenticated"


async def test_whoever_may_have_any_groups_does_not_fill_our_memory(tmp_path: Path) -> None:
    async with running(MemoryStore(), {}, str(tmp_path)) as service:
        ours = Server(Config(), service, XenApi(service))
        for number in range(server.KNOWN + 50):
            await ours._caller(Peer(1, NOBODY.pw_uid, NOBODY.pw_gid, frozenset({number})))
        many = Peer(2, NOBODY.pw_uid, NOBODY.pw_gid, frozenset(range(server.GROUPS + 1)))

        assert (await ours._caller(many)).groups == many.groups
        assert len(ours._known) == server.KNOWN
        assert many.groups not in {groups for _, _, groups in ours._known}


async def test_what_is_remembered_of_a_user_is_not_its_process(tmp_path: Path) -> None:
    async with running(MemoryStore(), {}, str(tmp_path)) as service:
        ours = Server(Config(), service, XenApi(service))
        found = [await ours._caller(Peer(pid, NOBODY.pw_uid, NOBODY.pw_gid)) for pid in (1, 2)]

    assert [(caller.pid, caller.user) for caller in found] == [(1, "nobody"), (2, "nobody")]


@as_root
async def test_the_socket_has_the_mode_and_the_group_of_the_settings(daemon: Start) -> None:
    async with daemon(socket_group=GROUP.gr_name, socket_mode="0620") as serving:
        found = os.stat(serving.path)
        assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (GROUP.gr_gid, 0o620)


async def test_a_group_that_is_none_is_a_reason_not_to_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="socket_group: there is no group 'nobody at all'"):
        with listening(str(tmp_path / "s"), 0o660, "nobody at all"):
            pass


@as_root
async def test_no_user_keeps_out_another_and_nobody_keeps_out_root(
    daemon: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """One who may connect took every connection there was, and root was told that root had them."""
    async with AsyncExitStack() as stack:
        with descriptors(64 + 12 + 16):
            serving = await stack.enter_async_context(daemon(running_tasks=1, socket_mode="0666"))

        async def refused(uid: int) -> object:
            client = connected(serving.path, uid, NOBODY.pw_gid, [])
            await stack.enter_async_context(client.stream)
            reply = await client.ask("Task.ls")
            return (reply["error"]["message"], reply["error"]["data"]) if "error" in reply else None

        assert [await refused(NOBODY.pw_uid) for _ in range(9)] == [None] * 8 + [("Too_many_connections", ["8"])]
        assert [await refused(NOBODY.pw_uid + 1) for _ in range(5)] == [None] * 4 + [
            ("No_connection_left", ["12"])
        ]
        assert [await refused(0) for _ in range(5)] == [None] * 4 + [("No_connection_left", ["16"])]
    assert (
        "connections_per_user is 1024, but RLIMIT_NOFILE, 92, and running_tasks leave 8 to a user" in caplog.text
    )
