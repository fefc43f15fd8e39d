"""A client that calls the XenAPI dialect directly, without bytes; and toys to walk a task through its states."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from taskd.dialects.xenapi import XenApi
from taskd.errors import TargetExists, XenApiError
from taskd.model import JSON, Caller, Undo
from taskd.operations import Handle, Operation, external
from taskd.service import Service
from taskd.store import Store
from taskd.store.memory import MemoryStore
from tests.bench import ROOT, running


@attrs.frozen(eq=False)
class Client:
    """One caller in one session."""

    api: XenApi
    caller: Caller
    session: str

    async def __call__(self, method: str, *args: JSON) -> Any:
        return await self.api.call(self.caller, method, [self.session, *args])

    async def refused(self, method: str, *args: JSON) -> list[str]:
        """The code and the params that the call is refused with."""
        return await refused(self.api, self.caller, method, self.session, *args)


async def refused(api: XenApi, caller: Caller, method: str, *args: JSON) -> list[str]:
    """The code and the params that a call without a session of its own is refused with."""
    try:
        result = await api.call(caller, method, args)
    except XenApiError as error:
        return [error.name, *error.data]
    raise AssertionError(f"{method} gave {result!r}")


async def login(api: XenApi, caller: Caller = ROOT) -> Client:
    session = await api.call(caller, "session.login_with_password", ["anybody", "any password"])
    assert isinstance(session, str)
    return Client(api, caller, session)


@attrs.define
class Gates:
    """Doors in the life of a toy's task, each of which it waits at."""

    work: trio.Event = attrs.field(factory=trio.Event)
    undo: trio.Event = attrs.field(factory=trio.Event)
    finish: trio.Event = attrs.field(factory=trio.Event)
    fails: bool = False

    def operation(self, like: Operation) -> Operation:
        """An operation of that one's name and params that waits at each gate."""

        async def run(params: object, handle: Handle) -> JSON:
            await handle.journal("undo")
            handle.progress(1, 2)
            await self.work.wait()
            if self.fails:
                raise TargetExists("/the/target")
            await handle.commit({"bytes": 5_000_000_000}, [Undo("finish")])
            return None

        verbs = {"undo": self.undo.wait, "finish": self.finish.wait}
        return attrs.evolve(
            like, run=run, verbs=verbs, check=None, targets=None, urgent=frozenset(), restartable=False
        )


@asynccontextmanager
async def served(
    folder: Path, *operations: Operation, store: Store | None = None, **settings: Any
) -> AsyncIterator[tuple[Service, Client]]:
    """A service with those operations and ``external``, and root's client."""
    table: Mapping[str, Operation] = {each.name: each for each in (*operations, external.OPERATION)}
    async with running(store or MemoryStore(), table, str(folder / "workspace"), **settings) as service:
        yield service, await login(XenApi(service))
