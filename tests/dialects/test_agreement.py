"""A task looks alike in every dialect, in every state: the table of design.md section 5, walked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from taskd import dialects
from taskd.codec import dumps
from taskd.dialects import smapi
from taskd.dialects.ucloud import call
from taskd.model import JSON, Caller
from taskd.operations import Operation, command, copy, external
from taskd.service import Query, Service
from taskd.states import State
from tests.bench import ROOT, user
from tests.dialects.client import Client, Gates, served
from tests.dialects.koodrive import KooDrive


@attrs.frozen
class Look:
    """One row of the table: what each dialect says of a task in that state."""

    native: State
    smapi: str
    complete: bool
    failed: bool
    xenapi: str
    ucloud: bool
    background: str


TABLE = {
    look.native: look
    for look in (
        Look(State.QUEUED, "Pending", False, False, "pending", False, "IN_QUEUE"),
        Look(State.RUNNING, "Pending", False, False, "pending", False, "RUNNING"),
        Look(State.UNDOING, "Pending", False, False, "pending", False, "RUNNING"),
        Look(State.COMMITTED, "Pending", False, False, "pending", False, "RUNNING"),
        Look(State.COMPLETED, "Completed", True, False, "success", True, "SUCCESS"),
        Look(State.FAILED, "Failed", False, True, "failure", True, "FAILURE"),
        Look(State.CANCELLED, "Failed", False, True, "cancelled", True, "CANCELLED"),
    )
}

METHODS = dialects.table()


async def ask(service: Service, method: str, **params: JSON) -> Mapping[str, JSON]:
    """What it answers, at once and else; strangers are told nothing at once."""
    called = METHODS[method]
    result = await called(service, ROOT, params)
    assert isinstance(result, Mapping)
    if called.at_once is not None:
        at_hand = service.registry.newest(str(params.get("id") or params["operation"][1]))  # type: ignore[index]  # a key
        assert called.now(service, ROOT, params) == (None if at_hand is None else result)
        assert called.now(service, user("mallory"), params) is None
    return result


@attrs.frozen
class Walk:
    """Follows one task and compares all that is said of it, wherever it stands."""

    service: Service
    client: Client
    id: str
    touched: bool = True

    async def reach(self, state: State) -> None:
        """Wait for that state, then look at the task in every dialect."""
        live = self.service.registry.get(self.id)
        with trio.fail_after(60):
            while live is not None and live.task.state is not state:
                await live.changed()
        await trio.testing.wait_all_tasks_blocked()  # it stands at a gate, and all are asked about the same
        native = await ask(self.service, "Task.get", id=self.id)
        stat = await ask(self.service, "Task.stat", id=self.id)
        record = await self.client("task.get_record", f"OpaqueRef:{self.id}")
        ucloud = await ask(self.service, "Tasks.view", id=self.id)
        background = await call(self.service, ROOT, "tasks.retrieve", {"id": native["seq"]})
        listed = await ask(self.service, "Tasks.list")

        look, progress = TABLE[state], native["progress"]
        assert isinstance(progress, Mapping)
        assert isinstance(stat["state"], list)
        word, payload = stat["state"]
        assert (native["state"], word, record["status"]) == (look.native, look.smapi, look.xenapi)
        assert record["progress"] == (1.0 if state.ended else progress["fraction"])
        assert record["allowed_operations"] == (
            ["destroy"] if state.ended else ["cancel"] if native["cancellable"] else []
        )
        assert (record["uuid"], stat["id"], ucloud["jobId"]) == (native["id"], native["id"], native["id"])
        assert ucloud["complete"] is look.ucloud
        assert isinstance(listed["items"], list)
        assert (self.id in [item["jobId"] for item in listed["items"]]) is not look.ucloud
        assert isinstance(background.body, dict)
        untouched = native["operation"] == "external" and not self.touched
        assert background.body["status"]["state"] == ("IN_QUEUE" if untouched else look.background)
        shown = progress["fraction"] * 100 if progress["moved_at"] or state is State.COMPLETED else -1.0
        assert background.body["status"]["progressPercentage"] == shown
        assert (record["finished"] == "19700101T00:00:00Z") is (native["finished_at"] is None)
        if word == "Pending":
            assert payload == progress["fraction"]
            assert record["error_info"] == []
            asked = list(record["current_operations"].values())
            assert asked == (["cancel"] if native["cancel_requested"] else [])
        if state is State.FAILED:
            error = native["error"]
            assert isinstance(error, Mapping)
            assert payload == f"{error['code']}: {error['message']}"
            assert record["error_info"] == [error["code"], *error["data"]]
            assert ucloud["status"] == f"Failed: {error['message']}"
        if state is State.CANCELLED:
            assert payload == "Cancelled"
            assert ucloud["status"] == "Cancelled"
            assert record["error_info"] == ["TASK_CANCELLED", f"OpaqueRef:{self.id}"]
        if native["operation"] == "copy":
            data = await ask(self.service, "Data.stat", operation=["CopyV1", self.id])
            assert (data["complete"], data["failed"]) == (look.complete, look.failed)
            assert data["progress"] == progress["fraction"]


PARAMS: Mapping[str, JSON] = {
    "copy": {"source": "/s", "target": "/t"},
    "command": {"argv": ["/bin/true"]},
}


@pytest.mark.parametrize("kind", [copy.OPERATION, command.OPERATION], ids=lambda kind: str(kind.name))
@pytest.mark.parametrize("end", [State.COMPLETED, State.FAILED, State.CANCELLED])
async def test_all_dialects_agree_on_a_task_in_every_state(tmp_path: Path, kind: Operation, end: State) -> None:
    gates = Gates(fails=end is State.FAILED)
    async with served(tmp_path, gates.operation(kind), running_tasks=1) as (service, client):
        first = await service.start(ROOT, kind.name, PARAMS[kind.name])
        second = await service.start(ROOT, kind.name, PARAMS[kind.name])
        behind, walk = Walk(service, client, second.id), Walk(service, client, first.id)

        await walk.reach(State.RUNNING)
        await behind.reach(State.QUEUED)
        await service.cancel(ROOT, second.id)
        await behind.reach(State.CANCELLED)
        if end is State.CANCELLED:
            await service.cancel(ROOT, first.id)
        gates.work.set()
        await walk.reach(State.COMMITTED if end is State.COMPLETED else State.UNDOING)
        gates.undo.set()
        gates.finish.set()
        await walk.reach(end)


@pytest.mark.parametrize("end", [State.COMPLETED, State.FAILED, State.CANCELLED])
async def test_all_dialects_agree_on_a_task_that_is_done_elsewhere(tmp_path: Path, end: State) -> None:
    async with served(tmp_path) as (service, client):
        ref = await client("task.create", "label", "description")
        walk = Walk(service, client, ref.removeprefix("OpaqueRef:"))

        await attrs.evolve(walk, touched=False).reach(State.RUNNING)
        await client("task.set_progress", ref, 0.5)
        await walk.reach(State.RUNNING)
        if end is State.CANCELLED:
            await client("task.cancel", ref)
            await walk.reach(State.RUNNING)
        if end is State.FAILED:
            await client("task.set_error_info", ref, ["SR_FULL", "4096"])
        await client("task.set_status", ref, TABLE[end].xenapi)
        await walk.reach(end)

    assert external.OPERATION.run is None


async def test_what_one_dialect_keeps_of_a_task_is_not_another_ones_to_change(tmp_path: Path) -> None:
    """Neither is it shown: whoever reads a map, changes it and writes it back would write what is old by then."""
    async with served(tmp_path) as (service, client):
        koodrive = KooDrive(service)
        imported = await koodrive.create(taskType=1, orgId="o", orgUserId="u")
        said: JSON = {"user": "root", "canCancel": True, "icon": "heroTrash"}
        made: Any = await call(service, ROOT, "tasks.create", said)

        async def seen() -> list[Any]:
            cloud: Any = await call(service, ROOT, "tasks.retrieve", {"id": made.body["taskId"]})
            cloud.body.pop("modifiedAt")
            one = await koodrive.detail(imported)
            return [cloud.body, one["taskType"], one["initParams"], await koodrive.ids("taskType=1")]

        before = await seen()
        for task in await service.list(ROOT, Query()):
            ref, kept = f"OpaqueRef:{task.id}", dict(task.annotations)
            assert kept
            config = await client("task.get_other_config", ref)
            assert not kept.keys() & config.keys()
            await client("task.set_other_config", ref, {"k": "v", **dict.fromkeys(kept, "a lie")})
            for key in kept:
                assert (await client.refused("task.add_to_other_config", ref, key, "a lie"))[0] == "INVALID_VALUE"
                await client("task.remove_from_other_config", ref, key)  # no error if absent
            assert await client("task.get_other_config", ref) == {**config, "k": "v"}
            assert (await service.get(ROOT, task.id)).annotations == {**kept, "k": "v"}
        assert await seen() == before


# Lists, of which ``Data.ls`` has copies only.

COPIES = attrs.evolve(external.OPERATION, name="copy")


async def said(service: Service, method: str, caller: Caller) -> bytes:
    """A list as it should be answered: of ids, or of ids as operations."""
    if method == "Task.ls":
        return dumps(await service.ids(caller))
    return dumps([["CopyV1", id] for id in await service.ids(caller, "copy")])


@pytest.mark.parametrize("method", ["Task.ls", "Data.ls"])
async def test_whose_tasks_a_list_has_is_the_same_at_once_and_else(tmp_path: Path, method: str) -> None:
    async with served(tmp_path, COPIES) as (service, _):
        ann, bob = user("ann"), user("bob")
        for caller in (ann, bob, ann):
            await service.start(caller, "copy", {})
        if method == "Data.ls":
            await service.start(ann, "external", {})
        for caller, tasks in ((ann, 2), (bob, 1), (user("mallory"), 0), (ROOT, 3)):
            ls = METHODS[method]
            listed = dumps(await ls(service, caller, {}))
            assert listed == await said(service, method, caller)
            assert listed.count(b"-") == 4 * tasks
            assert dumps(ls.now(service, caller, {})) == listed


@pytest.mark.parametrize("method", ["Task.ls", "Data.ls"])
async def test_a_long_list_is_left_to_the_call_which_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    async with served(tmp_path, COPIES) as (service, _):
        await service.start(ROOT, "copy", {})
        ls = METHODS[method]
        monkeypatch.setattr(smapi, "AT_ONCE", len(dumps(await service.ids(ROOT))) - 1)

        assert ls.now(service, ROOT, {}) is None
        assert dumps(await ls(service, ROOT, {})) == await said(service, method, ROOT)
