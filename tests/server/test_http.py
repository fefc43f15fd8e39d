"""HTTP on the socket: every route, order and long calls, what is refused and with which status; and real curl."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import subprocess
import xmlrpc.client
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from taskd.dialects import native
from tests.bench import ROOT
from tests.server.conftest import LATEST, Daemon, Start

Json = object

LS = {"jsonrpc": "2.0", "method": "Task.ls", "id": 1}
NOTHING = {"jsonrpc": "2.0", "result": [], "id": 1}


@attrs.frozen
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)

    def xml(self) -> Any:
        assert self.headers["content-type"] == "text/xml"
        return xmlrpc.client.loads(self.body)[0][0]

    def sentence(self) -> str:
        assert self.headers["content-type"] == "text/plain; charset=utf-8"
        return self.body.decode()


@attrs.define
class Web:
    """One connection that speaks HTTP."""

    stream: trio.SocketStream
    _buffer: bytes = b""

    async def send(self, line: str, body: bytes = b"", *headers: str) -> None:
        length = [f"Content-Length: {len(body)}"] if body else []
        head = [f"{line} HTTP/1.1", "Host: _run_taskd_taskd.sock", *length, *headers, "", ""]
        await self.stream.send_all("\r\n".join(head).encode() + body)

    async def reply(self, *, to_head: bool = False) -> Reply:
        """The next response; EOFError when there is none any more."""
        with trio.fail_after(LATEST):
            while b"\r\n\r\n" not in self._buffer:
                await self._more()
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            status, *lines = head.decode().split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            length = 0 if to_head else int(headers.get("content-length", "0"))
            while len(self._buffer) < length:
                await self._more()
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return Reply(int(status.split()[1]), headers, body)

    async def _more(self) -> None:
        data = await self.stream.receive_some()
        if not data:
            raise EOFError
        self._buffer += data

    async def ask(self, line: str, body: bytes = b"", *headers: str) -> Reply:
        await self.send(line, body, *headers)
        return await self.reply(to_head=line.startswith("HEAD"))

    async def post(self, value: Json) -> Any:
        """The reply value to one JSON-RPC message."""
        reply = await self.ask("POST /jsonrpc", json.dumps(value).encode())
        assert reply.status == 200
        return reply.json()

    async def call(self, method: str, **params: Json) -> Any:
        return (await self.post({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}))["result"]

    async def xml(self, method: str, *args: Any, path: str = "/") -> Any:
        body = xmlrpc.client.dumps(args, method).encode()
        reply = await self.ask(f"POST {path}", body, "Content-Type: text/xml")
        assert reply.status == 200
        return reply.xml()


@asynccontextmanager
async def web(running: Daemon) -> AsyncIterator[Web]:
    async with await trio.open_unix_socket(running.path) as stream:
        yield Web(stream)


@asynccontextmanager
async def undisturbed(start: Start, **settings: Any) -> AsyncIterator[Web]:
    """A stranger to do harm with, while somebody else is served before and after."""
    async with start(**settings) as running, web(running) as other, web(running) as stranger:
        assert await other.post(LS) == NOTHING
        yield stranger
        assert await other.post(LS) == NOTHING


async def test_json_rpc_in_both_versions_and_in_batches_on_one_connection(daemon: Start) -> None:
    async with undisturbed(daemon) as peer:
        v1 = {"method": "Task.ls", "params": [{"dbg": "d"}], "id": 44}
        assert await peer.post(LS) == NOTHING
        assert await peer.post(v1) == {"result": [], "error": None, "id": 44}
        assert await peer.post([LS, v1]) == [NOTHING, {"result": [], "error": None, "id": 44}]


async def test_a_notification_is_obeyed_and_answered_with_204(daemon: Start) -> None:
    async with daemon() as running, web(running) as peer:
        start = {"jsonrpc": "2.0", "method": "Task.start", "params": {"operation": "external"}}
        reply = await peer.ask("POST /jsonrpc", json.dumps(start).encode())
        assert (reply.status, reply.body) == (204, b"")
        assert "content-type" not in reply.headers
        assert len((await peer.post(LS))["result"]) == 1


@pytest.mark.parametrize(
    ("body", "number"),
    [
        (b"hello", -32700),
        (b"", -32700),
        (b"{} {}", -32700),
        (b'{"method": "Task.l', -32700),
        (b"42", -32600),
        (b"[]", -32600),
        (b"[" * 10_000 + b"]" * 10_000, -32600),
    ],
)
async def test_what_is_no_json_rpc_is_an_error_of_json_rpc_and_the_connection_stays(
    daemon: Start, body: bytes, number: int
) -> None:
    async with undisturbed(daemon) as stranger:
        reply = await stranger.ask("POST /jsonrpc", body)
        assert (reply.status, reply.json()["error"]["code"]) == (200, number)
        assert await stranger.post(LS) == NOTHING


@pytest.mark.parametrize("path", ["/", "/RPC2"])
async def test_xml_rpc_is_answered_as_xenapi_does_it(daemon: Start, path: str) -> None:
    async with undisturbed(daemon) as peer:
        reply = await peer.xml("session.login_with_password", "user", "password", path=path)
        assert reply["Status"] == "Success"
        assert reply["Value"].startswith("OpaqueRef:")
        assert await peer.xml("task.no_such", path=path) == {
            "Status": "Failure",
            "ErrorDescription": ["MESSAGE_METHOD_UNKNOWN", "task.no_such"],
        }
        for name in ("system.listMethods", "system_listMethods"):
            assert isinstance(await peer.xml(name, path=path), list)


async def test_smapi_and_native_names_are_not_there_over_xml(daemon: Start) -> None:
    async with undisturbed(daemon) as peer:
        reply = await peer.xml("Data.ls", {"dbg": "d"})

    assert reply["ErrorDescription"][0] == "MESSAGE_METHOD_UNKNOWN"


async def test_a_task_that_is_created_under_the_header_subtask_of_is_one(daemon: Start) -> None:
    async with daemon() as running, web(running) as peer:
        session = (await peer.xml("session.login_with_password", "user", "password"))["Value"]
        whole = (await peer.xml("task.create", session, "whole", ""))["Value"]
        create = {**LS, "method": "task.create", "params": [session, "part", ""]}
        bodies = {"/": xmlrpc.client.dumps((session, "part", ""), "task.create"), "/jsonrpc": json.dumps(create)}
        for path, body in bodies.items():
            assert (await peer.ask(f"POST {path}", body.encode(), f"Subtask-of: {whole}")).status == 200
        parts = (await peer.xml("task.get_subtasks", session, whole))["Value"]
        assert [(await peer.xml("task.get_name_label", session, part))["Value"] for part in parts] == ["part"] * 2


@pytest.mark.parametrize(
    ("body", "number", "sentence"),
    [
        (b"", -32700, "no XML"),
        (b"not XML", -32700, "no XML"),
        (b'<!DOCTYPE x [<!ENTITY a "aa">]>' + xmlrpc.client.dumps(()).encode(), -32700, "entities are not read"),
        (b"<html/>", -32600, "no XML-RPC call"),
        (xmlrpc.client.dumps(([[[[]]]],), "task.create").encode(), -32600, "nested deeper than 3"),
        (xmlrpc.client.dumps((b"x" * 50_000,), "task.create").encode(), -32600, "no type for this"),
    ],
)
async def test_what_is_no_xml_rpc_is_a_fault_with_a_sentence_and_the_connection_stays(
    daemon: Start, body: bytes, number: int, sentence: str
) -> None:
    async with undisturbed(daemon, max_depth=3) as stranger:
        reply = await stranger.ask("POST /", body)
        assert reply.status == 200
        with pytest.raises(xmlrpc.client.Fault, match=sentence) as fault:
            reply.xml()
        assert fault.value.faultCode == number
        assert await stranger.post(LS) == NOTHING


async def test_xenapi_is_there_on_every_json_framing_when_its_params_stand_in_a_row(daemon: Start) -> None:
    login = {"method": "session.login_with_password", "params": ["user", "password"], "id": 1}
    body = json.dumps(login).encode()
    async with daemon() as running, web(running) as peer:
        assert (await peer.post(login))["result"].startswith("OpaqueRef:")
        assert (await peer.post({**LS, "method": "Task.wacth"}))["error"]["code"] == -32601
        assert (await peer.post({**LS, "method": "Task.get_no_such", "params": ["x", "y"]}))["error"] == {
            "code": 1,
            "message": "MESSAGE_METHOD_UNKNOWN",
            "data": ["Task.get_no_such"],
        }
        assert (await peer.post({**LS, "method": "VM.get_all", "params": ["OpaqueRef:session"]}))["error"] == {
            "code": 1,
            "message": "MESSAGE_METHOD_UNKNOWN",
            "data": ["VM.get_all"],
        }
        for params in ({"session": "OpaqueRef:session"}, [{"session": "OpaqueRef:session"}], [], ["x"]):
            native = await peer.post({**LS, "method": "VM.get_all", "params": params})
            assert (native["error"]["code"], native["error"]["message"]) == (-32601, "Method not found")
        for sent, head in (
            (body + b"\n", b'{"result":"OpaqueRef:'),
            (b"Content-Length: %d\r\n\r\n" % len(body) + body, b"Content-Length: "),
            (b"%016d" % len(body) + body, b"00000000000000"),
        ):
            async with await trio.open_unix_socket(running.path) as stream:
                await stream.send_all(sent)
                data = await stream.receive_some()
            assert data.startswith(head)
            assert b'"result":"OpaqueRef:' in data


async def test_health_and_the_description_are_there_to_be_got(daemon: Start) -> None:
    async with daemon() as running, web(running) as peer:
        health = (await peer.ask("GET /healthz")).json()
        assert (health["status"], health["unfinished_tasks"]) == ("ok", 0)
        await peer.call("Task.start", operation="external")
        later = (await peer.ask("GET /healthz?verbose")).json()
        assert later["unfinished_tasks"] == 1
        assert later["revision"] > health["revision"]
        assert (await peer.ask("GET /openrpc.json")).json() == native.openrpc()


async def test_a_head_has_the_headers_of_its_get(daemon: Start) -> None:
    async with undisturbed(daemon) as peer:
        get, head = await peer.ask("GET /openrpc.json"), await peer.ask("HEAD /openrpc.json")

    assert head == attrs.evolve(get, body=b"")


@pytest.mark.parametrize(
    ("line", "status", "allow", "sentence"),
    [
        ("GET /", 405, "OPTIONS, POST", "this path takes OPTIONS, POST"),
        ("PUT /jsonrpc", 405, "OPTIONS, POST", "this path takes"),
        ("GET /jsonrpc", 405, "OPTIONS, POST", "and a WebSocket (Upgrade: websocket and Connection: upgrade;"),
        ("PATCH /api/tasks", 405, "GET, HEAD, OPTIONS, POST, PUT", "and a WebSocket"),
        ("POST /api/tasks/poststatus", 404, None, "there is nothing at this path; there are /, /RPC2"),
        ("DELETE /healthz", 405, "GET, HEAD, OPTIONS", "this path takes"),
        ("CONNECT /healthz", 405, "GET, HEAD, OPTIONS", "this path takes"),
        ("POST /openrpc.json", 405, "GET, HEAD, OPTIONS", "this path takes"),
        ("GET /none", 404, None, "there is nothing at this path; there are /, /RPC2, /jsonrpc, /healthz"),
        ("POST /jsonrpc/", 404, None, "there is nothing at this path"),
        ("OPTIONS /none", 404, None, "there is nothing at this path"),
        ("OPTIONS /jsonrpc", 204, "OPTIONS, POST", None),
        ("OPTIONS /healthz", 204, "GET, HEAD, OPTIONS", None),
        ("OPTIONS *", 204, "GET, HEAD, OPTIONS, POST, PUT", None),
    ],
)
async def test_a_path_says_what_can_be_done_there(
    daemon: Start, line: str, status: int, allow: str | None, sentence: str | None
) -> None:
    async with undisturbed(daemon) as peer:
        reply = await peer.ask(line)
        assert (reply.status, reply.headers.get("allow")) == (status, allow)
        assert reply.body == b"" if sentence is None else sentence in reply.sentence()
        assert await peer.post(LS) == NOTHING


LIST = "/koodrive/ose/v1/task/list"


@pytest.mark.parametrize(
    "host", ["evil.example.com", "evil.example.com:8080", "EVIL.com.", "a_b.evil.com", "1.evil.com"]
)
async def test_a_page_whose_dns_leads_here_reads_no_task(daemon: Start, host: str) -> None:
    """Its GET is to its own origin, and has no Origin."""
    async with daemon() as running, running.peer() as peer:
        for method, path, status in (("GET", LIST, 403), ("HEAD", LIST, 403), ("GET", "/metrics", 200)):
            assert await status_of(peer.stream, method, path, host) == status


async def test_whoever_has_a_token_reads_under_any_name(daemon: Start) -> None:
    async with daemon(proxies=(getpass.getuser(),)) as running, running.peer() as peer:
        _, secret = await running.service.tokens.add(ROOT, "ann", ["user"])
        bearer = f"Authorization: Bearer {secret}\r\n"
        assert await status_of(peer.stream, "GET", LIST, "cloud.example.com", bearer) == 200


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "localhost:8080", "a.localhost", "taskd", "127.0.0.1", "10.1.2.3:8080", "[::1]:8080",
        "_run_taskd_taskd.sock", "%2Frun%2Ftaskd%2Ftaskd.sock", "%2ftmp%2fa.b%2ftaskd.socket:80",
    ],
)  # fmt: skip
async def test_whoever_names_an_address_or_a_socket_as_host_reads(daemon: Start, host: str) -> None:
    async with daemon() as running, running.peer() as peer:
        assert await status_of(peer.stream, "GET", LIST, host) == 200


async def status_of(stream: trio.SocketStream, method: str, path: str, host: str, more: str = "") -> int:
    web = Web(stream)
    await stream.send_all(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode())
    return (await web.reply(to_head=method == "HEAD")).status


async def test_a_compressed_body_is_refused_before_it_is_looked_at(daemon: Start) -> None:
    async with undisturbed(daemon) as stranger:
        reply = await stranger.ask("POST /", b"\x1f\x8b", "Content-Encoding: gzip")
        assert (reply.status, reply.headers["accept-encoding"]) == (415, "identity")
        assert "not compressed" in reply.sentence()


@pytest.mark.parametrize(
    ("sent", "status", "sentence"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 3_000_000, 413, "longer"),
        (b"GET lost\r\n\r\n", 400, "illegal request line"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000, 431, "too long"),
    ],
)
async def test_what_is_no_request_is_told_why_even_if_it_goes_on_sending_and_is_closed(
    daemon: Start, sent: bytes, status: int, sentence: str
) -> None:
    async with undisturbed(daemon) as stranger:
        await stranger.stream.send_all(sent)
        reply = await stranger.reply()
        assert (reply.status, reply.headers["connection"]) == (status, "close")
        assert sentence in reply.sentence()
        with pytest.raises(EOFError):
            await stranger.reply()


@pytest.mark.parametrize("start", [b"GET ", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{"])
async def test_a_request_that_is_never_finished_is_answered_with_408(daemon: Start, start: bytes) -> None:
    async with daemon(message_deadline_s=0.05) as running, web(running) as stranger:
        await stranger.stream.send_all(start)
        reply = await stranger.reply()

    assert reply.status == 408
    assert "no complete message within 0.05 seconds" in reply.sentence()


@pytest.mark.parametrize("start", [b"\x16\x03\x01\x02\x00\x01", b"\0"])
async def test_what_speaks_no_framing_is_closed_without_a_word(daemon: Start, start: bytes) -> None:
    async with undisturbed(daemon) as stranger:
        await stranger.stream.send_all(start)
        with pytest.raises(EOFError):
            await stranger.reply()


async def test_pipelined_requests_are_answered_in_order_a_long_one_too(daemon: Start) -> None:
    async with daemon() as running, web(running) as peer, web(running) as producer:
        id = (await producer.call("Task.start", operation="external"))["id"]
        wait = {"jsonrpc": "2.0", "method": "Task.wait", "params": {"id": id}, "id": 7}
        for value in (LS, wait, LS):
            await peer.send("POST /jsonrpc", json.dumps(value).encode())
        await peer.send("GET /healthz")
        assert (await peer.reply()).json()["result"] == [id]
        await producer.call("Task.complete", id=id)

        assert (await peer.reply()).json()["result"]["state"] == "completed"
        assert (await peer.reply()).json()["id"] == 1
        assert (await peer.reply()).json()["status"] == "ok"


@pytest.mark.parametrize("method", ["event.from", "Event_from"])
async def test_a_long_poll_for_events_holds_up_nobody_on_a_json_stream(daemon: Start, method: str) -> None:
    async with daemon() as running, running.peer() as peer, web(running) as producer:
        session = (await producer.xml("session.login_with_password", "user", "password"))["Value"]
        await peer.send({**LS, "id": "poll", "method": method, "params": [session, ["task"], "", 60.0]}, LS)
        assert await peer.reply() == NOTHING
        await producer.call("Task.start", operation="external")
        reply = await peer.reply()

    assert (reply["id"], len(reply["result"]["events"])) == ("poll", 1)


async def test_a_half_closed_peer_still_gets_its_answer(daemon: Start) -> None:
    async with daemon() as running, web(running) as peer, web(running) as producer:
        id = (await producer.call("Task.start", operation="external"))["id"]
        wait = {"jsonrpc": "2.0", "method": "Task.wait", "params": {"id": id}, "id": 7}
        await peer.send("POST /jsonrpc", json.dumps(wait).encode())
        await peer.stream.send_eof()
        await producer.call("Task.complete", id=id)

        assert (await peer.reply()).json()["result"]["state"] == "completed"
        with pytest.raises(EOFError):
            await peer.reply()


async def test_a_long_call_ends_when_its_peer_hangs_up(daemon: Start) -> None:
    """Its connection is counted no longer, so that there is room for another."""
    async with daemon(connections_per_user=2) as running, web(running) as producer:
        id = (await producer.call("Task.start", operation="external"))["id"]
        async with web(running) as peer:
            assert (await peer.call("Task.ls")) == [id]
            wait = {"jsonrpc": "2.0", "method": "Task.wait", "params": {"id": id}, "id": 7}
            await peer.send("POST /jsonrpc", json.dumps(wait).encode())
            await wait_all_tasks_blocked(0.01)
        with trio.fail_after(20):
            while True:
                async with web(running) as another:
                    try:
                        assert (await another.ask("GET /healthz")).status == 200
                        break
                    except (EOFError, ValueError, trio.BrokenResourceError):
                        await trio.lowlevel.checkpoint()


async def test_a_long_call_ends_when_the_daemon_stops(daemon: Start) -> None:
    async with daemon(stop_grace_s=60) as running, web(running) as peer:
        id = (await peer.call("Task.start", operation="external"))["id"]
        wait = {"jsonrpc": "2.0", "method": "Task.wait", "params": {"id": id}, "id": 7}
        await peer.send("POST /jsonrpc", json.dumps(wait).encode())
        await wait_all_tasks_blocked(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(EOFError):
            await peer.reply()


needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="curl is not here")


async def curl(running: Daemon, path: str, *options: str, stdin: bytes = b"") -> tuple[int, str]:
    """The status and what curl prints."""
    command = ["curl", "-sS", "--unix-socket", running.path, "-w", "\n%{http_code}", *options, f"http://x{path}"]
    with trio.fail_after(30):
        done: subprocess.CompletedProcess[bytes] = await trio.run_process(
            command, stdin=stdin, capture_stdout=True
        )
    text, _, status = done.stdout.decode().rpartition("\n")
    return int(status), text


JSON_LS = json.dumps(LS)


@needs_curl
@pytest.mark.parametrize(
    "options",
    [
        ["-d", JSON_LS],
        ["-d", JSON_LS, "-H", "Expect: 100-continue"],
        ["-d", JSON_LS, "-H", "Transfer-Encoding: chunked"],
        ["-d", JSON_LS, "--http1.0"],
        ["-d", JSON_LS, "-H", "Connection: close"],
        ["-d", JSON_LS, "-H", "Accept-Encoding: gzip", "-H", "Host: _a_b"],
    ],
)
async def test_curl_is_enough_to_call_a_method(daemon: Start, options: Sequence[str]) -> None:
    async with daemon() as running:
        status, text = await curl(running, "/jsonrpc", *options)

    assert (status, json.loads(text)) == (200, NOTHING)


@needs_curl
async def test_curl_sends_a_big_body_when_it_is_told_to_and_does_not_when_it_is_too_big(daemon: Start) -> None:
    options = ["-H", "Expect: 100-continue", "--expect100-timeout", "20", "--data-binary", "@-"]
    async with daemon() as running:
        big = json.dumps({**LS, "params": {"dbg": "x" * 1_000_000}}).encode()
        status, text = await curl(running, "/jsonrpc", *options, stdin=big)
        assert (status, json.loads(text)) == (200, NOTHING)

        for more in ([], ["-H", "Expect:"], ["-H", "Expect:", "-H", "Transfer-Encoding: chunked"]):
            too_big = b"x" * 3_000_000
            status, text = await curl(running, "/jsonrpc", *options[2:], *more, stdin=too_big)
            assert (status, text) == (413, "a body is longer than 1048576 bytes\n")


@needs_curl
async def test_curl_sees_heads_options_and_refusals(daemon: Start) -> None:
    async with daemon() as running:
        status, text = await curl(running, "/healthz", "-I")
        assert (status, "Content-Type: application/json" in text) == (200, True)
        status, text = await curl(running, "/jsonrpc", "-X", "OPTIONS", "-i")
        assert (status, "Allow: OPTIONS, POST" in text) == (204, True)
        assert (await curl(running, "/none"))[0] == 404
        assert (await curl(running, "/jsonrpc"))[0] == 405
        assert (await curl(running, "/jsonrpc", "-H", "Host:"))[0] == 400


@needs_curl
async def test_curl_asks_twice_on_one_connection(daemon: Start) -> None:
    async with daemon() as running:
        command = ["curl", "-sS", "--unix-socket", running.path, "-w", "%{num_connects} ", "-o", os.devnull]
        command += ["-o", os.devnull, "http://x/healthz", "http://x/openrpc.json"]
        with trio.fail_after(30):
            done: subprocess.CompletedProcess[bytes] = await trio.run_process(command, capture_stdout=True)

    assert done.stdout == b"1 0 "


async def test_a_call_that_is_answered_at_once_is_answered_as_any_other(daemon: Start) -> None:
    async with daemon() as running, web(running) as peer:
        id = (await peer.call("Task.start", operation="external"))["id"]
        body = json.dumps({"method": "Task.stat", "params": {"id": id}, "id": 1}).encode()

        async def ask(line: str, *headers: str) -> Reply:
            return await peer.ask(line, body, *headers)

        plain = await ask("POST /jsonrpc")
        assert plain.json()["result"]["state"] == ["Pending", 0.0]
        assert await ask("POST /jsonrpc?x", "Expect: nothing") == plain
        refused = {"Origin: null": 403, "Content-Encoding: gzip": 415, "Authorization: Bearer x": 401}
        for header, status in refused.items():
            assert (await ask("POST /jsonrpc", header)).status == status
        assert [(await ask(line)).status for line in ("POST /other", "PUT /jsonrpc")] == [404, 405]


async def test_calls_that_are_answered_at_once_keep_their_place_among_those_that_are_not(daemon: Start) -> None:
    async with daemon() as running, web(running) as peer:
        id = (await peer.call("Task.start", operation="external"))["id"]
        stat = {"jsonrpc": "2.0", "method": "Task.stat", "params": {"id": id}, "id": "stat"}
        for message in (stat, LS, stat, stat, LS):
            await peer.send("POST /jsonrpc", json.dumps(message).encode())

        assert [(await peer.reply()).json()["id"] for _ in range(5)] == ["stat", 1, "stat", "stat", 1]


async def test_a_proxy_without_a_token_is_told_nothing_at_once(daemon: Start) -> None:
    body = b'{"method": "Task.stat", "params": {"id": "x"}, "id": 1}'
    async with daemon(proxies=(getpass.getuser(),)) as running, web(running) as peer:
        assert (await peer.ask("POST /jsonrpc", body)).status == 401
