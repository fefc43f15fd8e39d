"""Our own words over the wire."""

from __future__ import annotations

import os
import re
import uuid
from functools import partial
from pathlib import Path

import trio

from taskd import codec
from taskd.dialects import table
from tests.bench import ROOT
from tests.server.conftest import Start, daemon

__all__ = ["daemon"]  # the fixture

RECORD = {
    "id", "seq", "revision", "operation", "label", "description", "owner", "processor", "state", "cancellable",
    "cancel_requested", "waits_for", "progress", "params", "result", "error", "residue", "attempt", "created_at",
    "started_at", "finished_at", "resident_on", "debug_info", "status", "speeds",
}  # fmt: skip


async def test_a_record_has_its_fields_and_no_others(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        record = await peer.call(
            "Task.start", operation="external", label="l", description="d", dbg="b", params={"heartbeat_s": 60}
        )

    assert set(record) == RECORD
    assert set(record["progress"]) == {"done", "total", "unit", "fraction", "rate", "eta_s", "moved_at"}
    assert uuid.UUID(record["id"]).version == 4
    assert (record["label"], record["description"], record["debug_info"]) == ("l", "d", "b")
    assert (record["operation"], record["params"]) == ("external", {"heartbeat_s": 60.0})
    assert (record["owner"], record["processor"], record["state"]) == ("root", "root", "running")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["created_at"])
    assert (record["finished_at"], record["error"], record["residue"]) == (None, None, [])


async def test_the_same_request_id_is_the_same_task(daemon: Start) -> None:
    """Also when both come at the same time, and when what was asked has happened already."""
    async with daemon() as running:
        ids: list[str] = []

        async def ask() -> None:
            async with running.peer() as peer:
                ids.append((await peer.call("Task.start", operation="external", request_id="r"))["id"])

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask)
        async with running.peer() as peer:
            await peer.call("Task.complete", id=ids[0])
            again = await peer.call("Task.start", operation="external", request_id="r")
            other = await peer.call("Task.start", operation="external", request_id="r", owner="alice")

    assert set(ids) == {again["id"]}
    assert again["state"] == "completed"
    assert other["id"] != again["id"]


async def test_a_request_id_comes_before_what_would_refuse_it(daemon: Start, tmp_path: Path) -> None:
    """The retry of a copy that is done finds its target there, which is what it wanted."""
    (tmp_path / "source").write_bytes(b"x")
    params = {"source": str(tmp_path / "source"), "target": str(tmp_path / "target")}
    async with daemon() as running, running.peer() as peer:
        first = await peer.call("Task.start", operation="copy", params=params, request_id="r")
        await peer.call("Task.wait", id=first["id"])
        again = await peer.call("Task.start", operation="copy", params=params, request_id="r")
        refused = await peer.ask("Task.start", operation="copy", params=params, request_id="other")

    assert (again["id"], again["state"]) == (first["id"], "completed")
    assert refused["error"]["message"] == "Target_exists"


