"""``/metrics`` and ``/healthz`` of a daemon that serves: what calls and refusals leave there, and who may look."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import perf_counter

import attrs
import pytest
import trio

from taskd import operations, server
from taskd.config import Config
from taskd.errors import StoreUnavailable
from taskd.model import LogLine, Task, now
from taskd.registry import Live
from taskd.states import State
from taskd.store.memory import MemoryStore
from tests.bench import ROOT
from tests.counted import calls
from tests.server.conftest import Daemon, Start
from tests.server.sockets import opened
from tests.server.test_http import Reply, Web
from tests.test_metrics import Samples, samples, value


async def got(running: Daemon, path: str, *headers: str) -> Reply:
    async with await trio.open_unix_socket(running.path) as stream:
        return await Web(stream).ask(f"GET {path}", b"", *headers)


async def scraped(running: Daemon) -> Samples:
    reply = await got(running, "/metrics")
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return samples(reply.body)


async def posted(running: Daemon, path: str, body: bytes, method: str = "POST") -> Reply:
    async with await trio.open_unix_socket(running.path) as stream:
        return await Web(stream).ask(f"{method} {path}", body)


def requests(found: Samples) -> dict[tuple[str, str], float]:
    """How many calls there were, by dialect and method."""
    return {
        (dict(labels)["dialect"], dict(labels)["method"]): count
        for (name, labels), count in found.items()
        if name == "taskd_request_seconds_count"
    }


XML = b"<methodCall><methodName>%s</methodName><params>%s</params></methodCall>"
PARAM = b"<param><value><string>%s</string></value></param>"


async def test_every_call_is_counted_by_its_dialect_and_method_and_what_a_peer_makes_up_is_unknown(
    daemon: Start,
) -> None:
    async with daemon() as running, running.peer() as peer:
        await peer.call("Task.list")
        await peer.call("Task.ls")
        await peer.ask("Tasks.list")
        for made_up in ("Task.none", "x" * 1000, "Tâsk"):
            await peer.ask(made_up)
        for message in ({"method": "session.get_all", "params": []}, {"method": "pool.get_all", "params": ["x"]}):
            await peer.send({"jsonrpc": "2.0", "id": 1, **message})
            await peer.reply()
        await peer.send([{"jsonrpc": "2.0", "method": "Task.ls", "id": n} for n in range(3)])
        await peer.reply()
        await posted(running, "/", XML % (b"session.login_with_password", (PARAM % b"x") * 2))
        await posted(running, "/", XML % (b"VM.start", b""))
        await posted(running, "/jsonrpc", json.dumps({"method": "Task.ls", "id": 1}).encode())
        await got(running, "/koodrive/ose/v1/task/list?pageSize=1")
        await got(running, "/koodrive/ose/v1/task/none")
        await got(running, "/api/tasks?itemsPerPage=10&page=0")
        async with opened(running.path, "/api/tasks") as frames:
            for call in ("task.list", "made.up"):
                await frames.send({"call": call, "streamId": "1", "payload": {}})
                await frames.reply()
        found = requests(await scraped(running))

    assert found.pop(("ucloud", "GET /api/tasks")) == 1
    assert found == {
        ("native", "Task.list"): 1,
        ("native", "unknown"): 3,
        ("smapi", "Task.ls"): 5,
        ("ucloud", "Tasks.list"): 1,
        ("ucloud", "task.list"): 1,
        ("ucloud", "unknown"): 1,
        ("xenapi", "unknown"): 2,
        ("xenapi", "pool.get_all"): 1,
        ("xenapi", "session.login_with_password"): 1,
        ("koodrive", "GET /koodrive/ose/v1/task/list"): 1,
        ("koodrive", "GET /koodrive/ose/v1/task/{id}"): 1,
    }


async def test_a_call_that_waits_takes_as_long_as_it_waits(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        task = await peer.call("Task.start", operation="external")
        await peer.call("Task.wait", id=task["id"], timeout_s=0.06)
        began = perf_counter()
        await peer.call("Task.get", id=task["id"])
        passed = perf_counter() - began
        found = await scraped(running)

    assert value(found, "request_seconds_sum", dialect="native", method="Task.wait") >= 0.05
    assert value(found, "request_seconds_bucket", dialect="native", method="Task.wait", le="0.05") == 0
    assert value(found, "request_seconds_bucket", dialect="native", method="Task.wait", le="+Inf") == 1
    assert value(found, "request_seconds_sum", dialect="native", method="Task.get") < passed


@attrs.frozen
class Refused:
    """What is sent, with these settings, how many replies come, and the error that one of them is counted as."""

    settings: dict[str, object]
    sent: tuple[object, ...]
    error: str
    replies: int = 1


START = {"jsonrpc": "2.0", "method": "Task.start", "params": {"operation": "external"}, "id": 1}
WATCH = {"jsonrpc": "2.0", "method": "Task.watch", "params": {}, "id": 1}
LARGE = {**START, "params": {"operation": "external", "label": "x" * 4000}}
LIST = {"jsonrpc": "2.0", "method": "Task.list", "id": 1}
REFUSED = {
    "tasks of an owner": Refused({"tasks_per_owner": 1}, (START, START), "Too_many_tasks", 2),
    "subscriptions": Refused({"subscriptions_per_connection": 1}, ([WATCH, WATCH],), "Too_many_subscriptions"),
    "a reply": Refused({"max_reply_bytes": 65536}, (LARGE, [LIST] * 200), "Reply_too_long", 2),
    "a message": Refused({"max_message_bytes": 1024}, ("x" * 2000,), "Invalid_request"),
    "nesting": Refused({"max_depth": 8}, (b"[" * 9 + b"]" * 9,), "Invalid_request"),
    "a batch": Refused({"max_batch": 1}, ([START, START],), "Invalid_request"),
    "an empty batch": Refused({}, ([],), "Invalid_request"),
    "a member": Refused({}, ([1],), "Invalid_request"),
    "an envelope": Refused({}, ({"method": 1},), "Invalid_request"),
    "no JSON": Refused({}, (b"{]\n",), "Parse_error"),
    "a call": Refused({}, ({**START, "params": {"operation": 1}},), "Bad_params"),
    "a notification": Refused({}, ({"jsonrpc": "2.0", "method": "Task.none"}, LIST), "Unimplemented"),
    "a task": Refused({}, ({**START, "method": "Task.get", "params": {"id": "x"}},), "Does_not_exist"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_refusal_is_counted_by_its_error(daemon: Start, name: str) -> None:
    case = REFUSED[name]
    async with daemon(**case.settings) as running, running.peer() as peer:
        await peer.send(*case.sent)
        for _ in range(case.replies):
            await peer.reply()
        found = await scraped(running)

    counts = {dict(labels)["error"]: n for (name, labels), n in found.items() if name == "taskd_refusals_total"}
    assert counts.keys() == {case.error}
    assert counts[case.error] >= 1


async def test_a_refusal_over_http_is_counted_too(daemon: Start) -> None:
    async with daemon() as running:
        await posted(running, "/", b"<no")
        await posted(running, "/", XML % (b"task.get_record", (PARAM % b"x") * 2))
        await posted(running, "/jsonrpc", b"{]")
        await got(running, "/koodrive/ose/v1/task/none")
        found = await scraped(running)

    assert value(found, "refusals_total", error="Parse_error") == 2
    assert value(found, "refusals_total", error="SESSION_INVALID") == 1
    assert value(found, "refusals_total", error="Does_not_exist") == 1


async def test_connections_are_counted_and_so_is_one_too_many(daemon: Start) -> None:
    async with daemon(connections_per_user=2) as running, running.peer() as first, running.peer() as second:
        await first.call("Task.ls")
        await second.call("Task.ls")
        async with running.peer() as third:
            assert (await third.reply())["error"]["message"] == "Too_many_connections"
        found = samples(await running.service.health.text())

    assert value(found, "connections") == 2
    assert value(found, "refusals_total", error="Too_many_connections") == 1


async def test_there_is_no_name_of_a_user_and_no_text_of_a_task_in_it(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        words = {"label": "my label", "description": "my words", "owner": "bobby", "dbg": "my dbg"}
        task = await peer.call("Task.start", operation="external", **words)
        await peer.call("Task.update", id=task["id"], log=["my log"])
        await peer.ask("Task.get", id="my id")
        text = (await got(running, "/metrics")).body.decode()
        diagnostics = await peer.call("Plugin.diagnostics", dbg="my dbg")

    for told in (text, diagnostics):
        for secret in ("my ", "bobby", "root", task["id"], running.path):
            assert secret not in told


async def test_diagnostics_give_the_same_picture_as_text(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        await peer.call("Task.start", operation="external")
        lines = (await peer.call("Plugin.diagnostics")).splitlines()

    assert "store writable" in lines
    assert "recovery done" in lines
    assert 'taskd_tasks{operation="external",state="running"} 1' in lines
    assert 'taskd_tasks_made_total{operation="external"} 1' in lines
    assert 'taskd_request_seconds_count{dialect="native",method="Task.start"} 1' in lines


async def test_ten_thousand_tasks_are_counted_in_few_calls_each(daemon: Start) -> None:
    async with daemon() as running:
        registry = running.service.registry
        task = Task("", "copy", {}, "root", "", "", now(), state=State.RUNNING)
        for n in range(10_000):
            registry.add(Live(attrs.evolve(task, id=str(n))))

        assert calls(running.service.health.now) < 4 * 10_000
        found = await scraped(running)

    assert value(found, "tasks", operation="copy", state="running") == 10_000


# Whether all is well.


class FullStore(MemoryStore):
    """Cannot write while ``full``."""

    full = False

    async def reserve(self, count: int) -> int:
        if self.full:
            raise StoreUnavailable("database or disk is full")
        return await super().reserve(count)

    async def create(self, task: Task) -> Task:
        if self.full:
            raise StoreUnavailable("database or disk is full")
        return await super().create(task)

    async def write(self, task: Task, *, expect: State, log: Sequence[LogLine] = (), keep: int = 0) -> None:
        if self.full:
            raise StoreUnavailable("database or disk is full")
        await super().write(task, expect=expect, log=log, keep=keep)


@asynccontextmanager
async def over(store: MemoryStore, folder: Path) -> AsyncIterator[Daemon]:
    """A daemon over this store."""
    config = Config(socket=str(folder / "s"), state=str(folder / "state"))
    with server.lock(Path(config.state)):
        async with trio.open_nursery() as nursery:
            service = await nursery.start(partial(server.serve, config, operations.load(), store))
            yield Daemon(config.socket, service, config)
            nursery.cancel_scope.cancel()


async def test_health_tells_what_a_monitor_asks(daemon: Start) -> None:
    began = trio.current_time()
    async with daemon() as running:
        with trio.fail_after(20):
            while running.service.health.recovering:
                await trio.lowlevel.checkpoint()
        reply = await got(running, "/healthz")
        said = reply.json()

    assert reply.status == 200
    assert said.pop("version")
    assert said.pop("revision") >= 0
    assert 0 <= said.pop("loop_lag_s") < trio.current_time() - began
    assert said == {"status": "ok", "unfinished_tasks": 0, "store_writable": True, "recovering": False}


async def test_a_store_that_cannot_write_is_degraded_until_it_can(tmp_path: Path) -> None:
    store = FullStore()
    async with over(store, tmp_path) as running, running.peer() as peer:
        store.full = True
        refused = await peer.ask("Task.start", operation="external")
        assert refused["error"]["message"] == "Store_unavailable"
        reply = await got(running, "/healthz")
        assert (reply.status, reply.json()["status"], reply.json()["store_writable"]) == (503, "degraded", False)
        assert "store not writable" in await peer.call("Plugin.diagnostics")
        assert value(await scraped(running), "refusals_total", error="Store_unavailable") == 1
        store.full = False
        reply = await got(running, "/healthz")
        assert (reply.status, reply.json()["status"], reply.json()["store_writable"]) == (200, "ok", True)


# Who may look.


async def test_through_a_proxy_the_numbers_want_a_token_and_health_does_not(daemon: Start) -> None:
    own = pwd.getpwuid(os.geteuid()).pw_name
    async with daemon(proxies=(own,)) as running:
        _, held = await running.service.tokens.add(ROOT, "ann", ["user"])
        assert (await got(running, "/metrics")).status == 401
        assert (await got(running, "/metrics", "Authorization: Bearer nonsense")).status == 401
        assert (await got(running, "/healthz")).status == 200
        reply = await got(running, "/metrics", f"Authorization: Bearer {held}")
        assert reply.status == 200
        assert value(samples(reply.body), "refusals_total", error="Unauthenticated") == 2
