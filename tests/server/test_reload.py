"""SIGHUP to a daemon that runs: every setting that a reload takes changes something, at once and for good."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from taskd import logs, server
from taskd.config import Config
from taskd.reload import differences
from tests.server.conftest import Daemon, Peer, Start

NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")

Reload = Callable[..., Awaitable[None]]


@pytest.fixture
async def reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reload]:
    """``await reload(running, name=value)``: it has read the changed settings, and says so as to systemd."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        await told.bind(str(tmp_path / "notify"))

        async def reload(running: Daemon, **changes: Any) -> None:
            running.settings = attrs.evolve(running.settings, **changes)
            os.kill(os.getpid(), signal.SIGHUP)
            with trio.fail_after(20):
                while not (await told.recv(4096)).startswith(b"RELOADING=1\n"):
                    pass
                while not (await told.recv(4096)).startswith(b"READY=1"):
                    pass

        yield reload


LOG = logging.StreamHandler(StringIO())


@pytest.fixture(autouse=True)
def log() -> Iterator[None]:
    """Meanwhile there is a handler like the daemon's."""
    LOG.setFormatter(logs.Line("text", journal=True))
    logging.getLogger().addHandler(LOG)
    yield
    logging.getLogger().removeHandler(LOG)


def outcome(reply: Any) -> object:
    """A word for what came of a call."""
    return reply["error"]["message"] if "error" in reply else "done"


async def asked(running: Daemon, method: str, **params: object) -> object:
    async with running.peer() as peer:
        return outcome(await peer.ask(method, **params))


# What is to be seen of each setting, on a connection of its own.


async def log_level_seen(_: Daemon) -> object:
    return logging.getLogger("taskd").isEnabledFor(logging.DEBUG)


async def log_format_seen(_: Daemon) -> object:
    return LOG.format(logging.LogRecord("taskd", logging.INFO, "", 0, "hello", (), None))


async def message_bytes(running: Daemon) -> object:
    async with running.peer() as peer:
        return (await peer.ask("Task.ls", dbg="x" * 2000)).get("error", {}).get("code")


async def depth(running: Daemon) -> object:
    async with running.peer() as peer:
        nested: list[object] = []
        for _ in range(20):
            nested = [nested]
        return (await peer.ask("Task.ls", dbg=nested))["error"]["code"]


async def batch(running: Daemon) -> object:
    async with running.peer() as peer:
        call = {"jsonrpc": "2.0", "method": "Task.ls", "params": {}, "id": 1}
        await peer.send([call, call])
        replies = await peer.reply()
        return "done" if isinstance(replies, list) else outcome(replies)


async def reply_bytes(running: Daemon) -> object:
    async with running.peer() as peer:
        id = (await peer.call("Task.start", operation="external", label="x" * 4000))["id"]
        await peer.send(
            [{"jsonrpc": "2.0", "method": "Task.get", "params": {"id": id}, "id": n} for n in range(40)]
        )
        return outcome((await peer.reply())[-1])


async def text(running: Daemon) -> object:
    return await asked(running, "Task.start", operation="external", label="x" * 100)


async def result_bytes(running: Daemon) -> object:
    async with running.peer() as peer:
        id = (await peer.call("Task.start", operation="external"))["id"]
        return outcome(await peer.ask("Task.complete", id=id, result="x" * 100))


async def deadline(running: Daemon) -> object:
    async with running.peer() as peer:
        return (await peer.reply())["error"]["message"]


async def is_let_go_of(running: Daemon) -> object:
    """Whether one who reads nothing is let go of, before another has had some answers."""
    async with running.peer() as peer, running.peer() as deaf:
        id = (await peer.call("Task.start", operation="external", label="x" * 4000))["id"]
        get = {"jsonrpc": "2.0", "method": "Task.get", "params": {"id": id}}
        await deaf.send([{**get, "id": n} for n in range(1000)])
        with trio.move_on_after(20 if running.settings.reader_deadline_s < 1 else 0.2):
            await peer.call("Task.wait", id=id, timeout_s=0.1)
            while not gone(deaf):
                await peer.call("Task.wait", id=id, timeout_s=0.01)
        return gone(deaf)


