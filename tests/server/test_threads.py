"""Threads: whoever's disks keep them, everybody else is served; and where there is none, the daemon goes on."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from taskd.config import Config
from taskd.dialects.xenapi import XenApi
from taskd.errors import PermissionDenied
from taskd.model import JSON, Caller, Rights
from taskd.operations import Handle, Operation
from taskd.operations.image.work import in_own_thread, in_thread
from taskd.runner.rights import acting
from taskd.server import Server, forget_old
from taskd.store.memory import MemoryStore
from taskd.store.sqlite import SqliteStore
from tests.bench import ROOT, by_token, running, user
from tests.operations.conftest import needs_root
from tests.server.conftest import Daemon, Peer, Start, daemon
from tests.server.test_http import web
from tests.server.test_reload import Reload, batch, reload
from tests.starved import no_thread

__all__ = ["daemon", "reload"]  # the fixtures

# As many threads as trio has, where it is not told otherwise.
MOST = 40


@attrs.frozen
class Looks:
    """What is looked at on a disk that does not answer."""

    at: str = "nothing"


@attrs.define(eq=False)
class Disk:
    """One that does not answer; so many threads wait for it."""

    waiting: int = 0
    answers: threading.Event = attrs.field(factory=threading.Event)

    def look(self, at: str, params: Looks) -> None:
        if params.at == at:
            self.waiting += 1
            self.answers.wait()

    def operation(self) -> Operation:
        def check(params: Looks) -> None:
            self.look("check", params)

        def targets(params: Looks) -> frozenset[str]:
            self.look("targets", params)
            return frozenset()

        def paths(params: Looks) -> tuple[str, ...]:
            self.look("paths", params)
            return ()

        async def run(params: Looks, handle: Handle) -> JSON:
            return None

        everyone = frozenset({"admin", "user"})
        return Operation("toy", "", Looks, run, check=check, targets=targets, paths=paths, roles=everyone)


async def looked(serving: Daemon, caller: Caller, at: str) -> None:
    with suppress(PermissionDenied):  # who comes by a token has no root to be beneath
        await serving.service.start(caller, "toy", {"at": at})


@needs_root
@pytest.mark.parametrize(
    ("caller", "at"), [(user("ann", 1001), "check"), (user("ann", 1001), "targets"), (by_token("ann"), "paths")]
)
async def test_whoever_names_disks_that_do_not_answer_takes_no_thread_that_others_need(
    daemon: Start, reload: Reload, caller: Caller, at: str
) -> None:
    disk = Disk()
    async with daemon({"toy": disk.operation()}) as serving, trio.open_nursery() as nursery:
        for _ in range(MOST + 1):
            nursery.start_soon(looked, serving, caller, at)
        try:
            with trio.fail_after(20):
                while disk.waiting < MOST:
                    await trio.lowlevel.checkpoint()
                async with serving.peer() as late:  # nobody knows who that is yet
                    assert isinstance(await late.call("Task.ls"), list)
                await reload(serving, max_batch=7)
                async with web(serving) as peer:
                    session = (await peer.xml("session.login_with_password", "root", ""))["Value"]
                    assert (await peer.xml("task.get_all", session))["Status"] == "Success"
                for other in (user("bob", 1002), ROOT):
                    task = await serving.service.start(other, "toy", {})
                    assert (await serving.service.wait(other, task.id)).state == "completed"
        finally:
            disk.answers.set()


@needs_root
async def test_copies_onto_a_disk_that_does_not_answer_take_no_thread_of_other_users() -> None:
    """However many: an undo has no slot. What is done with the daemon's own rights is the task's user's, too."""
    disk = Disk()

    async def copy(call: Callable[..., Awaitable[None]], uid: int, at: str = "copy") -> None:
        with acting(Rights(uid, uid) if uid else None):
            await call(disk.look, at, Looks("copy"))

    async with trio.open_nursery() as nursery:
        for uid, call in ((1001, in_thread), (1002, in_own_thread)):
            for _ in range(65):
                nursery.start_soon(copy, call, uid)
        try:
            with trio.fail_after(20):
                while disk.waiting < 2 * 64:
                    await trio.lowlevel.checkpoint()
                for uid in (1003, 0):
                    await copy(in_thread, uid, "elsewhere")
                    await copy(in_own_thread, uid, "elsewhere")
        finally:
            disk.answers.set()