async def test_a_walk_through_pages_sees_every_task_once(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        made = [(await peer.call("Task.start", operation="external"))["id"] for _ in range(25)]
        for order, expected in (("oldest", made), ("newest", made[::-1])):
            seen: list[str] = []
            cursor = None
            while True:
                page = await peer.call("Task.list", page_size=10, cursor=cursor, order=order)
                seen += [record["id"] for record in page["tasks"]]
                cursor = page["next_cursor"]
                if cursor is None:
                    break
            assert seen == expected


async def test_the_pages_of_a_batch_take_little_more_memory_than_they_are_long(daemon: Start) -> None:
    """Each record kept 8 KiB: the batches of one user had grown the daemon to 8 GiB."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    async with daemon() as running:
        for _ in range(200):
            await running.service.start(ROOT, "external", {})
        ask = partial(table()["Task.list"], running.service, ROOT, {"page_size": 1000})
        before, pages = resident(), [await ask() for _ in range(100)]
        grown = resident() - before

    assert grown < 3 * len(codec.dumps(pages))


async def test_a_list_is_filtered(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        one = await peer.call("Task.start", operation="external", label="one", owner="alice")
        two = await peer.call("Task.start", operation="external", label="two")
        done = await peer.call("Task.complete", id=one["id"])

        async def ids(**filters: object) -> list[str]:
            return [record["id"] for record in (await peer.call("Task.list", **filters))["tasks"]]

        assert await ids(states=["completed"]) == [one["id"]]
        assert await ids(states=["running", "queued"]) == [two["id"]]
        assert await ids(owner="alice") == [one["id"]]
        assert await ids(label="two") == [two["id"]]
        assert await ids(operations=["copy"]) == []
        assert await ids(since=done["revision"]) == [two["id"]]
        assert await ids(since=done["revision"] - 1) == [two["id"], one["id"]]


async def test_an_external_tasks_life(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        id = (await peer.call("Task.start", operation="external"))["id"]
        record = await peer.call(
            "Task.update",
            id=id,
            progress={"done": 3, "total": 12, "unit": "files"},
            label="new label",
            status="counting",
            speeds=[{"title": "files", "speed": 1.5, "unit": "1/s"}],
            log=["one", "two"],
        )
        assert (record["label"], record["status"]) == ("new label", "counting")
        assert (record["progress"]["fraction"], record["progress"]["unit"]) == (0.25, "files")
        assert record["speeds"] == [{"title": "files", "speed": 1.5, "unit": "1/s", "as_text": ""}]
        log = await peer.call("Task.log", id=id)
        assert ([line["line"] for line in log["lines"]], log["next"]) == (["one", "two"], 2)
        assert (await peer.call("Task.log", id=id, **{"from": 1}))["lines"][0]["line"] == "two"
        assert (await peer.call("Task.log", id=id, **{"from": 9})) == {"lines": [], "next": 9}
        back = await peer.call("Task.update", id=id, progress={"done": 1})
        assert back["progress"]["done"] == 3
        record = await peer.call("Task.complete", id=id, result={"counted": 12})
        assert (record["state"], record["result"]) == ("completed", {"counted": 12})
        assert (record["progress"]["fraction"], record["progress"]["done"]) == (1.0, 12)
        for verb, more in (("complete", {}), ("update", {}), ("fail", {"error": {"code": "X", "message": "m"}})):
            error = (await peer.ask(f"Task.{verb}", id=id, **more))["error"]
            assert (error["message"], error["data"]) == ("Already_ended", [id])


async def test_a_cancel_of_an_external_task_is_shown_until_its_producer_answers(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        ends = {}
        for answer, more in (("complete", {}), ("fail", {"error": {"code": "STOPPED", "message": "as asked"}})):
            id = (await peer.call("Task.start", operation="external"))["id"]
            await peer.call("Task.cancel", id=id)
            record = await peer.call("Task.get", id=id)
            assert (record["state"], record["cancel_requested"], record["cancellable"]) == ("running", True, True)
            ends[answer] = await peer.call(f"Task.{answer}", id=id, **more)

    assert ends["complete"]["state"] == "completed"
    assert ends["fail"]["state"] == "cancelled"


async def test_a_silent_producer_has_lost_its_task(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        params = {"heartbeat_s": 0.05}
        id = (await peer.call("Task.start", operation="external", params=params))["id"]
        record = await peer.call("Task.wait", id=id, timeout_s=20)

    assert (record["state"], record["error"]["code"]) == ("failed", "PRODUCER_LOST")


async def test_only_external_tasks_are_reported_on(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        params = {"argv": ["/bin/true"]}
        id = (await peer.call("Task.start", operation="command", params=params))["id"]
        await peer.call("Task.wait", id=id)
        assert (await peer.ask("Task.complete", id=id))["error"]["message"] == "Not_external"


async def test_recover_of_a_task_that_owes_nothing_is_refused(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        id = (await peer.call("Task.start", operation="external"))["id"]
        assert (await peer.ask("Task.recover", id=id))["error"]["message"] == "No_residue"


async def test_operations_say_what_they_take(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        operations = {each["name"]: each for each in await peer.call("Operation.ls")}

    assert set(operations) >= {"copy", "command", "external"}
    schema = operations["copy"]["params"]
    assert schema["required"] == ["source", "target"]
    assert schema["properties"]["overwrite"]["default"] is False
    assert "bytes per second" in schema["properties"]["rate_limit"]["description"]


async def test_every_method_is_in_the_openrpc_document(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        document = await peer.call("rpc.discover")
        for method in document["methods"]:
            reply = await peer.ask(method["name"], nothing_of_the_kind=1)
            assert reply["error"]["code"] == -32602, method["name"]
            for param in method["params"]:
                assert set(param) == {"name", "required", "schema"}

    assert document["openrpc"].startswith("1.")
    names = {method["name"] for method in document["methods"]}
    assert names >= {
        "Task.start", "Task.stat", "Task.cancel", "Task.destroy", "Task.ls", "Task.get", "Task.list", "Task.wait",
        "Task.update", "Task.complete", "Task.fail", "Task.log", "Task.recover", "Operation.ls", "Plugin.query",
        "Plugin.ls", "Plugin.diagnostics", "Data.copy", "Data.stat", "Data.cancel", "Data.destroy", "Data.ls",
        "Data.mirror", "rpc.discover",
    }  # fmt: skip


async def test_a_report_has_at_most_a_thousand_lines(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        id = (await peer.call("Task.start", operation="external"))["id"]
        await peer.call("Task.update", id=id, log=[""] * 1000)
        refused = await peer.ask("Task.update", id=id, log=[""] * 1001)

        assert refused["error"]["data"] == ["params.log", "has more than 1000 lines"]
        assert (await peer.call("Task.log", id=id))["next"] == 1000
