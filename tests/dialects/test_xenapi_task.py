"""XenAPI's class ``task``: its fields, its messages, and whose they are."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree.ElementTree import fromstring

import attrs
import pytest
import trio

from taskd.dialects.xenapi import XenApi
from taskd.dialects.xenapi.record import FIELDS, date_time, encode, record
from taskd.dialects.xenapi.task import as_value
from taskd.model import JSON, DateTime, Draft, Failure, Progress, Task, Time, Undo
from taskd.operations import copy
from taskd.service.notes import ANNOTATIONS
from taskd.states import State
from taskd.store.memory import MemoryStore
from taskd.store.sqlite import SqliteStore
from tests.bench import ROOT, ended, user
from tests.dialects.client import Gates, login, refused, served

# The class as its published text has it (shared seeds, and xen-api's datamodel).
MESSAGES = {
    "create", "destroy", "cancel", "set_status", "set_progress", "set_result", "set_error_info",
    "add_to_other_config", "remove_from_other_config", "set_other_config", "get_record", "get_by_uuid",
    "get_by_name_label", "get_all", "get_all_records", "get_all_where", "get_all_records_where",
}  # fmt: skip

EXAMPLE = Task(
    id="6a0c5d3e-0000-4000-8000-000000000001",
    operation="copy",
    params={},
    owner="root",
    processor="taskd",
    resident_on="host.example",
    created_at=Time(1_767_268_800.0),
    label="a label",
    description="a description",
    debug_info="who asked",
    state=State.RUNNING,
    progress=Progress(1, 4, "bytes", 0.25),
)
REF = f"OpaqueRef:{EXAMPLE.id}"


def with_end(state: State, **more: object) -> Task:
    changes: dict[str, object] = {
        "state": state,
        "cancellable": False,
        "finished_at": Time(1_767_268_801.5),
        **more,
    }
    return attrs.evolve(EXAMPLE, **changes)  # type: ignore[arg-type]  # of many types


def id_of(ref: str) -> str:
    return ref.removeprefix("OpaqueRef:")


# The record.


def test_a_record_of_a_running_task_is_as_xapi_would_write_it() -> None:
    said = record(EXAMPLE, ["b", "a"])

    host = said.pop("resident_on")
    assert said == {
        "uuid": EXAMPLE.id,
        "name_label": "a label",
        "name_description": "a description",
        "allowed_operations": ["cancel"],
        "current_operations": {},
        "created": "20260101T12:00:00Z",
        "finished": "19700101T00:00:00Z",
        "status": "pending",
        "progress": 0.25,
        "type": "<none/>",
        "result": "",
        "error_info": [],
        "other_config": {
            "debug_info:operation": "copy",
            "debug_info:state": "running",
            "debug_info:owner": "root",
            "debug_info:dbg": "who asked",
        },
        "subtask_of": "OpaqueRef:NULL",
        "subtasks": ["OpaqueRef:a", "OpaqueRef:b"],
        "backtrace": "()",
    }
    assert isinstance(said["created"], DateTime)
    assert re.fullmatch(r"OpaqueRef:[0-9a-f-]{36}", str(host))
    assert tuple(record(EXAMPLE)) == FIELDS


def test_what_may_be_done_with_a_task_is_told_truthfully() -> None:
    committed = attrs.evolve(EXAMPLE, state=State.COMMITTED, cancellable=False)
    residue = with_end(State.FAILED, journal=(Undo("unlink"),))

    assert record(EXAMPLE)["allowed_operations"] == ["cancel"]
    assert record(committed)["allowed_operations"] == []
    assert record(with_end(State.COMPLETED))["allowed_operations"] == ["destroy"]
    assert record(residue)["allowed_operations"] == []  # a destroy would be refused


def test_progress_is_one_once_a_task_has_ended_however_it_did() -> None:
    for state in (State.COMPLETED, State.FAILED, State.CANCELLED):
        assert record(with_end(state))["progress"] == 1.0
        assert record(with_end(state))["finished"] == "20260101T12:00:01Z"


@pytest.mark.parametrize(
    ("failure", "error_info"),
    [
        (Failure("SR_FULL", "", ("4096", "1")), ["SR_FULL", "4096", "1"]),
        (Failure("SR_FULL", "it is full"), ["SR_FULL", "it is full"]),
        (Failure("SR_FULL", ""), ["SR_FULL"]),
        (Failure("", ""), ["INTERNAL_ERROR"]),
        (None, ["INTERNAL_ERROR", "unknown"]),
    ],
)
def test_the_error_of_a_failed_task_is_never_empty(failure: Failure | None, error_info: list[str]) -> None:
    """npm's xen-api makes ``undefined()`` of an empty one."""
    assert record(with_end(State.FAILED, error=failure))["error_info"] == error_info


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (None, ""),
        ("OpaqueRef:x", "<value>OpaqueRef:x</value>"),
        (5_000_000_000, "<value>5000000000</value>"),
        (True, "<value><boolean>1</boolean></value>"),
        (0.5, "<value><double>0.5</double></value>"),
        ([1, None], "<value><array><data><value>1</value><value><nil/></value></data></array></value>"),
        ({"a&b": "<"}, "<value><struct><member><name>a&amp;b</name><value>&lt;</value></member></struct></value>"),
        ("a\0b\ud800", "<value>a\ufffdb\ufffd</value>"),
        ("", ""),
    ],
)
def test_a_result_is_nothing_or_xml(result: JSON, text: str) -> None:
    assert record(with_end(State.COMPLETED, result=result))["result"] == text
    assert text == "" or fromstring(text).tag == "value"
    assert record(with_end(State.FAILED, result=result))["result"] == ""


