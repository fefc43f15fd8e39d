"""SMAPIv3 over the wire, to the letter of its published text (shared seed: the Task interface)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from taskd.dialects.smapi import path_of
from taskd.errors import BadParams
from tests.server.conftest import Daemon, Peer, Start, daemon

__all__ = ["daemon"]  # the fixture


async def v1(peer: Peer, method: str, **params: object) -> Any:
    """A request as the seed has it, and the whole reply."""
    await peer.send({"method": method, "params": [params], "id": 41})
    return await peer.reply()


async def raw(running: Daemon, request: object) -> str:
    """The reply as text: what a float looks like is part of the contract."""
    async with running.peer() as peer:
        await peer.send(request)
        await peer.stream.send_eof()
        return b"".join([data async for data in peer.stream]).decode()


async def test_the_four_methods_of_the_seed(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        record = await peer.call("Task.start", operation="external", dbg="who asked")
        id = record["id"]
        assert await v1(peer, "Task.ls", dbg="d") == {"result": [id], "error": None, "id": 41}
        stat = (await v1(peer, "Task.stat", id=id, dbg="d"))["result"]
        assert set(stat) == {"state", "ctime", "debug_info", "id"}
        assert (stat["state"], stat["debug_info"], stat["id"]) == (["Pending", 0.0], "who asked", id)
        assert await v1(peer, "Task.cancel", id=id, dbg="d") == {"result": None, "error": None, "id": 41}
        await peer.call("Task.complete", id=id)
        assert await v1(peer, "Task.destroy", id=id, dbg="d") == {"result": None, "error": None, "id": 41}
        assert (await v1(peer, "Task.ls", dbg="d"))["result"] == []


async def test_floats_have_a_point(daemon: Start) -> None:
    """The generated Python side refuses an integer where it wants a float (ocaml-rpc, pythongen.ml)."""
    async with daemon() as running, running.peer() as peer:
        id = (await peer.call("Task.start", operation="external"))["id"]
        stat = {"method": "Task.stat", "params": [{"id": id, "dbg": ""}], "id": 1}
        pending = await raw(running, stat)
        await peer.call("Task.complete", id=id)
        completed = await raw(running, stat)

    assert '["Pending",0.0]' in pending
    assert re.search(r'"ctime":\d+\.\d+', pending)
    assert re.search(r'\["Completed",\{"duration":\d+\.\d+\}\]', completed)


async def test_both_variants_of_params_and_both_envelopes_work(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        for params in ([{"dbg": "d"}], {"dbg": "d"}, [], {}):
            await peer.send({"jsonrpc": "2.0", "method": "Task.ls", "params": params, "id": "x"})
            assert await peer.reply() == {"jsonrpc": "2.0", "result": [], "id": "x"}
        await peer.send({"method": "Task.ls", "params": [{"dbg": "d"}], "id": "x"})
        assert await peer.reply() == {"result": [], "error": None, "id": "x"}


async def test_every_state_as_smapi_has_it(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:

        async def state(id: str) -> Any:
            return (await v1(peer, "Task.stat", id=id, dbg=""))["result"]["state"]

        id = (await peer.call("Task.start", operation="external"))["id"]
        await peer.call("Task.update", id=id, progress={"fraction": 0.25})
        assert await state(id) == ["Pending", 0.25]
        await peer.call("Task.fail", id=id, error={"code": "OUT_OF_INK", "message": "the pen is dry"})
        assert await state(id) == ["Failed", "OUT_OF_INK: the pen is dry"]

        id = (await peer.call("Task.start", operation="external"))["id"]
        await v1(peer, "Task.cancel", id=id, dbg="")
        assert await state(id) == ["Pending", 0.0]
        await peer.call("Task.fail", id=id, error={"code": "X", "message": "obeyed"})
        assert await state(id) == ["Failed", "Cancelled"]


async def test_a_cancel_that_is_too_late_is_a_successful_no_op(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        id = (await peer.call("Task.start", operation="external"))["id"]
        await peer.call("Task.complete", id=id)
        assert await v1(peer, "Task.cancel", id=id, dbg="") == {"result": None, "error": None, "id": 41}
        assert (await peer.ask("Task.cancel", id=id, must=True))["error"]["message"] == "Too_late"


async def test_an_error_is_its_name_and_its_parameters_in_both_envelopes(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        reply = await v1(peer, "Task.stat", id="none", dbg="")
        assert reply == {"result": None, "error": ["Does_not_exist", "task", "none"], "id": 41}
        error = {"code": 1, "message": "Does_not_exist", "data": ["task", "none"]}
        assert await peer.ask("Task.stat", id="none", dbg="") == {"jsonrpc": "2.0", "error": error, "id": 1}


async def test_data_copy_is_a_task_and_its_key_the_tasks_id(daemon: Start, tmp_path: Path) -> None:
    source, target = tmp_path / "a disk.img", tmp_path / "target"
    source.write_bytes(b"new" * 1000)
    target.write_bytes(b"old" * 2000)
    uri = "raw+file://" + str(source).replace(" ", "%20")
    async with daemon() as running, running.peer() as peer:
        reply = await v1(peer, "Data.copy", dbg="d", uri=uri, domain="0", remote=f"file://{target}")
        kind, id = reply["result"]
        assert kind == "CopyV1"
        await peer.call("Task.wait", id=id)
        status = (await v1(peer, "Data.stat", dbg="d", operation=["CopyV1", id]))["result"]
        assert status == {"failed": False, "complete": True, "progress": 1.0}
        assert (await v1(peer, "Data.ls", dbg="d"))["result"] == [["CopyV1", id]]
        assert (await v1(peer, "Data.cancel", dbg="d", operation=["CopyV1", id]))["result"] is None
        assert (await v1(peer, "Data.destroy", dbg="d", operation=["copyv1", id]))["result"] is None
        assert (await v1(peer, "Data.ls", dbg="d"))["result"] == []

    assert target.read_bytes() == source.read_bytes()


async def test_data_copy_of_blocks_changes_only_those(daemon: Start, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"n" * 8192)
    target.write_bytes(b"o" * 8192)
    blocklist = {"blocksize": 512, "ranges": [[1, 2], [15, 1]]}
    async with daemon() as running, running.peer() as peer:
        reply = await v1(peer, "Data.copy", uri=str(source), remote=str(target), domain="", blocklist=blocklist)
        await peer.call("Task.wait", id=reply["result"][1])

    assert target.read_bytes() == b"o" * 512 + b"n" * 1024 + b"o" * 6144 + b"n" * 512


async def test_a_failed_copy_is_not_complete(daemon: Start, tmp_path: Path) -> None:
    """xapi looks at `complete` first, and would take a failed copy for a good one."""
    source = tmp_path / "source"
    source.write_bytes(b"n" * 1024 * 1024)
    async with daemon() as running, running.peer() as peer:
        copy = {"source": str(source), "target": str(tmp_path / "target"), "rate_limit": 1024}
        id = (await peer.call("Task.start", operation="copy", params=copy))["id"]
        await v1(peer, "Data.cancel", operation=["CopyV1", id])
        await peer.call("Task.wait", id=id)
        status = (await v1(peer, "Data.stat", operation=["CopyV1", id]))["result"]

    assert (status["failed"], status["complete"]) == (True, False)
    assert not (tmp_path / "target").exists()


async def test_a_fault_of_the_blocklist_is_named_as_the_caller_named_it(daemon: Start, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"n" * 1024)
    blocklist = {"blocksize": 512, "ranges": [[0, 1], [5, 1]]}
    async with daemon() as running, running.peer() as peer:
        params = {"uri": str(source), "remote": str(tmp_path / "target"), "blocklist": blocklist}
        error = (await peer.ask("Data.copy", **params))["error"]

    assert (error["code"], error["data"][0]) == (-32602, "params.blocklist.ranges[1]")


async def test_data_knows_copies_only(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        id = (await peer.call("Task.start", operation="external"))["id"]
        assert (await peer.ask("Data.stat", operation=["CopyV1", id]))["error"]["message"] == "Does_not_exist"
        assert (await peer.call("Data.ls")) == []


async def test_mirror_is_not_implemented(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        reply = await v1(peer, "Data.mirror", dbg="d", uri="/a", domain="", remote="/b")

    assert reply["error"] == ["Unimplemented", "Data.mirror"]


async def test_the_plugin_tells_what_it_is(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        query = await peer.call("Plugin.query", dbg="d")
        assert await peer.call("Plugin.ls", dbg="d") == []
        await peer.call("Task.start", operation="external", label="secret label", owner="root")
        diagnostics = await peer.call("Plugin.diagnostics", dbg="d")

    assert set(query) == {
        "plugin", "name", "description", "vendor", "copyright", "version", "required_api_version", "features",
        "configuration", "required_cluster_stack", "supported_image_formats",
    }  # fmt: skip
    assert query["required_api_version"] == "5.0"
    assert "operation external: running=1\n" in diagnostics
    assert "secret" not in diagnostics


def test_a_uri_is_a_path_or_a_file_url() -> None:
    assert path_of("/a b", "p") == path_of("file:///a%20b", "p") == path_of("raw+file://localhost/a%20b", "p")
    assert path_of("file:///a%23b%0Ac", "p") == "/a#b\nc"
    assert path_of("file:///a\nb", "p") == "/a\nb"
    for bad in (
        "nbd://host/x",
        "file://host/x",
        "relative",
        "",
        "file:///a#b",
        "file:///a?b",
        " file:///a",
        "file://",
    ):
        with pytest.raises(BadParams, match="p: expected an absolute path"):
            path_of(bad, "p")
    with pytest.raises(BadParams, match="p: names a path that is no UTF-8"):
        path_of("file:///a%ff", "p")


def test_the_seeds_requests_are_those_that_are_tried_here() -> None:
    """What the published text sends is what ``v1`` sends."""
    request = json.loads('{"method": "Task.stat", "params": [{"id": "id", "dbg": "dbg"}], "id": 41}')

    assert list(request) == ["method", "params", "id"]
