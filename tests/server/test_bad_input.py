"""Whatever a stranger sends: a clear error, the daemon alive, nobody else disturbed, nothing half-done."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.server.conftest import Daemon, Peer, Start


@asynccontextmanager
async def undisturbed(running: Daemon) -> AsyncIterator[Peer]:
    """A stranger to do harm with, while somebody else is served before and after."""
    async with running.peer() as other, running.peer() as stranger:
        assert await other.call("Task.ls") == []
        yield stranger
        assert await other.call("Task.ls") == []


NO_JSON = [
    (b"hello there\n", "not JSON at all"),
    (b"GET\x00\xff\xfe\n", "binary"),
    (b'{"a": NaN}', "NaN"),
    (b'{"id": 1e400}', "a number out of range"),
    (b'{"a": "\xff\xfe"}', "invalid UTF-8"),
    (b'{"a": "\\ud800"}', "a lone surrogate"),
    (b'{"a": "line\nbreak"}', "a line break in a string"),
    (b"{'a': 1}", "single quotes"),
    (b'{"a": 1,}', "a comma too many"),
]


@pytest.mark.parametrize(("data", "what"), NO_JSON, ids=[what for _, what in NO_JSON])
async def test_what_is_no_json_is_a_parse_error(daemon: Start, data: bytes, what: str) -> None:
    async with daemon() as running, undisturbed(running) as stranger:
        await stranger.send(data)
        reply = (await stranger.rest())[0]

    assert (reply["jsonrpc"], reply["id"], reply["error"]["code"]) == ("2.0", None, -32700)


async def test_a_garbage_line_is_one_error_and_the_next_request_is_answered(daemon: Start) -> None:
    async with daemon() as running, undisturbed(running) as stranger:
        await stranger.send(b"one two {three\n")
        assert (await stranger.reply())["error"]["code"] == -32700
        assert await stranger.call("Task.ls") == []


async def test_truncated_json_and_then_the_end_is_a_parse_error(daemon: Start) -> None:
    async with daemon() as running, undisturbed(running) as stranger:
        await stranger.send(b'{"jsonrpc": "2.0", "method": "Task.l')
        (reply,) = await stranger.rest()

    assert (reply["error"]["code"], reply["id"]) == (-32700, None)


NO_REQUEST: list[object] = [
    42,
    "text",
    None,
    True,
    [],
    {},
    [1],
    {"method": 1, "id": 7},
    {"jsonrpc": "1.1", "id": 7},
]


@pytest.mark.parametrize("value", NO_REQUEST, ids=json.dumps)
async def test_json_that_is_no_request_is_refused_with_its_id(daemon: Start, value: object) -> None:
    async with daemon() as running, undisturbed(running) as stranger:
        await stranger.send(value)
        (reply,) = await stranger.rest()

    reply = reply[0] if isinstance(reply, list) else reply
    error = reply["error"]
    assert (error[0] == "Invalid_request") if isinstance(error, list) else (error["code"] == -32600)
    assert reply["id"] == (7 if isinstance(value, dict) and value else None)


@pytest.mark.parametrize("id", ["[1]", "{}", "true", "1.5", "9" * 300], ids=lambda id: id[:6])
async def test_an_id_that_cannot_be_echoed_is_refused(daemon: Start, id: str) -> None:
    async with daemon() as running, undisturbed(running) as stranger:
        await stranger.send(f'{{"jsonrpc": "2.0", "method": "Task.ls", "id": {id}}}\n'.encode())
        (reply,) = await stranger.rest()

    assert (reply["error"]["code"], reply["id"]) == (-32600, None)


async def test_an_unknown_method_is_named(daemon: Start) -> None:
    async with daemon() as running, undisturbed(running) as stranger:
        assert (await stranger.ask("Task.foo"))["error"] == {
            "code": -32601,
            "message": "Method not found",
            "data": ["Task.foo"],
        }
        await stranger.send({"method": "Task.foo", "params": [{}], "id": 3})
        assert await stranger.reply() == {"result": None, "error": ["Unimplemented", "Task.foo"], "id": 3}


BAD_PARAMS = [
    ("Task.stat", {"dbg": "d"}, "params.id"),
    ("Task.stat", {"id": "x", "dbg": "d", "extra": 1}, "params"),
    ("Task.stat", {"id": 5, "dbg": "d"}, "params.id"),
    ("Task.start", {"operation": "copy", "params": {"source": "/a"}}, "params.params.target"),
    ("Task.start", {"operation": "copy", "params": {"source": "/a", "target": 1}}, "params.params.target"),
    ("Task.start", {"operation": "copy", "params": {"source": "/a\0b", "target": "/b"}}, "params.params.source"),
    ("Task.start", {"operation": "copy", "params": {"source": "a", "target": "/b"}}, "params.params.source"),
    ("Task.start", {"operation": "nothing"}, "params.operation"),
    ("Task.start", {"operation": "command", "params": {"argv": []}}, "params.params.argv"),
    ("Task.start", {"operation": "external", "deadline_s": -1}, "params.deadline_s"),
    ("Task.start", {"operation": "external", "params": {"heartbeat_s": 0}}, "params.params"),
    ("Task.list", {"page_size": 0}, "params.page_size"),
    ("Task.list", {"states": ["gone"]}, "params.states[0]"),
    ("Task.list", {"cursor": "x"}, "params.cursor"),
    ("Task.list", {"cursor": "9" * 5000}, "params.cursor"),
    ("Task.list", {"cursor": ""}, "params.cursor"),
    ("Task.start", {"operation": "external", "label": "x" * 5000}, "params.label"),
    ("Task.start", {"operation": "external", "request_id": "x" * 5000}, "params.request_id"),
    ("Task.log", {"id": "x", "from": -1}, "params.from"),
    ("Data.copy", {"uri": "nbd://host/x", "remote": "/b"}, "params.uri"),
    ("Data.copy", {"uri": "/a", "remote": "b"}, "params.remote"),
    ("Data.copy", {"uri": "file://[", "remote": "/b"}, "params.uri"),
    ("Data.stat", {"operation": ["Other", "x"]}, "params.operation"),
]


@pytest.mark.parametrize(("method", "params", "path"), BAD_PARAMS, ids=[f"{m} {p}" for m, _, p in BAD_PARAMS])
async def test_bad_params_name_the_field(daemon: Start, method: str, params: dict[str, object], path: str) -> None:
    async with daemon() as running, undisturbed(running) as stranger:
        error = (await stranger.ask(method, **params))["error"]

    assert (error["code"], error["data"][0]) == (-32602, path), error
    assert error["message"].startswith(f"{path}: ")


async def test_ten_thousand_brackets_are_refused_and_the_next_request_is_answered(daemon: Start) -> None:
    async with daemon() as running, undisturbed(running) as stranger:
        await stranger.send(b"[" * 10_000 + b"]" * 10_000)
        assert (await stranger.reply())["error"]["code"] == -32600
        assert await stranger.call("Task.ls") == []


async def test_a_message_over_the_limit_is_refused_and_the_connection_closed(daemon: Start) -> None:
    async with daemon() as running, undisturbed(running) as stranger:
        with trio.move_on_after(10):
            try:
                await stranger.send(b'{"method": "' + b"x" * (2 * 1024 * 1024))
            except trio.BrokenResourceError:
                pass  # it need not read what it refuses
        reply = await stranger.reply()
        with pytest.raises((EOFError, trio.BrokenResourceError)):
            await stranger.reply()

    assert reply["error"]["code"] == -32600
    assert "1048576 bytes" in reply["error"]["message"]


async def test_a_batch_of_ten_thousand_is_answered_whole(daemon: Start) -> None:
    async with daemon() as running, undisturbed(running) as stranger:
        await stranger.send([{"method": "Task.ls", "id": id} for id in range(10_000)])
        replies = await stranger.reply()

    assert [reply["id"] for reply in replies] == list(range(10_000))


async def test_a_batch_over_the_limit_is_one_refusal(daemon: Start) -> None:
    async with daemon(max_batch=10) as running, undisturbed(running) as stranger:
        await stranger.send([{"method": "Task.ls", "id": id} for id in range(11)])
        reply = await stranger.reply()

    assert reply["error"]["code"] == -32600


async def test_a_first_message_that_does_not_come_closes_the_connection(daemon: Start) -> None:
    async with daemon(message_deadline_s=0.05) as running, running.peer() as silent:
        reply = await silent.reply()
        with pytest.raises(EOFError):
            await silent.reply()

    assert "no complete message within 0.05 seconds" in reply["error"]["message"]


async def test_a_message_that_is_never_finished_closes_the_connection(daemon: Start) -> None:
    async with daemon(message_deadline_s=0.05) as running, running.peer() as stranger:
        await stranger.call("Task.ls")
        await stranger.send(b'{"method": ')
        reply = await stranger.reply()

    assert "no complete message" in reply["error"]["message"]


async def test_an_idle_connection_that_has_spoken_may_stay(daemon: Start) -> None:
    async with daemon(message_deadline_s=0.05) as running, running.peer() as quiet:
        await quiet.call("Task.ls")
        async with running.peer() as silent:
            await silent.reply()  # by now the deadline has passed
        assert await quiet.call("Task.ls") == []


@pytest.mark.parametrize(
    "method", ["Task.stat", "Task.cancel", "Task.destroy", "Task.get", "Task.wait", "Task.log", "Task.recover"]
)
@pytest.mark.parametrize("id", ["", "no such", "x" * 100_000, "\0", "\U0001f600"], ids=ascii)
async def test_an_unknown_task_does_not_exist(daemon: Start, method: str, id: str) -> None:
    async with daemon() as running, undisturbed(running) as stranger:
        error = (await stranger.ask(method, id=id))["error"]

    assert error == {"code": 1, "message": "Does_not_exist", "data": ["task", id]}


async def test_destroy_of_a_running_task_fails_and_the_task_is_unharmed(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        before = await peer.call("Task.start", operation="external")
        error = (await peer.ask("Task.destroy", id=before["id"], dbg=""))["error"]
        assert error == {"code": 1, "message": "Task_in_progress", "data": [before["id"]]}
        assert await peer.call("Task.get", id=before["id"]) == before
        await peer.call("Task.complete", id=before["id"])
        assert await peer.call("Task.destroy", id=before["id"], dbg="") is None
        assert await peer.call("Task.ls") == []


async def test_numbers_beyond_what_a_store_holds_do_no_harm(daemon: Start) -> None:
    async with daemon() as running, running.peer() as peer:
        id = (await peer.call("Task.start", operation="external"))["id"]
        huge = 2**64 - 1
        assert (await peer.call("Task.list", since=huge))["tasks"] != []  # it has not ended
        assert (await peer.call("Task.log", id=id, **{"from": huge}))["lines"] == []
        assert (await peer.call("Task.wait", id=id, after_revision=-(2**63)))["id"] == id


async def test_a_reader_that_does_not_read_disturbs_nobody(daemon: Start) -> None:
    async with daemon() as running, undisturbed(running) as stranger:
        request = json.dumps({"method": "rpc.discover", "params": [{}], "id": 1}).encode()
        with trio.move_on_after(1):
            for _ in range(2000):  # the replies are tens of kilobytes each
                await stranger.stream.send_all(request)
        async with running.peer() as other:
            assert await other.call("Task.ls") == []


async def test_a_tasks_owner_may_have_so_many_and_no_more(daemon: Start) -> None:
    async with daemon(tasks_per_owner=2) as running, running.peer() as peer:
        first = await peer.call("Task.start", operation="external")
        await peer.call("Task.start", operation="external")
        error = (await peer.ask("Task.start", operation="external"))["error"]
        assert error == {"code": 1, "message": "Too_many_tasks", "data": ["2"]}
        await peer.call("Task.complete", id=first["id"])
        await peer.call("Task.start", operation="external")


async def test_a_target_that_exists_is_refused_before_a_task_is_made(daemon: Start, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    async with daemon() as running, undisturbed(running) as stranger:
        params = {"source": str(source), "target": str(target)}
        error = (await stranger.ask("Task.start", operation="copy", params=params))["error"]

    assert error == {"code": 1, "message": "Target_exists", "data": [str(target)]}
    assert target.read_bytes() == b"old"
