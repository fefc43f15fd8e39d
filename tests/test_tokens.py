"""Tokens: who comes in through a proxy, as whom, and when no more."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from taskd import access, dialects
from taskd.dialects.xenapi import XenApi
from taskd.errors import BadParams, DoesNotExist, PermissionDenied, StoreUnavailable, Unauthenticated
from taskd.model import Caller, Time, Token
from taskd.service import Service
from taskd.service.tokens import LONGEST, Tokens
from taskd.store.memory import MemoryStore
from tests.bench import ROOT, running, user
from tests.dialects.client import login, refused

PROXY = Caller(33, 33, 7, "www", frozenset(), proxy=True)

METHODS = dialects.table()


@attrs.define(eq=False)
class FullStore(MemoryStore):
    """Takes no tokens, and lets none go, while it is ``full``."""

    full: bool = False

    async def add_token(self, token: Token) -> None:
        self._check()
        await super().add_token(token)

    async def delete_token(self, id: str) -> bool:
        self._check()
        return await super().delete_token(id)

    def _check(self) -> None:
        if self.full:
            raise StoreUnavailable("it is full")


@pytest.fixture
def store() -> FullStore:
    return FullStore()


@pytest.fixture
async def service(store: FullStore, tmp_path: Path) -> AsyncIterator[Service]:
    async with running(store, {}, str(tmp_path)) as service:
        yield service


def why(tokens: Tokens, peer: Caller, authorization: str | None) -> str:
    with pytest.raises(Unauthenticated) as refusal:
        tokens.who(peer, authorization)
    return refusal.value.why


# Who calls.


async def test_a_proxys_client_is_whom_the_token_says(service: Service) -> None:
    token, secret = await service.tokens.add(ROOT, "ann", ["service", "user", "service"])

    assert service.tokens.who(PROXY, f"Bearer {secret}") == Caller(
        None, None, 7, "ann", frozenset({"service", "user"}), token=token.id
    )
    assert token.roles == ("service", "user")


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER   ", "Bearer+", "bEARER+", " Bearer "])
async def test_a_bearer_is_known_in_any_case_and_as_koodrive_writes_it(service: Service, scheme: str) -> None:
    _, secret = await service.tokens.add(ROOT, "ann", ["user"])

    assert service.tokens.who(PROXY, scheme + secret).user == "ann"


@pytest.mark.parametrize(
    "header", [None, "", "Basic dXNlcjpwdw==", "Digest x", "Bearers x", "HMAC-SHA256 AppId=1", "Bearer-x"]
)
async def test_without_a_token_a_proxy_is_nobody_and_everybody_else_is_who_they_are(
    service: Service, header: str | None
) -> None:
    alice = user("alice")

    assert service.tokens.who(alice, header) is alice
    assert why(service.tokens, PROXY, header) == access.NO_TOKEN


@pytest.mark.parametrize("header", ["Bearer ", "Bearer", "bearer+", "Bearer x"])
async def test_a_token_from_whom_no_proxy_is_is_refused_whatever_it_is(service: Service, header: str) -> None:
    _, secret = await service.tokens.add(ROOT, "ann", ["user"])

    for peer in (user("alice"), ROOT):
        assert "setting proxies" in why(service.tokens, peer, header)
        assert why(service.tokens, peer, f"Bearer {secret}") == why(service.tokens, peer, header)


async def test_what_is_wrong_with_a_token_is_not_told(service: Service, store: FullStore) -> None:
    token, secret = await service.tokens.add(ROOT, "ann", ["user"])
    _, other = await service.tokens.add(ROOT, "bob", ["user"])
    over, old = await service.tokens.add(ROOT, "eve", ["user"], 100.0)
    await store.delete_token(over.id)
    await store.add_token(attrs.evolve(over, expires_at=Time(time.time() - 0.001)))
    await service.tokens.load()
    _, id, random = secret.split("_", 2)

    wrong = [
        f"taskd_{id}_{other.split('_', 2)[2]}",  # somebody else's secret
        f"taskd_{'0' * 8}_{random}",  # an unknown id
        f"taskd_{id}_{random[:-1]}",
        f"taskd_{id}_{random}x",
        f"taskd_{id.upper()}_{random}" if id.upper() != id else "taskd_",
        secret.removeprefix("taskd_"),
        old,  # its time is over
        token.digest,
        f"{secret} ü\0",
        "taskd__",
        "x" * 100_000,
    ]

    assert {why(service.tokens, PROXY, f"Bearer {held}") for held in wrong} == {"the token is not valid"}


async def test_tokens_are_known_after_a_restart(service: Service, store: FullStore) -> None:
    _, secret = await service.tokens.add(ROOT, "ann", ["user"], 1000.0)
    later = Tokens(store)

    assert why(later, PROXY, f"Bearer {secret}") == "the token is not valid"
    await later.load()
    assert later.who(PROXY, f"Bearer {secret}").user == "ann"


async def test_of_the_secret_only_a_digest_is_kept_and_no_answer_has_it(
    service: Service, store: FullStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    made = await METHODS["Token.add"](service, ROOT, {"user": "ann", "roles": ["user"]})
    assert isinstance(made, dict)
    held = str(made["token"])
    random = held.split("_", 2)[2]
    digest = hashlib.sha256(random.encode()).hexdigest()

    assert re.fullmatch(r"taskd_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", held)
    (kept,) = await store.tokens()
    assert (kept.id, kept.digest) == (made["id"], digest)
    listed = await METHODS["Token.ls"](service, ROOT, {})
    del made["token"]
    assert listed == [made]
    for text in (str(listed), repr(kept), repr(service.tokens.who(PROXY, f"Bearer {held}")), caplog.text):
        assert random not in text
        assert digest not in text


# Making and removing.


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"user": "", "roles": ["user"]}, "params.user"),
        ({"user": "taskd:", "roles": ["user"]}, "params.user"),
        ({"user": "a\nb", "roles": ["user"]}, "params.user"),
        ({"user": "a\x7f", "roles": ["user"]}, "params.user"),
        ({"user": "x" * 4097, "roles": ["user"]}, "params.user"),
        ({"user": "ann", "roles": []}, "params.roles"),
        ({"user": "ann", "roles": ["root"]}, "params.roles[0]"),
        ({"user": "ann", "roles": ["user"], "expires_s": 0}, "params.expires_s"),
        ({"user": "ann", "roles": ["user"], "expires_s": -1.5}, "params.expires_s"),
        ({"user": "ann", "roles": ["user"], "expires_s": 1e300}, "params.expires_s"),
        ({"user": "ann"}, "params.roles"),
        ({"user": "ann", "roles": ["user"], "digest": "x"}, "params"),
    ],
)
async def test_a_token_that_cannot_be_is_refused_with_the_field(
    service: Service, params: dict[str, object], path: str
) -> None:
    with pytest.raises(BadParams) as refusal:
        await METHODS["Token.add"](service, ROOT, params)

    assert refusal.value.path == path
    assert await service.tokens.list(ROOT) == ()


async def test_a_token_may_last_a_hundred_years(service: Service) -> None:
    token, secret = await service.tokens.add(ROOT, "ann", ["user"], LONGEST)

    assert token.expires_at == pytest.approx(time.time() + LONGEST, abs=60)
    assert service.tokens.who(PROXY, f"Bearer {secret}").user == "ann"


@pytest.mark.parametrize("roles", [{"user"}, {"service"}, {"user", "service"}])
async def test_tokens_are_for_admins_also_below_the_methods(service: Service, roles: set[str]) -> None:
    token, _ = await service.tokens.add(ROOT, "ann", ["user"])
    someone = attrs.evolve(user("alice"), roles=frozenset(roles))

    with pytest.raises(PermissionDenied):
        await service.tokens.add(someone, "eve", ["admin"])
    with pytest.raises(PermissionDenied):
        await service.tokens.list(someone)
    with pytest.raises(PermissionDenied):
        await service.tokens.remove(someone, token.id)
    assert await service.tokens.list(ROOT) == (token,)


async def test_a_removed_token_lets_nobody_in(service: Service, store: FullStore) -> None:
    token, secret = await service.tokens.add(ROOT, "ann", ["user"])
    kept, other = await service.tokens.add(ROOT, "ann", ["user"])

    assert await METHODS["Token.rm"](service, ROOT, {"id": token.id}) is None

    assert why(service.tokens, PROXY, f"Bearer {secret}") == "the token is not valid"
    assert service.tokens.who(PROXY, f"Bearer {other}").token == kept.id
    assert await store.tokens() == [kept]
    with pytest.raises(DoesNotExist, match=f"there is no token {token.id}"):
        await service.tokens.remove(ROOT, token.id)


async def test_of_two_who_remove_a_token_at_once_one_did(service: Service) -> None:
    token, _ = await service.tokens.add(ROOT, "ann", ["user"])
    outcomes: list[str] = []

    async def remove() -> None:
        try:
            await service.tokens.remove(ROOT, token.id)
        except DoesNotExist:
            outcomes.append("not there")
        else:
            outcomes.append("removed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(remove)
        nursery.start_soon(remove)

    assert sorted(outcomes) == ["not there", "removed"]


async def test_a_store_that_cannot_write_leaves_all_as_it_was(service: Service, store: FullStore) -> None:
    token, secret = await service.tokens.add(ROOT, "ann", ["user"])
    caller = service.tokens.who(PROXY, f"Bearer {secret}")
    store.full = True

    with service.tokens.held(caller) as scope:
        with pytest.raises(StoreUnavailable):
            await service.tokens.remove(ROOT, token.id)
        with pytest.raises(StoreUnavailable):
            await service.tokens.add(ROOT, "bob", ["user"])
        await trio.lowlevel.checkpoint()

    assert not scope.cancelled_caught
    assert service.tokens.who(PROXY, f"Bearer {secret}") == caller
    assert await service.tokens.list(ROOT) == (token,)


async def test_a_cancel_does_not_part_the_store_from_what_is_known(service: Service, store: FullStore) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await service.tokens.add(ROOT, "ann", ["user"])

    assert [*await service.tokens.list(ROOT)] == await store.tokens()


# What goes on for long.


async def under(service: Service, caller: Caller, ended: list[float]) -> None:
    with service.tokens.held(caller) as scope:
        await trio.sleep(10_000)
    if scope.cancelled_caught:
        ended.append(trio.current_time())


async def test_what_goes_on_under_a_token_ends_when_it_is_removed(
    service: Service, autojump_clock: trio.testing.MockClock
) -> None:
    token, secret = await service.tokens.add(ROOT, "ann", ["user"])
    _, other = await service.tokens.add(ROOT, "ann", ["user"])
    start, out, still = trio.current_time(), list[float](), list[float]()
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(under, service, service.tokens.who(PROXY, f"Bearer {secret}"), out)
        nursery.start_soon(under, service, service.tokens.who(PROXY, f"Bearer {other}"), still)
        nursery.start_soon(under, service, user("ann"), still)
        await trio.sleep(5)
        assert out == []
        await service.tokens.remove(ROOT, token.id)

    assert out == [start + 5, start + 5]
    assert still == []


async def test_what_goes_on_under_a_token_ends_when_its_time_is_over(
    service: Service, autojump_clock: trio.testing.MockClock
) -> None:
    _, secret = await service.tokens.add(ROOT, "ann", ["user"], 3600.0)
    start, out = trio.current_time(), list[float]()

    await under(service, service.tokens.who(PROXY, f"Bearer {secret}"), out)

    assert out == [pytest.approx(start + 3600, abs=60)]


async def test_what_would_begin_under_a_token_that_was_just_removed_does_not(service: Service) -> None:
    token, secret = await service.tokens.add(ROOT, "ann", ["user"])
    caller = service.tokens.who(PROXY, f"Bearer {secret}")
    await service.tokens.remove(ROOT, token.id)

    with service.tokens.held(caller) as scope:
        await trio.lowlevel.checkpoint()

    assert scope.cancelled_caught


async def test_nothing_is_kept_of_what_is_no_longer_held(service: Service) -> None:
    _, secret = await service.tokens.add(ROOT, "ann", ["user"])
    caller = service.tokens.who(PROXY, f"Bearer {secret}")
    with service.tokens.held(caller), service.tokens.held(caller):
        pass

    assert service.tokens._under == {}


# XenAPI.


async def test_a_proxy_by_itself_has_no_session(service: Service) -> None:
    api = XenApi(service)

    code, sentence = await refused(api, PROXY, "session.login_with_password", "root", "")

    assert code == "SESSION_AUTHENTICATION_FAILED"
    assert access.NO_TOKEN in sentence


async def test_a_session_is_its_users_by_whatever_token(service: Service) -> None:
    api = XenApi(service)
    held = [(await service.tokens.add(ROOT, name, ["user"]))[1] for name in ("ann", "ann", "bob")]
    first, second, bob = (service.tokens.who(PROXY, f"Bearer {each}") for each in held)
    client = await login(api, first)

    assert await api.call(second, "task.get_all", [client.session]) == []
    assert (await refused(api, bob, "task.get_all", client.session))[0] == "SESSION_INVALID"
    (pool,) = await client("pool.get_all")
    for each in (first, bob):
        await (await login(api, each))("pool.add_to_other_config", pool, "of", each.user)
    assert await client("pool.get_other_config", pool) == {"of": "ann"}
