"""Who may do what: one table, every row of it met."""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path

import pytest

from taskd import access
from taskd.errors import DoesNotExist, PermissionDenied
from taskd.model import Caller, Task, Time
from taskd.operations import Operation
from taskd.operations.external import OPERATION as EXTERNAL
from taskd.service import PROCESSOR, Query
from taskd.store.memory import MemoryStore
from tests.bench import ROOT, running, user

ALICE, BOB = user("alice", 1000), user("bob", 1001)
SERVICE = Caller(uid=7, gid=7, pid=1, user="service", roles=frozenset({"service"}))


def task(owner: str, processor: str = "taskd") -> Task:
    return Task(
        id="1",
        operation="copy",
        params={},
        owner=owner,
        processor=processor,
        resident_on="h",
        created_at=Time(0.0),
    )


VERBS = sorted(set(access.RULES) - {"list", "start", "destroy with force"})


@pytest.mark.parametrize(("verb", "who"), list(product(VERBS, (ROOT, ALICE, BOB, SERVICE))), ids=str)
def test_ones_own_task_is_ones_own_and_a_foreign_one_does_not_exist(verb: str, who: Caller) -> None:
    own = task(who.user)
    assert access.check(who, verb, own, "1") is own
    foreign = task("carol")
    if who is ROOT:
        assert access.check(who, verb, foreign, "1") is foreign
    else:
        with pytest.raises(DoesNotExist) as refusal:
            access.check(who, verb, foreign, "1")
        with pytest.raises(DoesNotExist) as unknown:
            access.check(who, verb, None, "1")
        assert str(refusal.value) == str(unknown.value)


def test_the_producer_of_a_task_may_report_on_it() -> None:
    given = task("carol", processor="alice")

    assert access.check(ALICE, "update", given, "1") is given


def test_what_the_daemon_runs_has_no_producer() -> None:
    """Not even for a user whose name is the daemon's."""
    with pytest.raises(DoesNotExist):
        access.check(user("taskd"), "get", task("root", processor=PROCESSOR), "1")
    assert ":" in PROCESSOR  # which no user's name can have


def test_force_is_for_admins_also_on_ones_own_task() -> None:
    assert access.check(ROOT, "destroy with force", task("carol"), "1")
    with pytest.raises(PermissionDenied):
        access.check(ALICE, "destroy with force", task("alice"), "1")


def test_to_start_for_another_owner_takes_a_role() -> None:
    access.check_start(ROOT, "alice", "external", access.EVERYONE)
    access.check_start(SERVICE, "alice", "external", access.EVERYONE)
    with pytest.raises(PermissionDenied, match="start a task for bob"):
        access.check_start(ALICE, "bob", "external", access.EVERYONE)
    with pytest.raises(PermissionDenied, match="start command"):
        access.check_start(ALICE, "alice", "command", access.ADMINS)


def test_the_kernel_says_who_calls_and_the_config_who_is_admin() -> None:
    own = access.caller(os.geteuid(), 0, 1, ())
    nobody = access.caller(65534, 65534, 1, ())

    assert own.admin
    assert (nobody.user, nobody.admin) == ("nobody", False)
    assert access.caller(65534, 65534, 1, ("nobody",)).admin
    assert access.caller(4242424, 1, 1, ()).user == "4242424"


async def test_lists_show_what_is_ones_own_and_all_to_an_admin(tmp_path: Path) -> None:
    table: dict[str, Operation] = {"external": EXTERNAL}
    async with running(MemoryStore(), table, str(tmp_path)) as service:
        mine = await service.start(ALICE, "external", {})
        theirs = await service.start(BOB, "external", {})

        assert [t.id for t in await service.list(ALICE, Query())] == [mine.id]
        assert [t.id for t in await service.list(ALICE, Query(owner="bob"))] == [mine.id]
        assert await service.ids(BOB) == [theirs.id]
        assert await service.ids(ROOT) == [mine.id, theirs.id]
