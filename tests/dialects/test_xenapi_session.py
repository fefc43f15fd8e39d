"""XenAPI's sessions, its pool and its host: the kernel says who calls, and there is one host."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from taskd.dialects.xenapi import CLASSES, MESSAGES
from taskd.dialects.xenapi.pool import NOTES
from taskd.dialects.xenapi.sessions import IDLE, LIMIT
from tests.bench import ROOT, user
from tests.dialects.client import Client, login, refused, served


@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("session.login_with_password", ["root", "x"]),
        ("session.login_with_password", ["root", "x", "1.0"]),
        ("session.login_with_password", ["root", "x", "1.0", "a script"]),
        ("session.slave_local_login_with_password", ["root", "x"]),
        ("session.slave_login", ["OpaqueRef:h", "secret"]),
        ("session.slave_local_login", ["secret"]),
        ("session_login_with_password", ["", ""]),
    ],
)
async def test_every_login_opens_a_session_of_the_connections_user(
    tmp_path: Path, method: str, args: list[str]
) -> None:
    """Whatever name and password are said: so does xapi on its Unix socket."""
    async with served(tmp_path) as (_, client):
        alice = user("alice", 1001)
        session = await client.api.call(alice, method, args)
        assert isinstance(session, str)
        ref = await Client(client.api, alice, session)("task.create", "l", "d")

        assert (await client("task.get_other_config", ref))["debug_info:owner"] == "alice"


async def test_logins_are_counted_like_other_calls(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        for args, received in ((["u"], "1"), (["u", "p", "v", "o", "more"], "5")):
            refusal = await refused(client.api, ROOT, "session.login_with_password", *args)
            method = "session.login_with_password"
            assert refusal == ["MESSAGE_PARAMETER_COUNT_MISMATCH", method, "2", received]


@pytest.mark.parametrize("logout", ["session.logout", "session.local_logout", "session_logout"])
async def test_a_logout_ends_the_session(tmp_path: Path, logout: str) -> None:
    async with served(tmp_path) as (_, client):
        assert await client(logout) == ""
        assert await client.refused("task.get_all") == ["SESSION_INVALID", client.session]
        assert await client.refused(logout) == ["SESSION_INVALID", client.session]


async def test_a_session_of_another_user_is_none(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        for caller in (user("mallory", 1001), ROOT):
            thief = Client(client.api, caller, (await login(client.api, user("alice", 1002))).session)
            assert await thief.refused("task.get_all") == ["SESSION_INVALID", thief.session]
            assert await thief.refused("session.logout") == ["SESSION_INVALID", thief.session]
        nobody = Client(client.api, ROOT, "OpaqueRef:NULL")
        assert await nobody.refused("task.get_all") == ["SESSION_INVALID", "OpaqueRef:NULL"]
        assert await refused(client.api, ROOT, "task.get_all", None) == ["FIELD_TYPE_ERROR", "session_id"]


async def test_a_session_ends_after_a_day_without_a_call(autojump_clock: object, tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        for _ in range(3):
            await trio.sleep(IDLE - 1)
            await client("task.get_all")
        await trio.sleep(IDLE + 1)

        assert await client.refused("task.get_all") == ["SESSION_INVALID", client.session]


async def test_a_call_that_waits_keeps_its_session(autojump_clock: object, tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client), trio.open_nursery() as nursery:
        token = (await client("event.from", ["task"], "", 0.0))["token"]
        nursery.start_soon(client, "event.from", ["task"], token, 3 * IDLE)
        await trio.sleep(2 * IDLE)
        await login(client.api)  # which puts idle ones away

        assert await client("task.get_all") == []
        await client("task.create", "l", "")


async def test_the_session_unused_for_longest_goes_when_a_user_opens_too_many(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with served(tmp_path) as (_, client):
        alice = await login(client.api, user("alice", 1001))
        await trio.sleep(1)
        second = await login(client.api)
        await trio.sleep(1)
        await client("task.get_all")
        for _ in range(LIMIT - 1):
            await login(client.api)

        assert len(client.api.sessions) == LIMIT + 1
        assert await second.refused("task.get_all") == ["SESSION_INVALID", second.session]
        assert await client("task.get_all") == await alice("task.get_all") == []


async def test_a_session_does_not_outlive_the_daemon(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, before):
        pass
    async with served(tmp_path) as (_, client):
        orphan = Client(client.api, ROOT, before.session)

        assert await orphan.refused("task.get_all") == ["SESSION_INVALID", before.session]


async def test_there_is_one_pool_of_one_host(tmp_path: Path) -> None:
    async with served(tmp_path) as (service, client):
        ((pool, record),) = (await client("pool.get_all_records")).items()
        ((host, machine),) = (await client("host.get_all_records")).items()
        task = await client("task.create", "l", "")

        assert record["master"] == host == await client("pool.get_master", pool)
        assert await client("session.get_this_host", client.session) == host
        assert await client("task.get_resident_on", task) == host
        assert machine["hostname"] == machine["name_label"] == service.host
        assert isinstance(await client("host.get_API_version_major", host), int)
        assert isinstance(await client("host.get_API_version_minor", host), int)
        for kind, ref, one in (("pool", pool, record), ("host", host, machine)):
            assert await client(f"{kind}.get_all") == [ref]
            assert await client(f"{kind}.get_record", ref) == one
            assert await client(f"{kind}.get_by_uuid", one["uuid"]) == ref
            assert await client(f"{kind}.get_by_name_label", service.host) == [ref]
            for field in one:
                assert await client(f"{kind}.get_{field}", ref) == one[field]
            assert await client.refused(f"{kind}.get_by_uuid", "x") == ["UUID_INVALID", kind, "x"]
            assert await client.refused(f"{kind}.get_record", task) == ["HANDLE_INVALID", kind, task]


async def test_the_pools_other_config_is_a_map_with_an_end(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        (pool,) = await client("pool.get_all")
        await client("pool.add_to_other_config", pool, "k", "v")
        duplicate = await client.refused("pool.add_to_other_config", pool, "k", "w")
        long = await client.refused("pool.add_to_other_config", pool, "long", "v" * NOTES)

        assert duplicate == ["MAP_DUPLICATE_KEY", "pool", "other_config", pool, "k"]
        assert long[:2] == ["INVALID_VALUE", "other_config"]
        assert await client("pool.get_other_config", pool) == {"k": "v"}


async def test_the_list_of_methods_is_what_there_is(tmp_path: Path) -> None:
    """npm's xen-api fetches all records of every class that it finds there."""
    async with served(tmp_path) as (_, client):
        listed = await client.api.call(ROOT, "system.listMethods", [])

    assert isinstance(listed, list)
    assert set(listed) == set(MESSAGES)
    assert {name.partition(".")[0] for name in listed} == CLASSES
    fetched = {name for name in listed if name.endswith(".get_all_records")}
    assert fetched == {"task.get_all_records", "pool.get_all_records", "host.get_all_records"}