async def test_long_xml_is_read_and_written_in_one_thread_and_callers_are_looked_up_meanwhile(
    daemon: Start,
) -> None:
    """Sixteen threads of it left the event loop a turn in a second."""
    answers = list[JSON]()

    async def ask(number: int) -> None:
        async with web(serving) as peer:
            long = ("task.get_all_records", session) if number % 2 else ("system.listMethods", [number] * 1000)
            answers.append(await peer.xml(*long))

    async with daemon() as serving, web(serving) as other, trio.open_nursery() as nursery:
        session = (await other.xml("session.login_with_password", "", ""))["Value"]
        for _ in range(30):
            task = (await other.xml("task.create", session, "label", ""))["Value"]
        async with serving.service.turns._thread:
            for number in range(2 * MOST):
                nursery.start_soon(ask, number)
            await wait_all_tasks_blocked(0.01)
            assert (await other.xml("task.get_record", session, task))["Status"] == "Success"
            async with serving.peer() as late:
                assert len(await late.call("Task.ls")) == 30
            assert answers == []
    assert len(answers) == 2 * MOST


NONE = "can't start new thread"


async def test_a_thread_that_has_done_its_work_where_none_can_be_had_is_not_to_be_had_there() -> None:
    """One that another test had left was, once, and what was to be refused was done."""
    work, back = threading.Event(), threading.Event()
    trio.lowlevel.start_thread_soon(work.wait, lambda _: back.set())
    with no_thread():
        work.set()
        back.wait()
        with pytest.raises(RuntimeError, match=NONE):
            await trio.to_thread.run_sync(int)


async def test_long_xml_is_read_and_written_where_no_thread_can_be_had(daemon: Start) -> None:
    """The connection was closed without an answer, and that after the call was done."""
    async with daemon() as serving, web(serving) as peer:
        session = (await peer.xml("session.login_with_password", "", ""))["Value"]
        for _ in range(30):
            await peer.xml("task.create", session, "label", "")
        with no_thread():
            assert (await peer.xml("system.listMethods", [0] * 1000))["Status"] == "Failure"  # it takes no params
            assert len((await peer.xml("task.get_all_records", session))["Value"]) == 30


async def test_a_reload_that_finds_no_thread_keeps_the_settings_and_the_next_one_takes_them(
    daemon: Start, reload: Reload, caplog: pytest.LogCaptureFixture
) -> None:
    async with daemon() as serving, serving.peer() as peer:
        await peer.call("Task.ls")
        with no_thread():
            await reload(serving, max_batch=1)
            assert f"the settings stay as they were: {NONE}" in caplog.messages
            assert await peer.call("Task.ls") == []
        assert await batch(serving) == "done"
        await reload(serving)
        assert await batch(serving) == "a batch of 2 is over the limit of 1"


async def test_who_cannot_be_looked_up_again_by_new_settings_is_disconnected(tmp_path: Path) -> None:
    async with running(MemoryStore(), {}, str(tmp_path)) as service, trio.open_nursery() as nursery:
        ours = Server(Config(), service, XenApi(service))
        near, far = trio.socket.socketpair()
        nursery.start_soon(ours.connected, trio.SocketStream(far))
        async with trio.SocketStream(near) as stream:
            peer = Peer(stream)
            assert await peer.call("Task.ls") == []
            with no_thread():
                await ours.apply(attrs.evolve(ours.config, max_batch=7))
            with pytest.raises(EOFError):
                await peer.reply()


async def test_old_tasks_that_no_thread_can_be_had_to_forget_wait_for_the_next_hour(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = await SqliteStore.open(tmp_path / "taskd.sqlite")
    async with trio.open_nursery() as nursery:
        with no_thread():
            nursery.start_soon(forget_old, store, Config)
            await wait_all_tasks_blocked()
        assert caplog.messages == [f"cannot forget old tasks: the store cannot read: {NONE}"]
        nursery.cancel_scope.cancel()
    await store.close()
