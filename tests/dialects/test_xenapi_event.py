"""XenAPI's class ``event``: nothing is missed, nothing is told twice over, and nobody sees what is not theirs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from taskd.config import Config
from taskd.dialects.xenapi import XenApi, event
from taskd.dialects.xenapi.event import Subscription, Token
from taskd.dialects.xenapi.task import shown
from taskd.errors import XenApiError
from taskd.operations.external import OPERATION
from taskd.registry import Feed
from taskd.server import forget_old
from taskd.store.memory import MemoryStore
from tests.bench import ROOT, user
from tests.dialects.client import Client, login, served
from tests.dialects.cloud import UCLOUD, stepped
from tests.dialects.test_xenapi_task import EXAMPLE
from tests.stores import SlowStore

COUNT = "valid_ref_counts"

ALICE = user("alice")


def told(reply: Any) -> list[tuple[str, str]]:
    """What happened to which object."""
    return [(event["operation"], event["ref"]) for event in reply["events"]]


async def now(client: Client) -> str:
    """The token of this moment."""
    token = (await client("event.from", ["*"], "", 0.0))["token"]
    assert isinstance(token, str)
    return token


async def test_the_first_call_adds_everything_there_is(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        refs = [await client("task.create", str(n), "") for n in range(3)]
        await client("task.set_status", refs[0], "success")
        reply = await client("event.from", ["task"], "", 30.0)

        assert told(reply) == [("add", ref) for ref in refs]
        assert [event["snapshot"] for event in reply["events"]] == [
            await client("task.get_record", ref) for ref in refs
        ]
        assert reply[COUNT] == {"task": 3}


async def test_an_event_has_xapis_shape(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        token = await now(client)
        ref = await client("task.create", "l", "d")
        added = (await client("event.from", ["task"], token, 0.0))["events"]
        token = await now(client)
        await client("task.set_status", ref, "success")
        ended, token = (await client("event.from", ["task"], token, 0.0))["events"], await now(client)
        await client("task.destroy", ref)
        deleted = (await client("event.from", ["task"], token, 0.0))["events"]

    assert set(added[0]) == set(ended[0]) == {"id", "timestamp", "class", "operation", "ref", "snapshot"}
    assert isinstance(added[0]["id"], str)
    assert (added[0]["timestamp"], added[0]["class"]) == ("0.0", "task")
    assert set(deleted[0]) == {"id", "timestamp", "class", "operation", "ref"}


async def test_each_object_has_one_event_in_the_order_of_adds_mods_dels(tmp_path: Path) -> None:
    """But for a task whose last snapshot was not told yet when it was destroyed: it has two."""
    async with served(tmp_path) as (_, client):
        modified, deleted = [await client("task.create", str(n), "") for n in range(2)]
        await client("task.set_status", deleted, "success")
        token = await now(client)
        await client("task.destroy", deleted)
        for progress in (0.1, 0.2, 0.3):
            await client("task.set_progress", modified, progress)
        added = await client("task.create", "added", "")
        await client("task.set_progress", added, 0.5)
        reply = await client("event.from", ["task"], token, 0.0)

        assert told(reply) == [("add", added), ("mod", modified), ("del", deleted)]
        assert [event["snapshot"]["progress"] for event in reply["events"][:2]] == [0.5, 0.3]
        assert reply[COUNT] == {"task": 2}


@pytest.mark.parametrize("status", ["success", "failure", "cancelled"])
async def test_whoever_waits_for_a_task_that_is_destroyed_with_its_end_is_told_how_it_ended(
    tmp_path: Path, autojump_clock: object, status: str
) -> None:
    """Both fall into one batch, and whoever waits looks at snapshots (npm's ``watchTask``): a del has none."""
    async with served(tmp_path) as (_, client), trio.open_nursery() as nursery:
        ref, other = [await client("task.create", str(n), "") for n in range(2)]
        await client("task.destroy", ref)
        token = await now(client)
        replies: list[Any] = []

        async def wait(asked: str) -> None:
            replies.append(await client("event.from", [asked], token, 60.1))

        nursery.start_soon(wait, "task")
        nursery.start_soon(wait, f"task/{ref}")
        await trio.sleep(1)
        await client("task.set_status", ref, status)
        await trio.sleep(1)
        await client("task.set_progress", other, 0.5)
        for reply in replies:
            assert told(reply) == [("mod", ref), ("del", ref)]
            assert reply["events"][0]["snapshot"]["status"] == status
            assert reply[COUNT] == {"task": 1}
            assert told(await client("event.from", ["task"], reply["token"], 0.0)) == [("mod", other)]
        assert len(replies) == 2


async def test_what_was_made_and_destroyed_in_between_is_told_with_its_end(tmp_path: Path) -> None:
    """xapi tells nothing of it; but who made it may be waiting for its end."""
    async with served(tmp_path) as (_, client):
        token = await now(client)
        ref = await client("task.create", "l", "d")
        await client("task.destroy", ref)
        await client("task.set_status", ref, "success")
        await trio.testing.wait_all_tasks_blocked()
        reply = await client("event.from", ["task"], token, 0.0)

    assert told(reply) == [("add", ref), ("del", ref)]
    assert reply["events"][0]["snapshot"]["status"] == "success"
    assert reply["token"] > token  # comparable as text
    assert reply[COUNT] == {"task": 0}


async def test_nothing_is_told_before_its_timeout_and_then_nothing(autojump_clock: object, tmp_path: Path) -> None:
    """Also when others' tasks and other classes change meanwhile."""
    async with served(tmp_path) as (_, client), trio.open_nursery() as nursery:
        alice = await login(client.api, user("alice", 1001))
        token = await now(client)
        await alice("event.from", ["task"], token, 0.0)

        async def busy() -> None:
            while True:
                await client("task.create", "root's", "")
                await trio.sleep(1)

        nursery.start_soon(busy)
        began = trio.current_time()
        reply = await alice("event.from", ["task", "VM", "session"], token, 30.0)
        assert trio.current_time() - began >= 30
        nursery.cancel_scope.cancel()

    assert (reply["events"], reply[COUNT]) == ([], {"task": 0})


async def test_a_call_that_waits_is_told_of_what_happens_and_what_comes_with_it(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with served(tmp_path) as (_, client), trio.open_nursery() as nursery:
        token = await now(client)
        replies: list[Any] = []

        async def wait(*classes: str) -> None:
            replies.append(await client("event.from", list(classes), token, 60.1))

        nursery.start_soon(wait, "task")
        nursery.start_soon(wait, "*")
        await trio.sleep(10)
        began = trio.current_time()
        refs = [await client("task.create", str(n), "") for n in range(3)]
        with trio.fail_after(1):
            while len(replies) < 2:
                await trio.sleep(0.01)
        assert trio.current_time() - began < 0.2

    assert [told(reply) for reply in replies] == [[("add", ref) for ref in refs]] * 2


async def test_one_object_may_be_asked_about(autojump_clock: object, tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client), trio.open_nursery() as nursery:
        mine, other = [await client("task.create", str(n), "") for n in range(2)]
        first = await client("event.from", [f"Task/{mine}"], "", 30.0)
        replies: list[Any] = []

        async def wait() -> None:
            replies.append(await client("event.from", [f"task/{mine}"], first["token"], 30.0))

        nursery.start_soon(wait)
        await trio.sleep(1)
        await client("task.set_progress", other, 0.5)
        await trio.sleep(1)
        assert replies == []
        await client("task.set_progress", mine, 0.5)

    assert told(first) == [("add", mine)]
    assert told(replies[0]) == [("mod", mine)]
    assert replies[0][COUNT] == {"task": 2}


@pytest.mark.parametrize("names", [["task/{0}", "task/{1}"], ["pool/{0}", "task/{0}"], ["task/{0}", "TASK/{0}"]])
async def test_an_object_may_be_asked_about_under_two_names(tmp_path: Path, names: list[str]) -> None:
    """Once the call is over, it has left nothing behind."""
    async with served(tmp_path) as (service, client):
        task = await client("task.create", "l", "")
        asked = [name.format(task, task.removeprefix("OpaqueRef:")) for name in names]
        assert told(await client("event.from", asked, "", 0.0)) == [("add", task)]
        assert service.registry.feed._bells == {}


async def test_so_many_may_be_asked_about_in_one_call_and_no_more(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        names = [f"task/OpaqueRef:{n}" for n in range(event.MOST)]
        assert told(await client("event.from", names, "", 0.0)) == []
        refusal = ["INVALID_VALUE", "classes", f"more than {event.MOST}"]
        assert await client.refused("event.from", [*names, "task"], "", 0.0) == refusal


async def test_a_change_between_two_calls_is_never_missed(tmp_path: Path) -> None:
    """Going on from each token, a watcher that keeps what it is told has what there is."""
    async with served(tmp_path) as (_, client):
        kept: dict[str, Any] = {}
        token = ""
        refs: list[str] = []
        for n in range(60):
            refs.append(await client("task.create", str(n), ""))
            await client("task.set_progress", refs[n], 0.5)
            if n % 3 == 0:
                await client("task.set_status", refs[n // 3], "success")
            if n % 6 == 0:
                await client("task.destroy", refs[n // 3])
            if n % 4 == 0:
                reply = await client("event.from", ["*"], token, 0.0)
                token = reply["token"]
                for event in reply["events"]:
                    if event["class"] != "task":
                        continue
                    if event["operation"] == "del":
                        del kept[event["ref"]]
                    else:
                        assert (event["operation"] == "add") == (event["ref"] not in kept)
                        kept[event["ref"]] = event["snapshot"]
                assert kept == await client("task.get_all_records")
                assert reply[COUNT]["task"] == len(kept)


class Passes(trio.abc.Instrument):
    """Counts how often everybody who can go on has had a turn."""

    count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


@pytest.mark.parametrize("known", [False, True], ids=["all there is", "what changed"])
async def test_between_two_records_others_have_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    passes, made = Passes(), list[int]()

    def noted(*args: Any) -> Any:
        made.append(passes.count)
        return shown(*args)

    monkeypatch.setattr("taskd.dialects.xenapi.event.shown", noted)
    async with served(tmp_path) as (_, client):
        trio.lowlevel.add_instrument(passes)
        token = await now(client) if known else ""
        await client("event.register", ["task"])
        refs = [await client("task.create", str(n), "") for n in range(20)]
        assert told(await client("event.from", ["task"], token, 0.0)) == [("add", ref) for ref in refs]
        assert told({"events": await client("event.next")}) == [("add", ref) for ref in refs]

    assert len({*made}) == len(made) == 40


@pytest.mark.parametrize("known", [False, True], ids=["all there is", "what changed"])
async def test_what_happens_while_the_records_are_made_is_told_once(tmp_path: Path, known: bool) -> None:
    """A task is made, another one destroyed, and one changed, from each step of the call on."""
    at = 0
    while True:
        async with served(tmp_path) as (_, client), trio.open_nursery() as nursery:
            token = await now(client) if known else ""
            refs = [await client("task.create", str(n), "") for n in range(5)]
            await client("task.set_status", refs[3], "success")
            replies: list[Any] = []

            async def ask(client: Client = client, token: str = token, replies: list[Any] = replies) -> None:
                replies.append(await client("event.from", ["task"], token, 0.0))

            async def others(client: Client = client, refs: list[Any] = refs) -> None:
                await client("task.set_progress", refs[4], 0.5)
                await client("task.destroy", refs[3])
                refs.append(await client("task.create", "made", ""))

            steps = await stepped(ask(), at, partial(nursery.start_soon, others))
            if at >= steps:
                break
            await trio.testing.wait_all_tasks_blocked()
            replies.append(await client("event.from", ["task"], replies[0]["token"], 0.0))
            kept: dict[str, Any] = {}
            for reply in replies:
                for each in reply["events"]:
                    if each["operation"] == "del":
                        del kept[each["ref"]]
                    else:
                        assert (each["operation"] == "add") == (each["ref"] not in kept)
                        assert kept.get(each["ref"]) != each["snapshot"]
                        kept[each["ref"]] = each["snapshot"]
                assert reply[COUNT]["task"] == len(kept)
            assert kept == await client("task.get_all_records")
        at += 1
    assert at > 5


async def test_a_foreign_task_has_no_events(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        alice = await login(client.api, user("alice", 1001))
        token = (await alice("event.from", ["task"], "", 0.0))["token"]
        ref = await client("task.create", "root's", "")
        own = await alice("task.create", "alice's", "")
        for method, *args in (("set_progress", ref, 0.5), ("set_status", ref, "success"), ("destroy", ref)):
            await client(f"task.{method}", *args)
            for classes in (["*"], ["task"], [f"task/{ref}", "task"]):
                reply = await alice("event.from", classes, token, 0.0)
                assert told(reply) == [("add", own)]
                assert reply[COUNT]["task"] == 1
            for since in ("", token):
                assert told(await alice("event.from", [f"task/{ref}"], since, 0.0)) == []
        assert (await client("event.from", ["task"], token, 0.0))[COUNT] == {"task": 1}  # root sees alice's


@pytest.mark.parametrize("known", [False, True], ids=["all there is", "what changed"])
async def test_a_class_has_the_events_of_what_the_lists_have_and_a_ref_those_of_what_may_be_seen(
    tmp_path: Path, known: bool
) -> None:
    """A service may see what it makes for others. With its class, it is another number of tasks than there are."""
    async with served(tmp_path) as (service, client):
        maker = await login(client.api, UCLOUD)
        token = await now(maker) if known else ""
        await maker("event.register", ["task"])
        alices = f"OpaqueRef:{(await service.start(UCLOUD, 'external', {}, owner='alice')).id}"
        own = await maker("task.create", "its own", "")
        refs = await maker("task.get_all")

        async def asked(*classes: str, by: Client = maker) -> Any:
            reply = await by("event.from", [*classes], token, 0.0)
            return {*told(reply)}, reply[COUNT]["task"]

        assert refs == [own]
        assert await asked("task") == ({("add", own)}, 1)
        assert told({"events": await maker("event.next")}) == [("add", own)]
        assert await asked(f"task/{alices}") == ({("add", alices)}, 1)
        assert await asked("task", f"task/{alices}") == ({("add", own), ("add", alices)}, 1)
        assert await asked("task", by=client) == ({("add", own), ("add", alices)}, 2)


@pytest.mark.parametrize("whole", [False, True], ids=["a ref", "its class"])
async def test_what_begins_while_all_there_is_is_gathered_is_told_by_the_same_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    async with served(tmp_path) as (service, client):
        maker = await login(client.api, UCLOUD)
        alices = f"OpaqueRef:{(await service.start(UCLOUD, 'external', {}, owner='alice')).id}"
        tasks = event._tasks

        async def meanwhile(*args: Any) -> Any:
            async for task in tasks(*args):
                yield task
            await maker("task.set_progress", alices, 0.5)

        monkeypatch.setattr(event, "_tasks", meanwhile)
        reply = await maker("event.from", ["task" if whole else f"task/{alices}"], "", 0.0)
        assert told(reply) == ([] if whole else [("add", alices)])
        assert all(each["snapshot"]["progress"] == 0.5 for each in reply["events"])


async def test_a_token_of_another_run_or_too_old_gives_all_there_is(tmp_path: Path) -> None:
    async with served(tmp_path) as (service, client):
        refs = [await client("task.create", str(n), "") for n in range(3)]
        old = await now(client)
        everything = [("add", ref) for ref in refs]
        service.registry.feed.limit = 2
        for progress in (0.1, 0.2):
            for ref in refs:
                await client("task.set_progress", ref, progress)
        new = await now(client)

        assert told(await client("event.from", ["task"], old, 0.0)) == everything
        assert told(await client("event.from", ["task"], new, 0.0)) == []
        epoch, revision = (int(part) for part in new.split(","))
        for token in (Token(epoch + 1, revision), Token(epoch, revision + 1), Token(0, 0)):
            assert told(await client("event.from", ["task"], str(token), 0.0)) == everything
        assert told(await client("event.from", ["task"], "0,0", 0.0)) == everything


async def test_a_restart_gives_all_there_is_and_later_tokens(tmp_path: Path) -> None:
    store = MemoryStore()
    async with served(tmp_path, store=store) as (_, client):
        ref = await client("task.create", "l", "")
        before = await now(client)
    async with served(tmp_path, store=store) as (_, client):
        reply = await client("event.from", ["task"], before, 0.0)

    assert told(reply) == [("add", ref)]
    assert reply["token"] > before
    assert reply[COUNT] == {"task": 1}


async def test_what_the_retention_forgets_is_told(autojump_clock: object, tmp_path: Path) -> None:
    store = MemoryStore()
    async with served(tmp_path, store=store) as (service, client), trio.open_nursery() as nursery:
        ref = await client("task.create", "l", "")
        await client("task.set_status", ref, "success")
        token = await now(client)
        nursery.start_soon(forget_old, store, lambda: Config(retention_count=0), service.registry.forget)
        reply = await client("event.from", ["task"], token, 30.0)
        nursery.cancel_scope.cancel()

    assert told(reply) == [("del", ref)]
    assert reply[COUNT] == {"task": 0}


@pytest.mark.parametrize("token", ["x", "1", "1,2,3", "-1,1", "1,", "٣,٣", "1," + 21 * "9", " "])
async def test_a_token_that_is_none_is_refused(tmp_path: Path, token: str) -> None:
    async with served(tmp_path) as (_, client):
        assert await client.refused("event.from", ["*"], token, 0.0) == ["EVENT_FROM_TOKEN_PARSE_FAILURE", token]


@pytest.mark.parametrize("name", ["", "/", "task/", "/OpaqueRef:x"])
async def test_a_subscription_that_names_nothing_is_refused(tmp_path: Path, name: str) -> None:
    async with served(tmp_path) as (_, client):
        refusal = ["EVENT_SUBSCRIPTION_PARSE_FAILURE", name]
        assert await client.refused("event.from", ["task", name], "", 0.0) == refusal
        assert await client.refused("event.register", ["task", name]) == refusal
        assert await client.refused("event.from", "task", "", 0.0) == ["FIELD_TYPE_ERROR", "classes"]
        assert await client.refused("event.from", ["task"], "", "soon") == ["FIELD_TYPE_ERROR", "timeout"]


def test_tokens_of_one_run_and_of_later_ones_compare_as_texts() -> None:
    tokens = [Token(0, 0), Token(1, 9), Token(1, 10), Token(1_000_001, 1_000_001)]

    assert sorted(map(str, tokens)) == [*map(str, tokens)]
    assert str(tokens[1]) == "00000000000000000001,00000000000000000009"
    assert [Token.parse(str(token)) for token in tokens] == tokens


def test_a_subscription_takes_a_class_in_any_case_and_a_ref_as_it_is() -> None:
    asked = Subscription.parse(["TASK/OpaqueRef:a", "Pool"])

    assert asked.takes("task", "OpaqueRef:a")
    assert not asked.takes("task", "OpaqueRef:A")
    assert asked.takes("pool", "any")
    assert not asked.table("host")
    with pytest.raises(XenApiError):
        Subscription.parse([""])


# Waking, injecting, and the pool.


async def test_a_logout_wakes_what_waits_in_the_session(autojump_clock: object, tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client), trio.open_nursery() as nursery:
        other = await login(client.api)
        token = await now(client)
        await client("event.register", ["task"])
        woken: list[list[str]] = []

        async def wait(method: str, *args: Any) -> None:
            woken.append(await client.refused(method, *args))

        nursery.start_soon(wait, "event.from", ["task"], token, 600.0)
        nursery.start_soon(wait, "event.next")
        nursery.start_soon(other, "event.from", ["task"], token, 5.0)
        await trio.sleep(1)
        await client("session.logout")
        await trio.testing.wait_all_tasks_blocked()
        assert woken == [["SESSION_INVALID", client.session]] * 2


async def test_inject_gives_the_token_before_an_event_that_is_sure_to_come(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with served(tmp_path) as (_, client):
        ref = await client("task.create", "l", "")
        done = await client("task.create", "l", "")
        await client("task.set_status", done, "success")
        await trio.testing.wait_all_tasks_blocked()
        (pool,) = await client("pool.get_all")
        (host,) = await client("host.get_all")
        for kind, one in (("task", ref), ("Task", done), ("pool", pool), ("host", host)):
            token = await client("event.inject", kind, one)
            reply = await client("event.from", ["*"], token, 30.0)
            assert told(reply) == [("mod", one)]
        for kind, one in (("task", "OpaqueRef:x"), ("pool", host), ("VM", "OpaqueRef:x")):
            assert await client.refused("event.inject", kind, one) == ["HANDLE_INVALID", kind, one]


async def test_a_mark_in_the_pool_comes_back_as_an_event_of_ones_own(
    autojump_clock: object, tmp_path: Path
) -> None:
    """So npm's xen-api sees that it has seen everything before (its ``barrier``)."""
    async with served(tmp_path) as (_, client):
        alice = await login(client.api, user("alice", 1001))
        (pool,) = await client("pool.get_all")
        token = await now(client)
        await client("pool.add_to_other_config", pool, "mark", "1")
        reply = await client("event.from", ["pool"], token, 30.0)

        assert told(reply) == [("mod", pool)]
        assert reply["events"][0]["snapshot"]["other_config"] == {"mark": "1"}
        assert reply[COUNT] == {"pool": 1}
        assert (await alice("event.from", ["pool"], token, 0.0))["events"] == []
        assert await alice("pool.get_other_config", pool) == {}
        await client("pool.remove_from_other_config", pool, "mark")
        assert await client("pool.get_other_config", pool) == {}


# The older way.


async def test_next_tells_what_happened_since_the_last_one(autojump_clock: object, tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client), trio.open_nursery() as nursery:
        assert await client.refused("event.next") == ["SESSION_NOT_REGISTERED", client.session]
        await client("event.register", ["task"])
        refs = [await client("task.create", str(n), "") for n in range(2)]
        events = await client("event.next")
        assert told({"events": events}) == [("add", ref) for ref in refs]
        assert float(events[0]["timestamp"]) > 1_700_000_000

        replies: list[Any] = []

        async def wait() -> None:
            replies.append(await client("event.next"))

        nursery.start_soon(wait)
        await trio.sleep(100)
        assert replies == []
        await client("task.set_progress", refs[0], 0.5)
        await trio.testing.wait_all_tasks_blocked()
        assert told({"events": replies[0]}) == [("mod", refs[0])]
        await client("event.unregister", ["task"])
        await client("event.register", ["host"])
        nursery.start_soon(wait)
        await client("task.set_progress", refs[0], 0.6)
        await trio.sleep(1)
        assert len(replies) == 1
        nursery.cancel_scope.cancel()


async def test_next_says_so_when_events_were_lost_and_goes_on_from_there(tmp_path: Path) -> None:
    async with served(tmp_path) as (service, client):
        service.registry.feed.limit = 2
        await client("event.register", ["*"])
        refs = [await client("task.create", str(n), "") for n in range(4)]
        assert await client.refused("event.next") == ["EVENTS_LOST"]
        await client("task.set_progress", refs[3], 0.5)
        assert told({"events": await client("event.next")}) == [("mod", refs[3])]


# The feed itself.


async def test_the_feed_keeps_the_newest_change_of_so_many_tasks(tmp_path: Path) -> None:
    async with served(tmp_path) as (service, _):
        feed = service.registry.feed
        feed.limit = 3
        start = feed.revision
        tasks = [await service.start(ROOT, "external", {}) for _ in range(5)]
        for _ in range(10):
            await service.update(ROOT, tasks[4].id)

        assert not feed.covers(start)
        changes = feed.since(feed.horizon)
        assert [change.task.id for change in changes] == [task.id for task in tasks[2:]]
        assert [change.revision for change in changes] == sorted(change.revision for change in changes)
        assert feed.count() == feed.count("root") == 5
        assert OPERATION.name == tasks[0].operation


def test_a_task_is_destroyed_once_however_often_it_is_said() -> None:
    """Two that destroy it at once both say so; and a look at it that comes late does not bring it back."""
    feed = Feed()
    feed.begin(1)
    feed.put(1, EXAMPLE, born=True)
    for revision in (2, 3):
        feed.put(revision, EXAMPLE, gone=True)
    feed.put(4, attrs.evolve(EXAMPLE, revision=4))

    assert feed.count() == 0
    (change,) = feed.since(1)
    assert (change.gone, change.revision, change.born) == (True, 4, 1)


async def test_a_call_that_waits_is_woken_by_what_concerns_it_and_by_nothing_else(
    tmp_path: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what others do meanwhile, be it more than the feed keeps, does not make it start afresh."""
    looks = 0

    def changed(*args: Any) -> Any:
        nonlocal looks
        looks += 1
        return look(*args)

    look = event._changed
    monkeypatch.setattr(event, "_changed", changed)
    async with served(tmp_path) as (service, _):
        service.registry.feed.limit = 3
        client, other = await login(XenApi(service), ALICE), await login(XenApi(service), user("bob"))
        replies = [{"token": await now(client), "events": []}]

        async def wait(timeout: float) -> None:
            replies.append(await client("event.from", ["*"], replies[-1]["token"], timeout))

        for timeout in (30.0, 60.0):
            async with trio.open_nursery() as nursery:
                looks = 0
                nursery.start_soon(wait, timeout)
                for _ in range(10):
                    await trio.sleep(1)
                    await other("task.create", "", "")
                    await other("pool.add_to_other_config", await pool(other), str(trio.current_time()), "v")
                if timeout == 60.0:
                    ref = await client("task.create", "mine", "")
            assert looks == 2

        assert [told(reply) for reply in replies] == [[], [], [("add", ref)]]


async def pool(client: Client) -> Any:
    return (await client("pool.get_all"))[0]


async def test_the_older_way_loses_nothing_by_what_others_do(tmp_path: Path, autojump_clock: object) -> None:
    async with served(tmp_path) as (service, _):
        service.registry.feed.limit = 3
        client, other = await login(XenApi(service), ALICE), await login(XenApi(service), user("bob"))
        await client("event.register", ["task"])
        heard: list[Any] = []

        async def wait() -> None:
            heard.extend(await client("event.next"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            for _ in range(10):
                await other("task.create", "", "")
            ref = await client("task.create", "mine", "")
        assert [(each["operation"], each["ref"]) for each in heard] == [("add", ref)]


async def test_a_mark_on_the_desk_wakes_its_owner_also_behind_a_slow_change(
    tmp_path: Path, autojump_clock: object
) -> None:
    store = SlowStore()
    async with served(tmp_path, store=store) as (service, _):
        client, other = await login(XenApi(service), ALICE), await login(XenApi(service), user("bob"))
        slow = await other("task.create", "", "")
        store.held.add(slow.removeprefix("OpaqueRef:"))
        token, replies = await now(client), []

        async def wait() -> None:
            replies.append(await client("event.from", ["pool"], token, 30.0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(other, "task.set_progress", slow, 0.5)
            await store.waiting.wait()
            await client("pool.add_to_other_config", await pool(client), "k", "v")
            await trio.sleep(1)
            store.go.set()
            await trio.sleep(1)
            assert len(replies) == 1
        assert told(replies[0]) == [("mod", await pool(client))]