async def unread_bytes(running: Daemon) -> object:
    """Whether one of three is let go of, who read nothing of some hundreds of kilobytes each."""
    async with AsyncExitStack() as stack:
        peer, *deaf = [await stack.enter_async_context(running.peer()) for _ in range(4)]
        id = (await peer.call("Task.start", operation="external", label="x" * 4000))["id"]
        get = {"jsonrpc": "2.0", "method": "Task.get", "params": {"id": id}}
        for each in deaf:
            await each.send([{**get, "id": n} for n in range(200)])
        while running.settings.unread_bytes_per_user == 1 << 20 and not any(map(gone, deaf)):
            await peer.call("Task.wait", id=id, timeout_s=0.01)
        return any(map(gone, deaf))


def gone(peer: Peer) -> bool:
    poll = select.poll()
    poll.register(peer.stream.socket.fileno(), 0)
    return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))


async def connections(running: Daemon) -> object:
    async with running.peer() as peer:
        try:
            await peer.send({"jsonrpc": "2.0", "method": "Task.ls", "params": {}, "id": 1})
        except trio.BrokenResourceError:
            pass  # refused already
        return outcome(await peer.reply())


async def in_flight(running: Daemon) -> object:
    """In which order two waits are answered, of which the second is over at once and the first, where it need not
    end for the second to begin, only then."""
    async with running.peer() as peer, running.peer() as producer:
        id = (await producer.call("Task.start", operation="external"))["id"]
        for number, seconds in ((1, 0.2 if running.settings.requests_in_flight == 1 else 1000), (2, 0)):
            params = {"id": id, "timeout_s": seconds}
            await peer.send({"jsonrpc": "2.0", "method": "Task.wait", "params": params, "id": number})
        first = (await peer.reply())["id"]
        await producer.call("Task.complete", id=id)
        return [first, (await peer.reply())["id"]]


async def unfinished(running: Daemon) -> object:
    await asked(running, "Task.start", operation="external")
    return await asked(running, "Task.start", operation="external")


async def running_tasks(running: Daemon) -> object:
    """How many of three run when as many as can do."""
    async with running.peer() as peer:
        while len(await peer.call("Task.ls")) < 3:
            await peer.call("Task.start", operation="command", params={"argv": ["sleep", "1000"]})
        while True:
            page = await peer.call("Task.list")
            states = [task["state"] for task in page["tasks"]]
            if states.count("running") >= min(running.settings.running_tasks, running.settings.running_per_owner):
                return states.count("running")
            for task in page["tasks"]:
                if task["state"] == "queued":
                    await peer.call("Task.wait", id=task["id"], after_revision=task["revision"], timeout_s=0.1)


async def log_lines(running: Daemon) -> object:
    async with running.peer() as peer:
        id = (await peer.call("Task.start", operation="external"))["id"]
        await peer.call("Task.update", id=id, log=[str(number) for number in range(10)])
        return len((await peer.call("Task.log", id=id))["lines"])


async def remembered(running: Daemon) -> object:
    """How many of three ended tasks are left when as many have gone as must."""
    async with running.peer() as peer:
        while len(await peer.call("Task.ls")) < 3 and running.settings.retention_count > 1:
            id = (await peer.call("Task.start", operation="external"))["id"]
            await peer.call("Task.complete", id=id)
        while (left := len(await peer.call("Task.ls"))) > running.settings.retention_count:
            pass
        return left


async def remembered_days(running: Daemon) -> object:
    """Whether an ended task is still there, when there is none that must go."""
    async with running.peer() as peer:
        id = (await peer.call("Task.start", operation="external"))["id"]
        await peer.call("Task.complete", id=id)
        while running.settings.retention_days == 0 and await peer.call("Task.ls"):
            pass
        return len(await peer.call("Task.ls"))


async def as_nobody(running: Daemon) -> object:
    """What somebody else's list holds, where root has a task."""
    async with running.peer() as mine:
        await mine.call("Task.start", operation="external")
    async with nobody() as peer:
        return bool(await peer.call("Task.ls"))


async def for_another(_: Daemon) -> object:
    """What comes of a start by somebody else for root."""
    async with nobody() as peer:
        return outcome(await peer.ask("Task.start", operation="external", owner="root"))


async def without_a_token(_: Daemon) -> object:
    async with nobody() as peer:
        return outcome(await peer.ask("Task.ls"))


async def subscriptions(running: Daemon) -> object:
    async with running.peer() as peer:
        replies = []
        for number in (1, 2):
            await peer.send({"jsonrpc": "2.0", "method": "Task.watch", "params": {}, "id": number})
            while (reply := await peer.reply()).get("id") != number:
                pass
            replies.append(reply)
        return outcome(replies[-1])


