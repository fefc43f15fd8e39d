"""Threads: whoever's disks keep them, everybody else is served."""

from __future__ import annotations

import threading
from contextlib import suppress

import attrs
import pytest
import trio

from taskd.errors import PermissionDenied
from taskd.model import JSON, Caller
from taskd.operations import Handle, Operation
from tests.bench import ROOT, by_token, user
from tests.operations.conftest import needs_root
from tests.server.conftest import Daemon, Start, daemon
from tests.server.test_http import web
from tests.server.test_reload import Reload, reload

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


async def looked(running: Daemon, caller: Caller, at: str) -> None:
    with suppress(PermissionDenied):  # who comes by a token has no root to be beneath
        await running.service.start(caller, "toy", {"at": at})


@needs_root
@pytest.mark.parametrize(
    ("caller", "at"), [(user("ann", 1001), "check"), (user("ann", 1001), "targets"), (by_token("ann"), "paths")]
)
async def test_whoever_names_disks_that_do_not_answer_takes_no_thread_that_others_need(
    daemon: Start, reload: Reload, caller: Caller, at: str
) -> None:
    disk = Disk()
    async with daemon({"toy": disk.operation()}) as running, trio.open_nursery() as nursery:
        for _ in range(MOST + 1):
            nursery.start_soon(looked, running, caller, at)
        try:
            with trio.fail_after(20):
                while disk.waiting < MOST:
                    await trio.lowlevel.checkpoint()
                async with running.peer() as late:  # nobody knows who that is yet
                    assert isinstance(await late.call("Task.ls"), list)
                await reload(running, max_batch=7)
                async with web(running) as peer:
                    session = (await peer.xml("session.login_with_password", "root", ""))["Value"]
                    assert (await peer.xml("task.get_all", session))["Status"] == "Success"
                for other in (user("bob", 1002), ROOT):
                    task = await running.service.start(other, "toy", {})
                    assert (await running.service.wait(other, task.id)).state == "completed"
        finally:
            disk.answers.set()