def test_what_a_producer_calls_a_result_becomes_xml_if_it_is_none() -> None:
    """npm's xen-api parses it, and chokes on a bare text."""
    assert as_value("") is None
    assert as_value("<value>OpaqueRef:x</value>") == "<value>OpaqueRef:x</value>"
    assert as_value("plain") == "<value>plain</value>"
    assert as_value("<value>broken") == "<value>&lt;value&gt;broken</value>"
    assert as_value("<other/>") == "<value>&lt;other/&gt;</value>"
    bomb = '<!DOCTYPE value [<!ENTITY a "aaaa">]><value>&a;</value>'
    assert as_value(bomb) == encode(bomb)


def test_a_time_has_no_hyphens_and_whole_seconds() -> None:
    assert date_time(1_767_268_800.999) == "20260101T12:00:00Z"


# Looking.


async def test_every_message_and_every_getter_of_the_class_answers(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        ref = await client("task.create", "a label", "a description")
        listed = await client.api.call(ROOT, "system.listMethods", [])
        one = await client("task.get_record", ref)

        assert isinstance(listed, list)
        assert {f"task.{name}" for name in MESSAGES} <= set(listed)
        for field in FIELDS:
            assert await client(f"task.get_{field}", ref) == one[field], field


async def test_a_class_is_named_in_any_case_and_a_dot_may_be_an_underscore(tmp_path: Path) -> None:
    """Python cannot say ``event.from``, and old documents write ``Task``."""
    async with served(tmp_path) as (_, client):
        ref = await client("Task.create", "l", "d")
        for method in ("task.get_status", "task_get_status", "Task.get_status", "TASK_get_status"):
            assert await client(method, ref) == "pending"
        assert await client.refused("task.Get_status", ref) == ["MESSAGE_METHOD_UNKNOWN", "task.Get_status"]


async def test_tasks_are_found_by_uuid_by_label_and_by_expression(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        one, other = [await client("task.create", label, "") for label in ("one", "other")]
        await client("task.set_status", other, "success")

        assert await client("task.get_by_uuid", id_of(one)) == one
        assert await client.refused("task.get_by_uuid", "nobody") == ["UUID_INVALID", "task", "nobody"]
        assert await client("task.get_by_name_label", "other") == [other]
        assert await client("task.get_by_name_label", "none") == []
        assert await client("task.get_all") == [one, other]
        assert await client("task.get_all_where", 'field "status" = "pending"') == [one]
        assert list(await client("task.get_all_records_where", 'not field "name__label" = "one"')) == [other]
        assert await client("task.get_all_where", f'field "_ref" = "{one}"') == [one]
        assert await client("task.get_all_records_where", "true") == await client("task.get_all_records")


async def test_all_records_are_all_however_many_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskd.dialects.xenapi.task.PAGE", 2)
    async with served(tmp_path) as (_, client):
        refs = [await client("task.create", str(n), "") for n in range(5)]

        assert list(await client("task.get_all_records")) == refs


# A task that is done elsewhere.


async def test_a_task_that_is_created_is_an_external_task_of_its_creator(tmp_path: Path) -> None:
    async with served(tmp_path) as (service, client):
        ref = await client("task.create", "a label", "a description")
        task = await service.get(ROOT, id_of(ref))

        assert (task.operation, task.owner, task.processor) == ("external", "root", "root")
        assert (task.label, task.description, task.state) == ("a label", "a description", State.RUNNING)


async def test_a_producer_reports_progress_and_result_and_ends_with_success(tmp_path: Path) -> None:
    async with served(tmp_path) as (service, client):
        ref = await client("task.create", "l", "d")
        assert await client("task.set_progress", ref, 0.25) == ""
        assert await client("task.get_progress", ref) == 0.25
        await client("task.set_progress", ref, 1)
        await client("task.set_result", ref, "OpaqueRef:made")
        assert await client("task.get_result", ref) == "<value>OpaqueRef:made</value>"
        assert await client("task.set_status", ref, "success") == ""

        one = await client("task.get_record", ref)
        assert (one["status"], one["progress"], one["result"]) == (
            "success",
            1.0,
            "<value>OpaqueRef:made</value>",
        )
        assert one["error_info"] == []
        assert (await service.get(ROOT, id_of(ref))).result == "<value>OpaqueRef:made</value>"


async def test_a_producer_fails_with_the_error_that_it_told_before(tmp_path: Path) -> None:
    async with served(tmp_path) as (service, client):
        ref = await client("task.create", "l", "d")
        await client("task.set_error_info", ref, ["SR_FULL", "4096", "1"])
        assert await client("task.get_error_info", ref) == ["SR_FULL", "4096", "1"]
        assert await client("task.get_status", ref) == "pending"
        await client("task.set_status", ref, "failure")

        assert await client("task.get_status", ref) == "failure"
        assert await client("task.get_error_info", ref) == ["SR_FULL", "4096", "1"]
        error = (await service.get(ROOT, id_of(ref))).error
        assert error == Failure("SR_FULL", "4096, 1", ("4096", "1"))


async def test_a_producer_that_fails_without_a_reason_is_given_one(tmp_path: Path) -> None:
    """As the storage garbage collector does."""
    async with served(tmp_path) as (_, client):
        ref = await client("task.create", "l", "d")
        await client("task.set_status", ref, "failure")

        assert await client("task.get_error_info", ref) == ["TASK_FAILED", "its producer gave no reason"]


async def test_the_first_end_stays(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        ref = await client("task.create", "l", "d")
        await client("task.set_result", ref, "<value>1</value>")
        await client("task.set_status", ref, "success")
        before = await client("task.get_record", ref)

        await client("task.set_status", ref, "success")  # said already
        await client("task.set_status", ref, "cancelled")  # a cancel that comes too late
        await client("task.cancel", ref)
        for method, value in (
            ("task.set_status", "failure"),
            ("task.set_status", "pending"),
            ("task.set_progress", 0.5),
            ("task.set_result", "<value>2</value>"),
            ("task.set_error_info", ["E"]),
            ("task.set_other_config", {"k": "v"}),
        ):
            assert (await client.refused(method, ref, value))[0] == "OPERATION_NOT_ALLOWED", method
        assert await client("task.get_record", ref) == before


async def test_a_cancel_is_shown_to_the_producer_who_obeys_or_not(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        obeys, ignores = [await client("task.create", "l", "d") for _ in range(2)]
        for ref in (obeys, ignores):
            await client("task.cancel", ref)
            await client("task.cancel", ref)
            assert list((await client("task.get_current_operations", ref)).values()) == ["cancel"]
            assert await client("task.get_status", ref) == "pending"
        await client("task.set_status", obeys, "cancelled")
        await client("task.set_status", ignores, "success")

        assert await client("task.get_status", obeys) == "cancelled"
        assert await client("task.get_error_info", obeys) == ["TASK_CANCELLED", obeys]
        assert await client("task.get_status", ignores) == "success"
        assert await client("task.get_current_operations", obeys) == {}


async def test_a_producer_that_has_not_heard_of_a_cancel_and_fails_has_failed(tmp_path: Path) -> None:
    """XenServer's collector never looks for one; who obeys says ``cancelled``, or xapi's own code for it."""
    async with served(tmp_path) as (service, client):
        fails, obeys = [await client("task.create", "l", "d") for _ in range(2)]
        for ref, error in ((fails, ["SR_FULL", "4096"]), (obeys, ["TASK_CANCELLED", obeys])):
            await client("task.cancel", ref)
            await client("task.set_error_info", ref, error)
            await client("task.set_status", ref, "failure")

        assert await client("task.get_status", fails) == "failure"
        assert await client("task.get_error_info", fails) == ["SR_FULL", "4096"]
        assert (await service.get(ROOT, id_of(fails))).cancel_requested
        assert await client("task.get_status", obeys) == "cancelled"
        assert await client("task.get_error_info", obeys) == ["TASK_CANCELLED", obeys]


async def test_a_producer_may_call_its_task_off_though_nobody_asked(tmp_path: Path) -> None:
    async with served(tmp_path) as (service, client):
        ref = await client("task.create", "l", "d")
        await client("task.set_status", ref, "cancelled")

        assert await client("task.get_status", ref) == "cancelled"
        assert (await service.get(ROOT, id_of(ref))).error is None


async def test_cancelling_is_a_cancel_and_not_an_end(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        ref = await client("task.create", "l", "d")
        await client("task.set_status", ref, "cancelling")

        assert await client("task.get_status", ref) == "pending"
        assert list((await client("task.get_current_operations", ref)).values()) == ["cancel"]


# A task that taskd runs itself.


async def test_cancelled_said_of_a_running_operation_is_a_cancel_that_is_asked_for(tmp_path: Path) -> None:
    gates = Gates()
    async with served(tmp_path, gates.operation(copy.OPERATION)) as (service, client):
        task = await service.start(ROOT, "copy", {"source": "/s", "target": "/t"})
        ref = f"OpaqueRef:{task.id}"
        await trio.testing.wait_all_tasks_blocked()
        await client("task.set_status", ref, "cancelled")

        assert await client("task.get_status", ref) == "pending"  # it is being undone
        assert list((await client("task.get_current_operations", ref)).values()) == ["cancel"]
        gates.undo.set()
        await ended(service, task.id)
        assert await client("task.get_status", ref) == "cancelled"


async def test_the_end_of_a_running_operation_is_not_for_others_to_say(tmp_path: Path) -> None:
    gates = Gates()
    async with served(tmp_path, gates.operation(copy.OPERATION)) as (service, client):
        task = await service.start(ROOT, "copy", {"source": "/s", "target": "/t"})
        ref = f"OpaqueRef:{task.id}"
        for method, value in (
            ("task.set_status", "success"),
            ("task.set_status", "failure"),
            ("task.set_progress", 0.5),
            ("task.set_result", ""),
            ("task.set_error_info", []),
        ):
            assert (await client.refused(method, ref, value))[0] == "OPERATION_NOT_ALLOWED", method
        await client("task.set_other_config", ref, {"applies_to": "sr"})
        assert (await client("task.get_other_config", ref))["applies_to"] == "sr"


async def test_a_cancel_that_comes_after_the_commit_is_a_successful_no_op(tmp_path: Path) -> None:
    gates = Gates()
    async with served(tmp_path, gates.operation(copy.OPERATION)) as (service, client):
        task = await service.start(ROOT, "copy", {"source": "/s", "target": "/t"})
        ref = f"OpaqueRef:{task.id}"
        gates.work.set()
        await trio.testing.wait_all_tasks_blocked()
        assert await client("task.cancel", ref) == ""
        assert await client("task.get_allowed_operations", ref) == []
        gates.finish.set()
        await ended(service, task.id)

        one = await client("task.get_record", ref)
        assert (one["status"], one["result"]) == (
            "success",
            "<value><struct><member><name>bytes</name><value>5000000000</value></member></struct></value>",
        )


# other_config.


async def test_other_config_is_set_added_to_and_taken_from(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        ref = await client("task.create", "l", "d")

        async def notes() -> dict[str, str]:
            config = await client("task.get_other_config", ref)
            return {key: value for key, value in config.items() if not key.startswith("debug_info:")}

        await client("task.add_to_other_config", ref, "a", "1")
        await client("task.add_to_other_config", ref, "b", "2")
        assert await notes() == {"a": "1", "b": "2"}
        assert await client.refused("task.add_to_other_config", ref, "a", "3") == [
            "MAP_DUPLICATE_KEY", "task", "other_config", ref, "a",
        ]  # fmt: skip
        await client("task.remove_from_other_config", ref, "a")
        await client("task.remove_from_other_config", ref, "a")  # no error if absent
        assert await notes() == {"b": "2"}
        await client("task.set_other_config", ref, {"c": "3"})
        assert await notes() == {"c": "3"}


async def test_what_taskd_tells_in_other_config_is_nobodys_to_set(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        ref = await client("task.create", "l", "d")
        before = await client("task.get_other_config", ref)
        await client(
            "task.set_other_config", ref, {**before, "debug_info:state": "a lie", "debug_info:more": "a lie"}
        )
        taken = await client.refused("task.add_to_other_config", ref, "debug_info:state", "a lie")
        free = await client.refused("task.add_to_other_config", ref, "debug_info:mine", "a lie")

        assert taken == ["MAP_DUPLICATE_KEY", "task", "other_config", ref, "debug_info:state"]
        assert free[:2] == ["INVALID_VALUE", "other_config"]
        assert await client("task.get_other_config", ref) == before


async def test_other_config_has_an_end(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        ref = await client("task.create", "l", "d")
        refusal = await client.refused("task.set_other_config", ref, {"k": "v" * ANNOTATIONS})

    assert refusal[:2] == ["INVALID_VALUE", "other_config"]


# Destroying.


async def test_a_destroy_of_an_ended_task_is_done_at_once(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        ref = await client("task.create", "l", "d")
        await client("task.set_status", ref, "success")
        assert await client("task.destroy", ref) == ""

        assert await client.refused("task.get_record", ref) == ["HANDLE_INVALID", "task", ref]
        assert await client.refused("task.destroy", ref) == ["HANDLE_INVALID", "task", ref]


async def test_a_destroy_of_a_pending_task_waits_for_its_end(tmp_path: Path) -> None:
    async with served(tmp_path) as (service, client):
        ref = await client("task.create", "l", "d")
        await client("task.destroy", ref)
        await client("task.destroy", ref)
        assert await client("task.get_current_operations", ref) == {"task": "destroy"}
        await client("task.set_progress", ref, 0.5)
        await client("task.set_status", ref, "success")
        await trio.testing.wait_all_tasks_blocked()

        assert await client("task.get_all") == []
        assert service.count(ROOT) == 0


async def test_a_destroy_that_waits_survives_a_restart(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "db")
    async with served(tmp_path, store=store) as (_, client):
        ref = await client("task.create", "l", "d")
        await client("task.destroy", ref)
        await client("task.add_to_other_config", ref, "k", "v")
        await client("task.set_result", ref, "<value>1</value>")
        await client("task.set_error_info", ref, ["E", "p"])
        before = await client("task.get_record", ref)
    async with served(tmp_path, store=store) as (_, client):
        assert await client("task.get_record", ref) == before
        await client("task.set_status", ref, "failure")
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(20):
            while await client("task.get_all"):
                await trio.lowlevel.checkpoint()
    await store.close()


async def test_a_crash_between_the_end_and_the_destroy_does_not_forget_it(tmp_path: Path) -> None:
    store = MemoryStore()
    ended_and_owed = attrs.evolve(with_end(State.COMPLETED), destroy_on_finish=True, revision=1)
    await store.create(ended_and_owed)
    async with served(tmp_path, store=store) as (_, client):
        await trio.testing.wait_all_tasks_blocked()

        assert await client("task.get_all") == []


# Whose it is.


async def test_a_foreign_task_is_as_one_that_does_not_exist(tmp_path: Path) -> None:
    async with served(tmp_path) as (service, client):
        alice = await login(client.api, user("alice", 1001))
        bob = await login(client.api, user("bob", 1002))
        ref = await alice("task.create", "secret", "")
        nobody = "OpaqueRef:11111111-1111-4111-8111-111111111111"

        async def refusals(ref: str) -> list[list[str]]:
            return [
                await bob.refused(method, ref, *args)
                for method, *args in (
                    ("task.get_record",), ("task.get_status",), ("task.cancel",), ("task.destroy",),
                    ("task.set_status", "success"), ("task.set_progress", 0.5), ("task.set_result", "r"),
                    ("task.set_error_info", ["e"]), ("task.set_other_config", {}),
                    ("task.add_to_other_config", "k", "v"), ("task.remove_from_other_config", "k"),
                )
            ]  # fmt: skip

        assert await refusals(ref) == [["HANDLE_INVALID", "task", ref]] * 11
        assert await refusals(nobody) == [["HANDLE_INVALID", "task", nobody]] * 11
        assert await bob.refused("task.get_by_uuid", id_of(ref)) == ["UUID_INVALID", "task", id_of(ref)]
        assert await bob("task.get_all") == []
        assert await bob("task.get_by_name_label", "secret") == []
        assert await bob("task.get_all_where", "true") == []
        assert list(await client("task.get_all_records")) == [ref]  # an admin
        await client("task.set_status", ref, "cancelled")
        assert (await service.get(ROOT, id_of(ref))).state is State.CANCELLED


async def test_a_part_says_what_it_is_a_part_of(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        whole = await client("task.create", "whole", "")
        part = await client.api.call(ROOT, "task.create", [client.session, "part", ""], subtask_of=whole)
        stray = await client.api.call(
            ROOT, "task.create", [client.session, "stray", ""], subtask_of="OpaqueRef:gone"
        )

        assert await client("task.get_subtask_of", part) == whole
        assert await client("task.get_subtasks", whole) == [part]
        assert await client("task.get_subtask_of", stray) == "OpaqueRef:NULL"
        await client("task.set_status", part, "success")
        assert await client("task.get_subtasks", whole) == [part]
        await client("task.destroy", part)
        assert await client("task.get_subtasks", whole) == []


# What is wrong with a call.


@pytest.mark.parametrize(
    ("method", "args", "refusal"),
    [
        ("task.nothing", [], ["MESSAGE_METHOD_UNKNOWN", "task.nothing"]),
        ("Async.task.cancel", [], ["MESSAGE_METHOD_UNKNOWN", "Async.task.cancel"]),
        ("VM.start", ["x"], ["MESSAGE_METHOD_UNKNOWN", "VM.start"]),
        ("", [], ["MESSAGE_METHOD_UNKNOWN", ""]),
        ("task.create", ["l"], ["MESSAGE_PARAMETER_COUNT_MISMATCH", "task.create", "2", "1"]),
        ("task_get_all", ["x"], ["MESSAGE_PARAMETER_COUNT_MISMATCH", "task_get_all", "0", "1"]),
        ("task.create", [1, ""], ["FIELD_TYPE_ERROR", "label"]),
        ("task.get_record", ["no ref"], ["HANDLE_INVALID", "task", "no ref"]),
        ("task.get_record", [""], ["HANDLE_INVALID", "task", ""]),
        ("task.get_record", ["OpaqueRef:NULL"], ["HANDLE_INVALID", "task", "OpaqueRef:NULL"]),
        ("task.get_record", [None], ["FIELD_TYPE_ERROR", "self"]),
        ("task.cancel", [{}], ["FIELD_TYPE_ERROR", "task"]),
        ("task.set_status", ["REF", "done"], ["INVALID_VALUE", "status", "done"]),
        ("task.set_status", ["REF", 3], ["FIELD_TYPE_ERROR", "status"]),
        ("task.set_progress", ["REF", "half"], ["FIELD_TYPE_ERROR", "progress"]),
        ("task.set_progress", ["REF", True], ["FIELD_TYPE_ERROR", "progress"]),
        ("task.set_progress", ["REF", 1.5], ["INVALID_VALUE", "progress", "1.5"]),
        ("task.set_progress", ["REF", "nan"], ["INVALID_VALUE", "progress", "nan"]),
        ("task.set_error_info", ["REF", "E"], ["FIELD_TYPE_ERROR", "error_info"]),
        ("task.set_error_info", ["REF", ["E", 1]], ["FIELD_TYPE_ERROR", "error_info"]),
        ("task.set_other_config", ["REF", ["k"]], ["FIELD_TYPE_ERROR", "other_config"]),
        ("task.set_other_config", ["REF", {"k": None}], ["FIELD_TYPE_ERROR", "other_config"]),
        ("task.add_to_other_config", ["REF", "k", 1], ["FIELD_TYPE_ERROR", "value"]),
    ],
)
async def test_a_wrong_call_is_refused_with_xapis_code(
    tmp_path: Path, method: str, args: list[JSON], refusal: list[str]
) -> None:
    async with served(tmp_path) as (_, client):
        ref = await client("task.create", "l", "d")
        before = await client("task.get_record", ref)

        assert await client.refused(method, *(ref if arg == "REF" else arg for arg in args)) == refusal
        assert await client("task.get_record", ref) == before


async def test_a_call_without_even_a_session_is_counted_as_xapi_does(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        refusal = await refused(client.api, ROOT, "task.get_all")

    assert refusal == ["MESSAGE_PARAMETER_COUNT_MISMATCH", "task.get_all", "0", "-1"]


async def test_too_many_tasks_are_said_as_xapi_says_it(tmp_path: Path) -> None:
    async with served(tmp_path) as (service, _):
        client = await login(XenApi(attrs.evolve(service, tasks_per_owner=1)))
        await client("task.create", "l", "d")

        assert await client.refused("task.create", "l", "d") == ["TOO_MANY_PENDING_TASKS"]


async def test_the_dialect_answers_to_its_own_names_only(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        answers = client.api.answers

        for name in ("task.create", "Task.cancel", "task_cancel", "SESSION.logout", "event_from", "task.nothing"):
            assert answers(name), name
        for name in (
            "Task.stat",
            "Task.ls",
            "Task.start",
            "Data.copy",
            "VM.start",
            "Async.task.cancel",
            "task",
            "",
        ):
            assert not answers(name), name


async def test_what_is_called_in_a_session_is_answered_in_xapis_words(tmp_path: Path) -> None:
    """There are many more classes than ours; but of what other dialects have a ref may be the one param, too."""
    async with served(tmp_path) as (_, client):
        answers = client.api.answers

        for name in ("VM.get_all", "Async.task.cancel", "Task.cancel", "anything"):
            assert answers(name, [client.session]), name
        for name in ("Task.stat", "Data.copy"):
            assert not answers(name, [client.session]), name
        for args in (["x"], [1], [None], [["OpaqueRef:x"]]):
            assert not answers("VM.get_all", args), args


async def test_residue_is_not_destroyed(tmp_path: Path) -> None:
    store = MemoryStore()
    task = with_end(State.FAILED, operation="gone", journal=(Undo("unlink"),), revision=1)
    await store.create(task)
    async with served(tmp_path, store=store) as (_, client):
        await trio.testing.wait_all_tasks_blocked()
        refusal = await client.refused("task.destroy", REF)

        assert refusal[0] == "OPERATION_NOT_ALLOWED"
        assert await client("task.get_status", REF) == "failure"


def test_what_was_said_early_counts_only_with_its_own_end() -> None:
    drafted = attrs.evolve(EXAMPLE, draft=Draft("<value>early</value>", ("E",)))
    natively = with_end(State.COMPLETED, draft=drafted.draft, result={"a": 1})

    assert record(drafted)["result"] == "<value>early</value>"
    assert record(natively)["result"] == encode({"a": 1})