async def koodrive(running: Daemon) -> object:
    """The code of an answer that says that all is well."""
    async with running.peer() as peer:
        await peer.send(b"GET /koodrive/ose/v1/task/list?pageSize=1 HTTP/1.1\r\nHost: taskd\r\n\r\n")
        data = b""
        while b"}" not in data:
            data += await peer.stream.receive_some()
        return json.loads(data.partition(b"\r\n\r\n")[2])["code"]


@asynccontextmanager
async def nobody() -> AsyncIterator[Peer]:
    """A connection of another user. It is made from inside its folder: those above are root's own."""
    sock = socket.socket(socket.AF_UNIX)
    os.seteuid(NOBODY)
    try:
        sock.connect("s")
    finally:
        os.seteuid(0)
    sock.setblocking(False)
    async with trio.SocketStream(trio.socket.from_stdlib_socket(sock)) as stream:
        yield Peer(stream)


@attrs.frozen
class Seen:
    """A setting's value before and after the reload, how it is looked at, and what is seen then and then."""

    old: object
    new: object
    look: Callable[[Daemon], Awaitable[object]]
    before: object
    after: object


LATE = "no complete message within {} seconds"
SEEN = {
    "log_level": Seen("info", "debug", log_level_seen, False, True),
    "log_format": Seen(
        "text",
        "json",
        log_format_seen,
        "<6>level=info logger=taskd message=hello",
        '<6>{"level": "info", "logger": "taskd", "message": "hello"}',
    ),
    "admins": Seen(("root",), ("nobody",), as_nobody, False, True),
    "services": Seen((), ("nobody",), for_another, "Permission_denied", "done"),
    "proxies": Seen((), ("nobody",), without_a_token, "done", "Unauthenticated"),
    "max_message_bytes": Seen(4096, 1024, message_bytes, None, -32600),
    "max_depth": Seen(100, 8, depth, -32602, -32600),
    "max_batch": Seen(2, 1, batch, "done", "a batch of 2 is over the limit of 1"),
    "max_reply_bytes": Seen(1 << 20, 1 << 16, reply_bytes, "done", "Reply_too_long"),
    "max_text": Seen(1000, 64, text, "done", "params.label: is longer than 64 characters"),
    "max_result_bytes": Seen(1000, 64, result_bytes, "done", "params.result: is longer than 64 bytes as JSON"),
    "message_deadline_s": Seen(0.05, 0.06, deadline, LATE.format(0.05), LATE.format(0.06)),
    "reader_deadline_s": Seen(1000.0, 0.05, is_let_go_of, False, True),
    "connections_per_user": Seen(1, 2, connections, "Too_many_connections", "done"),
    "unread_bytes_per_user": Seen(1 << 24, 1 << 20, unread_bytes, False, True),
    "requests_in_flight": Seen(1, 2, in_flight, [1, 2], [2, 1]),
    "subscriptions_per_connection": Seen(1, 2, subscriptions, "Too_many_subscriptions", "done"),
    "koodrive_wire": Seen("table", "example", koodrive, "0", 0),
    "tasks_per_owner": Seen(1, 3, unfinished, "Too_many_tasks", "done"),
    "running_tasks": Seen(1, 2, running_tasks, 1, 2),
    "running_per_owner": Seen(1, 2, running_tasks, 1, 2),
    "log_lines": Seen(5, 3, log_lines, 5, 3),
    "retention_days": Seen(1.0, 0.0, remembered_days, 1, 0),
    "retention_count": Seen(3, 1, remembered, 3, 1),
}


