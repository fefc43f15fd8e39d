"""KooDrive's task operations: the vendor's own examples, whose tasks, their status, and creating one.

``K01`` and its like are the vectors of the vendor's pages and of sound paging.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio

from taskd import codec
from taskd.dialects.koodrive import face
from taskd.dialects.koodrive.record import CANCELLED, OTHER, RESULT_CODES, info
from taskd.errors import BadParams, PermissionDenied
from taskd.model import Failure, Task, Time
from taskd.operations import copy
from taskd.service import Report, Service
from taskd.service.notes import ANNOTATIONS
from taskd.states import State
from taskd.store import Store
from tests.bench import ROOT
from tests.dialects.client import Gates
from tests.dialects.koodrive import ALICE, BOB, Serve, done, put, serve, shown, silent, store

__all__ = ["serve", "store"]  # the fixtures


TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


async def until(service: Service, id: str, state: State) -> None:
    """Wait for the task to be in that state."""
    with trio.fail_after(30):
        task = await service.get(ROOT, id)
        while task.state is not state:
            task = await service.wait(ROOT, id, after_revision=task.revision)


# The vendor's examples.


async def test_the_list_of_the_vendors_example_is_as_it_stands_there(serve: Serve, store: Store) -> None:
    """K01. The cursor in its query has no value: that is the first page."""
    times = ("2024-08-12T07:22:33.000Z", "2024-08-12T11:09:50.000Z")
    names = ("ceshi1111", "ceshi4")
    async with serve() as koodrive:
        for time, name in zip(times, names, strict=True):
            await put(store, done(created_at=codec.parse_time(time), label=name))
        body = await koodrive.ls("taskType=0&status=2&pageSize=10&pageCursor")

    assert set(body) == {"taskList", "taskListDtos", "code", "msg"}
    assert (body["code"], body["msg"]) == ("0", "Success.")
    told = [(row["taskName"], row["taskType"], row["status"], row["createTime"]) for row in body["taskList"]]
    assert told == [("ceshi1111", 0, 2, times[0]), ("ceshi4", 0, 2, times[1])]
    assert all(isinstance(row["taskId"], str) and row["taskId"].isdecimal() for row in body["taskList"])


async def test_no_parameters_are_a_page_of_a_hundred_from_the_start(serve: Serve, store: Store) -> None:
    """K02, K07: and so is an empty value, a 0, and more than a hundred."""
    async with serve() as koodrive:
        ids = await put(store, *(done() for _ in range(101)))
        for size in ("", "pageSize", "pageSize=0", "pageSize=1000", "pageSize=" + "9" * 5000, "unknown=1"):
            assert await koodrive.ids(size) == ids[:100]
        for start in ("pageCursor=", "pageCursor=0", "pageCursor=00"):
            assert await koodrive.ids(start) == ids[:100]


async def test_following_the_cursor_until_there_is_none_shows_everything_once(serve: Serve, store: Store) -> None:
    """K03"""
    async with serve() as koodrive:
        ids = await put(store, *(done() for _ in range(250)))
        pages = await koodrive.walk()

    assert shown(pages) == ids
    assert [len(page["taskList"]) for page in pages] == [100, 100, 50]


async def test_there_is_no_cursor_to_an_end_that_was_reached(serve: Serve, store: Store) -> None:
    """Neither when the page is full, nor when what follows it does not fit."""
    async with serve() as koodrive:
        await put(store, *(done() for _ in range(10)))
        full = await koodrive.ls("pageSize=10")
        await put(store, *(silent() for _ in range(5)))
        unfit = await koodrive.ls("pageSize=10&status=1,2")
        nothing = await koodrive.ls(f"pageCursor={2**63 - 1}")

    assert len(full["taskList"]) == len(unfit["taskList"]) == 10
    assert "nextCursor" not in full | unfit | nothing
    assert nothing["taskList"] == []


async def test_a_filter_that_nothing_fits_ends_at_once(serve: Serve, store: Store) -> None:
    """K13; an unknown type of task is such a filter, however large."""
    async with serve() as koodrive:
        await put(store, *(done() for _ in range(10)))
        for query in ("status=3", "status=0", "taskType=1", "taskType=7", "taskType=-1", "taskType=" + "9" * 30):
            pages = await koodrive.walk(query, sizes=lambda: 3)
            assert (shown(pages), len(pages)) == ([], 1), query


# Whose tasks.


async def test_a_list_has_the_callers_own_tasks_and_an_admins_all(serve: Serve, store: Store) -> None:
    async with serve() as root:
        alice, bob = attrs.evolve(root, caller=ALICE), attrs.evolve(root, caller=BOB)
        theirs = {"alice": [], "bob": [], "root": []}  # type: dict[str, list[str]]
        for owner in ("alice", "bob", "root") * 5:
            theirs[owner] += await put(store, done(owner=owner))

        assert shown(await alice.walk(sizes=lambda: 2)) == theirs["alice"]
        assert shown(await bob.walk("status=2&taskType=0", sizes=lambda: 2)) == theirs["bob"]
        assert len(shown(await root.walk(sizes=lambda: 2))) == 15
        assert {row["userId"] for row in (await alice.ls())["taskList"]} == {"alice"}


async def test_a_task_is_found_by_its_number_and_by_its_uuid(serve: Serve) -> None:
    async with serve() as koodrive:
        await koodrive.service.start(ROOT, "external", {})
        task = await koodrive.service.start(ROOT, "external", {}, label="mine")
        by_number, by_uuid = await koodrive.detail(str(task.seq)), await koodrive.detail(task.id)
        row = (await koodrive.ls())["taskList"][1]

    assert by_number == by_uuid == row | {"code": "0", "msg": "Success."}
    assert (row["taskId"], row["taskName"]) == (str(task.seq), "mine")


async def test_a_foreign_task_is_one_that_does_not_exist(serve: Serve) -> None:
    """To the byte: the reply must not tell which of the two it is."""
    async with serve() as root:
        bob = attrs.evolve(root, caller=BOB)
        task = await root.service.start(ROOT, "external", {})
        foreign = [str(task.seq), task.id]
        unknown = [str(task.seq + 1), str(uuid.uuid4()), "0", "-1", "1.0", "٣", "9" * 19, "9" * 5000, "result", ""]
        replies = [await bob.ask("GET", id) for id in (*foreign, *unknown)]

    assert replies == [(400, {"code": "13000309", "msg": "The task does not exist"})] * len(replies)


async def test_what_is_almost_the_number_of_a_task_is_not_it(serve: Serve) -> None:
    """The number of a destroyed task is not that of the next, and a number is written in ASCII."""
    async with serve() as koodrive:
        first = await koodrive.service.start(ROOT, "external", {})
        await koodrive.service.start(ROOT, "external", {})
        await koodrive.service.complete(ROOT, first.id)
        await until(koodrive.service, first.id, State.COMPLETED)
        await koodrive.service.destroy_when_ended(ROOT, first.id)
        assert await koodrive.ids() == ["2"]

        for id in ("1", "3", "٢", "+2", " 2", "2.0", "0x2"):
            assert (await koodrive.ask("GET", id))[1]["code"] == "13000309", id


async def test_a_task_that_is_found_by_its_number_is_the_newest_snapshot(serve: Serve) -> None:
    """Progress is kept in memory only."""
    gates = Gates()
    async with serve(gates.operation(copy.OPERATION)) as koodrive:
        started = await koodrive.service.start(ROOT, "copy", {"source": "/a", "target": "/b"})
        with trio.fail_after(30):
            while (task := await koodrive.service.get(ROOT, started.id)).progress.done == 0:
                await koodrive.service.wait(ROOT, started.id, after_revision=task.revision)

        assert await koodrive.service.numbered(ROOT, task.seq) == task


async def test_a_producer_finds_the_task_of_another_owner_by_its_id_and_not_in_its_list(serve: Serve) -> None:
    async with serve() as root:
        bob = attrs.evolve(root, caller=BOB)
        task = await root.service.start(ROOT, "external", {}, owner="bob")
        ours = attrs.evolve(root, caller=attrs.evolve(ROOT, roles=frozenset({"user"})))
        theirs = await bob.detail(str(task.seq))
        produced = await ours.detail(str(task.seq)), await ours.detail(task.id)

        assert produced == (theirs, theirs)
        assert await bob.ids() == [str(task.seq)]
        assert await ours.ids() == []


# Status.


async def test_a_status_of_its_own_for_each_of_the_seven_states(serve: Serve) -> None:
    gates, failing = Gates(), Gates(fails=True)
    operations = (
        gates.operation(copy.OPERATION),
        attrs.evolve(failing.operation(copy.OPERATION), name="failing"),
    )
    params = {"source": "/a", "target": "/b"}
    async with serve(*operations, running_tasks=1) as koodrive:
        service = koodrive.service
        told: dict[str, tuple[int, bool, bool, str | None]] = {}

        async def look(as_: str, task: Task) -> None:
            row = await koodrive.detail(task.id)
            told[as_] = (row["status"], "startTime" in row, "endTime" in row, row.get("resultCode"))
            lists = [str(n) for n in range(4) if row["taskId"] in await koodrive.ids(f"status={n}")]
            assert lists == [str(row["status"])], as_

        first = await service.start(ROOT, "copy", params)
        await until(service, first.id, State.RUNNING)
        await look("running", first)
        second = await service.start(ROOT, "copy", params)
        third = await service.start(ROOT, "copy", params)
        await look("queued", second)
        await service.cancel(ROOT, third.id)
        await until(service, third.id, State.CANCELLED)
        await look("cancelled before it ran", third)
        gates.work.set()
        await until(service, first.id, State.COMMITTED)
        await look("committed", first)
        gates.finish.set()
        await until(service, first.id, State.COMPLETED)
        await look("completed", first)
        await until(service, second.id, State.COMPLETED)

        fourth = await service.start(ROOT, "failing", params)
        await until(service, fourth.id, State.RUNNING)
        failing.work.set()
        await until(service, fourth.id, State.UNDOING)
        await look("undoing", fourth)
        failing.undo.set()
        await until(service, fourth.id, State.FAILED)
        await look("failed", fourth)
        gates.work = trio.Event()
        fifth = await service.start(ROOT, "copy", params)
        await until(service, fifth.id, State.RUNNING)
        await service.cancel(ROOT, fifth.id)
        await until(service, fifth.id, State.UNDOING)
        await look("being cancelled", fifth)
        gates.undo.set()
        await until(service, fifth.id, State.CANCELLED)
        await look("cancelled", fifth)

    assert told == {
        "queued": (0, False, False, None),
        "running": (1, True, False, None),
        "undoing": (1, True, False, None),
        "being cancelled": (1, True, False, None),
        "committed": (1, True, False, None),
        "completed": (2, True, True, None),
        "failed": (3, True, True, "18900011"),
        "cancelled": (3, True, True, "18900001"),
        "cancelled before it ran": (3, False, True, "18900001"),
    }


@pytest.mark.parametrize(
    "speak",
    [
        lambda service, id: service.update(ROOT, id),  # a sign of life
        lambda service, id: service.update(ROOT, id, progress=Report(fraction=0.5)),
        lambda service, id: service.update(ROOT, id, log=["a line"]),
        lambda service, id: service.cancel(ROOT, id),
    ],
)
async def test_an_external_task_is_new_until_something_happens_to_it(
    serve: Serve, speak: Callable[[Service, str], Awaitable[object]]
) -> None:
    async with serve() as koodrive:
        id = await koodrive.create(srcUserId="a", dstUserId="b")
        task = await koodrive.service.numbered(ROOT, int(id))
        new = await koodrive.detail(id)
        await speak(koodrive.service, task.id)
        executing = await koodrive.detail(id)
        await koodrive.service.complete(ROOT, task.id)
        success = await koodrive.detail(id)

    assert [new["status"], executing["status"], success["status"]] == [0, 1, 2]
    assert ["startTime" in each for each in (new, executing, success)] == [False, True, True]
    assert ["endTime" in each for each in (new, executing, success)] == [False, False, True]
    assert all(TIME.fullmatch(success[name]) for name in ("createTime", "startTime", "endTime"))
    assert success["createTime"] == codec.format_time(task.created_at)


async def test_several_statuses_may_be_repeated_or_stand_with_commas(serve: Serve, store: Store) -> None:
    """K09"""
    async with serve() as koodrive:
        rows = [
            silent(),
            attrs.evolve(silent(), modified_at=Time(1_723_447_355.0)),
            done(),
            done(state=State.FAILED),
            done(state=State.CANCELLED),
        ]
        ids = [(await put(store, row))[0] for row in rows]
        for query, expected in {
            "status=1&status=2": [1, 2],
            "status=1,2": [1, 2],
            "status=0,1&status=3&status=": [0, 1, 3, 4],
            "status=3": [3, 4],
            "status=0": [0],
            "status": [0, 1, 2, 3, 4],
            "status=0,1,2,3": [0, 1, 2, 3, 4],
        }.items():
            assert await koodrive.ids(query) == [ids[n] for n in expected], query


# The result code.


@pytest.mark.parametrize(
    ("error", "code"),
    [
        *((Failure(name, ""), code) for name, code in RESULT_CODES.items()),
        (Failure("SR_FULL", ""), OTHER),
        (Failure("CANCELLED", ""), OTHER),
        (Failure("18000205", "as the vendor's example has it"), "18000205"),
        (Failure("180002050", ""), OTHER),
        (Failure("", ""), OTHER),
        (None, OTHER),
    ],
)
def test_a_failed_task_has_a_result_code_by_its_error(error: Failure | None, code: str) -> None:
    """K10"""
    assert info(done(state=State.FAILED, error=error))["resultCode"] == code


def test_a_result_code_means_one_thing_for_ever() -> None:
    """Changing any of these breaks whoever has learned what it means; a new one is added at the end."""
    codes = [OTHER, CANCELLED, *RESULT_CODES.values()]

    assert codes == [str(18_900_000 + n) for n in range(17)]
    assert list(RESULT_CODES)[:4] == ["INTERRUPTED", "DEADLINE_EXCEEDED", "PRODUCER_LOST", "UNDO_FAILED"]


def test_a_cancelled_task_has_a_result_code_of_its_own_whatever_error_it_carries() -> None:
    assert info(done(state=State.CANCELLED))["resultCode"] == CANCELLED
    assert info(done(state=State.CANCELLED, error=Failure("ENOSPC", "")))["resultCode"] == CANCELLED


def test_a_task_that_has_not_failed_has_no_result_code() -> None:
    for state in set(State) - {State.FAILED, State.CANCELLED}:
        assert "resultCode" not in info(done(state=state, error=Failure("ENOSPC", "")))


# Create.


async def test_a_created_task_is_external_and_its_callers(serve: Serve) -> None:
    """K11"""
    async with serve() as root:
        alice = attrs.evolve(root, caller=ALICE)
        id = await alice.create(taskType=0, srcUserId="1397687227244555008", dstUserId="2")
        task = await root.service.numbered(ROOT, int(id))
        row = (await alice.ls())["taskList"][0]
        await root.service.fail(ALICE, task.id, Failure("ENOSPC", "it is full"))
        failed = await alice.detail(id)

    assert (task.operation, task.owner, task.processor) == ("external", "alice", "alice")
    assert (row["taskId"], row["taskType"], row["taskName"], row["status"]) == (id, 0, "transfer", 0)
    assert codec.loads(row["initParams"]) == {"srcUserId": "1397687227244555008", "dstUserId": "2"}
    assert (failed["status"], failed["resultCode"]) == (3, "18900015")


async def test_a_batch_import_is_of_type_one(serve: Serve) -> None:
    async with serve() as koodrive:
        imported = await koodrive.create(taskType=1, resultId="r", orgId="o", orgUserId="u")
        also = await koodrive.create(taskType=1, resultId=None, orgId="o", orgUserId="u")
        transfer = await koodrive.create(taskType=0, srcUserId="a", dstUserId="b")
        neither = str((await koodrive.service.start(ROOT, "external", {})).seq)
        rows = (await koodrive.ls("taskType=1"))["taskList"]

        assert [(row["taskId"], row["taskType"], row["taskName"]) for row in rows] == [
            (imported, 1, "batch import"),
            (also, 1, "batch import"),
        ]
        assert codec.loads(rows[0]["initParams"]) == {"resultId": "r", "orgId": "o", "orgUserId": "u"}
        assert codec.loads(rows[1]["initParams"]) == {"orgId": "o", "orgUserId": "u"}
        assert await koodrive.ids("taskType=0") == [transfer, neither]


async def test_what_was_created_is_the_same_after_a_restart(store: Store, serve: Serve) -> None:
    async with serve() as koodrive:
        await koodrive.create(taskType=1, orgId="o", orgUserId="u")
        before = await koodrive.ls()
    async with serve() as koodrive:
        after = await koodrive.ls()

    assert after == before


async def test_a_task_that_was_made_elsewhere_is_a_transfer_with_its_params(serve: Serve, store: Store) -> None:
    async with serve() as koodrive:
        await put(store, done(operation="copy", params={"source": "ü", "rate_limit": None}, label=""))
        row = (await koodrive.ls())["taskList"][0]

    assert (row["taskType"], row["taskName"]) == (0, "copy")
    assert codec.loads(row["initParams"]) == {"source": "ü", "rate_limit": None}


async def test_only_what_was_made_as_an_import_is_one(serve: Serve, store: Store) -> None:
    """A note of that name on any other task does not make it one; detail and filter agree on that."""
    async with serve() as koodrive:
        (id,) = await put(store, done(operation="copy", annotations={"koodrive.taskType": "1"}))

        assert (await koodrive.detail(id))["taskType"] == 0
        assert (await koodrive.ids("taskType=0"), await koodrive.ids("taskType=1")) == ([id], [])


async def test_a_body_may_have_fields_that_we_do_not_know_and_no_type(serve: Serve) -> None:
    async with serve() as koodrive:
        for type in ({}, {"taskType": None}):  # type: dict[str, object]
            id = await koodrive.create(srcUserId="a", dstUserId="b", orgId=5, more=[{}], **type)
            row = await koodrive.detail(id)

            assert row["taskType"] == 0
            assert codec.loads(row["initParams"]) == {"srcUserId": "a", "dstUserId": "b"}


async def test_the_notes_that_a_task_begins_with_have_an_end(serve: Serve) -> None:
    async with serve() as koodrive:
        with pytest.raises(BadParams, match="annotations"):
            await koodrive.service.start(ROOT, "external", {}, annotations={"n": "x" * ANNOTATIONS})

        assert await koodrive.ids() == []


# The two wires.


async def test_codes_and_cursors_are_strings_by_the_table_and_numbers_by_the_example(
    serve: Serve, store: Store
) -> None:
    async with serve() as table:
        example = attrs.evolve(table, wire="example")
        ids = await put(store, done(), done())
        assert shown(await example.walk(sizes=lambda: 1)) == ids
        for koodrive, kind in ((table, str), (example, int)):
            body = await koodrive.ls("pageSize=1")
            assert (type(body["code"]), type(body["nextCursor"])) == (kind, kind)
            assert (int(body["code"]), int(body["nextCursor"])) == (0, int(ids[0]))
            assert type(body["taskList"][0]["taskId"]) is str
            assert type((await koodrive.detail(ids[0]))["code"]) is kind
            refused = (await koodrive.ask("GET", "list", "pageSize=x"))[1]["code"]
            assert (type(refused), int(refused)) == (kind, 13000102)
            made = (await koodrive.ask("POST", "create", body=b'{"srcUserId":"a","dstUserId":"b"}'))[1]
            assert (type(made["code"]), type(made["taskId"])) == (kind, str)
            body = face(koodrive.wire).refuse(PermissionDenied("x"), "").body
            assert isinstance(body, dict)
            assert body["code"] == "APIGW.0301"