@pytest.mark.parametrize("name", SEEN)
async def test_what_a_reload_takes_is_seen_to_change(
    daemon: Start, reload: Reload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    seen = SEEN[name]
    if name in ("admins", "services", "proxies") and os.geteuid() != 0:
        pytest.skip("only root can be another user")
    monkeypatch.setattr(server, "HOUR", 0.01)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    async with daemon(**{"socket_mode": "0666", name: seen.old}) as running, AsyncExitStack() as stack:
        stack.enter_context(trio.fail_after(20))
        if seen.look is connections:
            first = await stack.enter_async_context(running.peer())
            await first.call("Task.ls")
        assert await seen.look(running) == seen.before
        await reload(running, **{name: seen.new})
        assert await seen.look(running) == seen.after


async def test_the_grace_of_a_stop_is_that_of_the_last_reload(daemon: Start, reload: Reload) -> None:
    async with daemon(stop_grace_s=1000.0) as running, running.peer() as deaf:
        id = (await deaf.call("Task.start", operation="external", label="x" * 4000))["id"]
        get = {"jsonrpc": "2.0", "method": "Task.get", "params": {"id": id}}
        await reload(running, stop_grace_s=0.05)
        await deaf.send([{**get, "id": n} for n in range(1000)])
        await trio.testing.wait_all_tasks_blocked()
        os.kill(os.getpid(), signal.SIGTERM)
        with trio.fail_after(20):
            while os.path.exists(running.path):
                await trio.sleep(0.01)


def test_every_setting_that_a_reload_takes_is_looked_at_here() -> None:
    taken = {field.name for field in attrs.fields(Config) if field.metadata["reload"]}

    assert set(SEEN) | {"stop_grace_s"} == taken


async def test_what_wants_a_restart_is_said_and_stays(
    daemon: Start, reload: Reload, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with daemon() as running:
        await reload(running, socket=str(tmp_path / "other"), state="/other", socket_mode="0600", max_batch=1)
        assert await batch(running) != "done"
        assert "a restart is needed before a change counts of socket, state, socket_mode" in caplog.messages
        assert "the settings are reloaded; changed: max_batch" in caplog.messages
        await reload(running, max_batch=2)
        assert await batch(running) == "done"

    assert caplog.messages.count("the settings are reloaded; changed: max_batch") == 2
    assert not (tmp_path / "other").exists()


def test_a_reload_tells_apart_what_changes_and_what_waits() -> None:
    old = Config(socket="/a", state="/b")

    assert differences(old, old) == ([], [])
    assert differences(old, attrs.evolve(old, socket="/c", max_text=100)) == (["max_text"], ["socket"])


async def test_a_connection_that_is_open_keeps_its_limits(daemon: Start, reload: Reload) -> None:
    async with daemon(max_batch=2) as running, running.peer() as early:
        call = {"jsonrpc": "2.0", "method": "Task.ls", "params": {}, "id": 1}
        await early.call("Task.ls")
        await reload(running, max_batch=1)
        await early.send([call, call])
        assert len(await early.reply()) == 2
        assert await batch(running) != "done"


class Slow(tuple[str, ...]):
    """Names that are looked at when ``go`` is set."""

    go = threading.Event()

    def __iter__(self) -> Iterator[str]:
        self.go.wait(20)
        return super().__iter__()


@as_root
async def test_whoever_is_looked_up_while_the_roles_change_gets_the_new_ones(
    daemon: Start, reload: Reload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Slow, "go", threading.Event())
    async with daemon(socket_mode="0666", admins=Slow(("nobody",))) as running, running.peer() as root:
        async with nobody() as early:
            await trio.testing.wait_all_tasks_blocked()
            await reload(running, admins=("root",))
            Slow.go.set()
            await root.call("Task.start", operation="external")
            assert await early.call("Task.ls") == []


@as_root
async def test_whoever_is_looked_up_while_the_daemon_stops_is_not_served(
    daemon: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Slow, "go", threading.Event())
    async with daemon(socket_mode="0666", admins=Slow(("nobody",))), nobody() as late:
        await late.send({"jsonrpc": "2.0", "method": "Task.ls", "id": 1})
        await trio.testing.wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGTERM)
        await trio.testing.wait_all_tasks_blocked()
        Slow.go.set()
        with pytest.raises((EOFError, trio.BrokenResourceError)):
            await late.reply()


@as_root
async def test_whoever_has_another_role_now_is_disconnected_and_nobody_else_is(
    daemon: Start, reload: Reload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An admin who no longer is one would stay one for as long as the connection does."""
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    async with daemon(socket_mode="0666", admins=("nobody",)) as running, running.peer() as root:
        await root.call("Task.start", operation="external")
        async with nobody() as fallen:
            assert len(await fallen.call("Task.ls")) == 1
            await reload(running, max_batch=1)
            assert len(await fallen.call("Task.ls")) == 1
            await reload(running, admins=("root",))
            with pytest.raises(EOFError):
                await fallen.reply()
        async with nobody() as again:
            assert await again.call("Task.ls") == []
        assert len(await root.call("Task.ls")) == 1
