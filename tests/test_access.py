"""Who may do what: the table of ``access``, every method, role, relation and state of it met."""

from __future__ import annotations

import grp
import os
import pwd
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from itertools import count, product
from pathlib import Path
from typing import Final

import attrs
import pytest
import trio

from taskd import access, dialects
from taskd.codec import dumps
from taskd.dialects import ucloud
from taskd.dialects.ucloud import calls
from taskd.errors import (
    AlreadyEnded,
    DoesNotExist,
    HasResidue,
    NoResidue,
    NotExternal,
    PermissionDenied,
    TargetExists,
    TaskInProgress,
    Unauthenticated,
)
from taskd.model import JSON, Caller, Failure, Task, Time, Undo
from taskd.operations import Handle, Operation, copy, external
from taskd.operations.copy import CopyParams
from taskd.service import PROCESSOR, Query, Service
from taskd.states import State
from taskd.store.memory import MemoryStore
from tests.bench import ROOT, bounded, running, user
from tests.hostile import descriptors

METHODS: Final = dialects.table()

ALLOWED: Final = "allowed"

# What the state of a task says to a caller who may ask.
LIFECYCLE: Final = (AlreadyEnded, HasResidue, NoResidue, NotExternal, TaskInProgress)

ROLES: Final = ("admin", "service", "user", None)

# The caller's relation to a task, and who then owns it and produces it.
RELATIONS: Final = {
    "owner": ("caller", "other"),
    "processor": ("other", "caller"),
    "both": ("caller", "caller"),
    "foreign": ("other", "other"),
}


@attrs.frozen
class Row:
    """A method on a task: the rule that it falls under, its params for a task's id, and of what operation."""

    rule: str
    params: Callable[[str], Mapping[str, JSON]] = lambda id: {"id": id}
    reports: bool = False
    # UCloud's: to these, admins too, the task does not exist, and only an external one can be reported on.
    hides: tuple[str, ...] = ()


def _key(id: str) -> Mapping[str, JSON]:
    return {"operation": ["CopyV1", id]}


ON_A_TASK: Final = {
    "Task.stat": Row("get"),
    "Task.get": Row("get"),
    "Task.wait": Row("wait", lambda id: {"id": id, "timeout_s": 0.0}),
    "Task.log": Row("log"),
    "Task.cancel": Row("cancel"),
    "Task.destroy": Row("destroy"),
    "Task.destroy with force": Row("destroy with force", lambda id: {"id": id, "force": True}),
    "Task.recover": Row("recover"),
    "Task.update": Row("update", lambda id: {"id": id, "status": "on its way"}, reports=True),
    "Task.complete": Row("complete", reports=True),
    "Task.fail": Row("fail", lambda id: {"id": id, "error": {"code": "X", "message": "x"}}, reports=True),
    "Data.stat": Row("get", _key),
    "Data.cancel": Row("cancel", _key),
    "Data.destroy": Row("destroy", _key),
    "Tasks.view": Row("get", hides=("foreign",)),
    "Tasks.postStatus": Row(
        "update", lambda id: {"update": {"jobId": id}}, reports=True, hides=("foreign", "owner")
    ),
    "Tasks.markAsComplete": Row("complete", reports=True, hides=("foreign", "owner")),
}

# The states that no task that is done elsewhere can be in.
OURS_ONLY: Final = (State.QUEUED, State.UNDOING, State.COMMITTED)


async def _stay(params: object, handle: Handle) -> JSON:
    """Get to the state that the source names, and no further."""
    assert isinstance(params, CopyParams)
    match params.source[1:]:
        case State.UNDOING:
            await handle.journal("stay")
            raise TargetExists(params.target)
        case State.COMMITTED:
            await handle.commit(None, [Undo("stay")])
        case State.FAILED:
            raise TargetExists(params.target)
        case State.COMPLETED:
            pass
        case _:
            await trio.sleep_forever()
    return None


STAYING: Final = attrs.evolve(
    copy.OPERATION,
    run=_stay,
    check=None,
    # Whoever is to stay queued waits for the same target as the first.
    targets=lambda params: frozenset({params.target}),
    verbs={"stay": trio.sleep_forever},
    urgent=frozenset(),
    roles=access.EVERYONE,
)


@attrs.define
class World:
    """A service, and tasks in it wherever they are wanted."""

    service: Service
    _numbers: count[int] = attrs.field(factory=count)

    async def task(self, operation: str, state: State, owner: str, processor: str) -> str:
        """The id of a new task in that state."""
        if operation == "external":
            return await self._done_elsewhere(state, owner, processor)
        target = "/taken" if state is State.QUEUED else f"/target {next(self._numbers)}"
        params = {"source": f"/{state}", "target": target}
        task = await self.service.start(ROOT, "copy", params, owner=owner)
        live = self.service.registry.get(task.id)
        assert live is not None
        # No producer has a task that is queued, but what the table says of one is to hold all the same.
        await self.service.runner.change(live, processor=processor)
        if state is State.CANCELLED:
            await self.service.cancel(ROOT, task.id)
        with bounded():
            while live.task.state is not state:
                await live.changed()
        return task.id

    async def _done_elsewhere(self, state: State, owner: str, processor: str) -> str:
        boss = Caller(1, 1, 1, processor, access.ADMINS)
        id = (await self.service.start(boss, "external", {}, owner=owner)).id
        if state is State.COMPLETED:
            await self.service.complete(boss, id)
        if state is State.CANCELLED:
            await self.service.cancel(boss, id)
        if state in (State.CANCELLED, State.FAILED):
            await self.service.fail(boss, id, Failure("X", "x"))
        assert (await self.service.get(ROOT, id)).state is state
        return id


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    table: dict[str, Operation] = {"copy": STAYING, "external": external.OPERATION}
    async with running(MemoryStore(), table, str(tmp_path), running_tasks=10_000) as service:
        world = World(service)
        holder = await service.start(ROOT, "copy", {"source": "/running", "target": "/taken"})
        live = service.registry.get(holder.id)
        assert live is not None
        while live.task.state is not State.RUNNING:
            await live.changed()
        yield world


def caller_of(role: str | None) -> Caller:
    return Caller(1000, 1000, 1, "caller", frozenset() if role is None else frozenset({role}))


async def answer(asked: Callable[[], Awaitable[object]]) -> str:
    """What the table is about: ``allowed``, or the name of the refusal."""
    try:
        await asked()
    except LIFECYCLE:
        return ALLOWED
    except (PermissionDenied, DoesNotExist, Unauthenticated) as refusal:
        return refusal.name
    return ALLOWED


def granted(rule: str, relation: str, role: str) -> bool:
    columns = {"both": ("owner", "processor")}.get(relation, (relation,))
    return any(role in getattr(access.RULES[rule], column) for column in columns)


def expected(method: str, row: Row, relation: str, role: str | None, state: State) -> str:
    if role is None:
        return Unauthenticated.name
    if role not in access.CALLS.get(method, access.EVERYONE):
        return PermissionDenied.name
    hidden = relation in row.hides or (row.hides and row.reports and state in OURS_ONLY)
    if hidden or not granted("get", relation, role):
        return DoesNotExist.name
    return ALLOWED if granted(row.rule, relation, role) else PermissionDenied.name


async def met_on_tasks(world: World, method: str, row: Row) -> tuple[object, object]:
    """The answers that are, and those that the table has; each call is on a task of its own."""
    found, wanted = {}, {}
    for role, (relation, users), state in product(ROLES, RELATIONS.items(), State):
        operation = "external" if row.reports and state not in OURS_ONLY else "copy"
        id = await world.task(operation, state, *users)
        case = (role, relation, state.value)
        found[case] = await answer(partial(METHODS[method], world.service, caller_of(role), row.params(id)))
        wanted[case] = expected(method, row, relation, role, state)
    return found, wanted


async def met_by_start(world: World) -> tuple[object, object]:
    found, wanted = {}, {}
    for role, (relation, owner) in product(ROLES, {"owner": "caller", "foreign": "other"}.items()):
        params = {"operation": "external", "owner": owner}
        start = partial(METHODS["Task.start"], world.service, caller_of(role), params)
        found[role, relation] = await answer(start)
        may = role is not None and granted("start", relation, role)
        refused = Unauthenticated if role is None else PermissionDenied
        wanted[role, relation] = ALLOWED if may else refused.name
    return found, wanted


async def met_by_lists(world: World, method: str) -> tuple[object, object]:
    """To be refused, and to be shown a list without the task, are two answers."""
    found: dict[object, object] = {}
    wanted: dict[object, object] = {}
    for role, (relation, users), state in product(ROLES, RELATIONS.items(), State):
        id, case = await world.task("copy", state, *users), (role, relation, state)
        params: dict[str, JSON] = {"page_size": 1000} if method == "Task.list" else {}
        try:
            found[case] = id.encode() in dumps(await METHODS[method](world.service, caller_of(role), params))
        except Unauthenticated as refusal:
            found[case] = refusal.name
        wanted[case] = Unauthenticated.name if role is None else granted("list", relation, role)
    return found, wanted


async def call(service: Service, caller: Caller, method: str, params: Mapping[str, JSON]) -> None:
    """Call a method that is on no task, or one of UCloud's that is none of JSON-RPC."""
    if method == "Tasks.listen":
        ucloud.STREAMS["task.listen"](service, caller, {})
    elif method in METHODS:
        await METHODS[method](service, caller, params)
    else:
        await calls.answer(service, caller, method.replace("Tasks", "tasks"), params)


async def met_by_calls(world: World, method: str) -> tuple[object, object]:
    params: Mapping[str, Mapping[str, JSON]] = {
        "Token.add": {"user": "ann", "roles": ["user"]},
        "Token.rm": {"id": "not there"},
        "Tasks.create": {"title": "t", "owner": "ann"},
        "Tasks.retrieve": {"id": 999},
        "Tasks.pauseOrCancel": {"id": 999, "requestedState": "CANCELLED"},
    }
    found, wanted = {}, {}
    for role in ROLES:
        asked = partial(call, world.service, caller_of(role), method, params.get(method, {}))
        found[role] = await answer(asked)
        absent = method in ("Token.rm", "Tasks.retrieve", "Tasks.pauseOrCancel")
        may = DoesNotExist.name if absent else ALLOWED
        refused = Unauthenticated if role is None else PermissionDenied
        wanted[role] = may if role in access.CALLS[method] else refused.name
    return found, wanted


LISTS: Final = ("Task.list", "Task.ls", "Data.ls")


@pytest.mark.parametrize("method", [*ON_A_TASK, "Task.start", *LISTS, *sorted(set(access.CALLS) - set(ON_A_TASK))])
async def test_every_method_answers_every_role_relation_and_state_as_the_table_says(
    world: World, method: str
) -> None:
    name = method.removesuffix(" with force")
    if method in ON_A_TASK:
        found, wanted = await met_on_tasks(world, name, ON_A_TASK[method])
    elif method in LISTS:
        found, wanted = await met_by_lists(world, method)
    else:
        found, wanted = await (met_by_start(world) if method == "Task.start" else met_by_calls(world, method))

    assert found == wanted


def test_no_method_on_a_task_and_no_rule_is_left_out() -> None:
    fields = {name: {field.name for field in attrs.fields(method.params)} for name, method in METHODS.items()}
    on_tasks = {name for name, names in fields.items() if "id" in names and not name.startswith("Token.")}
    on_tasks |= {"Tasks.postStatus"}
    on_copies = {name for name in fields if name.startswith("Data.") and "operation" in fields[name]}

    assert {name.removesuffix(" with force") for name in ON_A_TASK} == on_tasks | on_copies
    # No native method makes notes on a task: XenAPI's do.
    assert {row.rule for row in ON_A_TASK.values()} | {"annotate", "list", "start"} == set(access.RULES)
    named = {name for name in METHODS if name.startswith(("Token.", "Tasks."))}
    later = {name.replace("tasks", "Tasks") for name in ucloud.CALLS if name.startswith("tasks.")}
    assert set(access.CALLS) == named | later


# What the table is to say, where it matters most.


def task(owner: str, processor: str) -> Task:
    return Task("1", "external", {}, owner, processor, "h", Time(0.0))


@pytest.mark.parametrize("verb", ["update", "complete", "fail"])
def test_an_owner_cannot_say_how_the_work_of_somebody_else_ends(verb: str) -> None:
    alice, given = user("alice"), task("alice", "backup")

    assert access.check(user("backup"), verb, given, "1") is given
    assert access.check(alice, verb, task("alice", "alice"), "1")
    with pytest.raises(PermissionDenied):
        access.check(alice, verb, given, "1")
    assert access.check(alice, "cancel", given, "1") is given


@pytest.mark.parametrize("relation", RELATIONS)
def test_force_is_for_admins_also_on_ones_own_task(relation: str) -> None:
    given = task(*RELATIONS[relation])

    assert access.may(caller_of("admin"), "destroy with force", given)
    assert not access.may(caller_of("service"), "destroy with force", given)
    assert not access.may(caller_of("user"), "destroy with force", given)


async def test_a_foreign_task_and_none_give_the_same_answer(world: World) -> None:
    foreign = await world.task("copy", State.RUNNING, "other", "other")
    unknown = "00000000-0000-4000-8000-000000000000"
    for method, row in ON_A_TASK.items():
        if "service" not in access.CALLS.get(method, access.EVERYONE):
            continue
        name = method.removesuffix(" with force")
        sentences = []
        for id in (foreign, unknown):
            with pytest.raises(DoesNotExist) as refusal:
                await METHODS[name](world.service, caller_of("service"), row.params(id))
            sentences.append(str(refusal.value).replace(id, "ID"))
        assert sentences[0] == sentences[1]


def test_what_the_daemon_runs_has_no_producer() -> None:
    """Not even a user whose name is the daemon's."""
    with pytest.raises(DoesNotExist):
        access.check(user("taskd"), "get", task("root", PROCESSOR), "1")
    assert ":" in PROCESSOR  # which no user's name can have


def test_an_operation_has_roles_of_its_own() -> None:
    with pytest.raises(PermissionDenied, match="start command"):
        access.check_start(user("alice"), "alice", "command", access.ADMINS)


async def test_a_method_is_refused_before_its_params_are_read(world: World) -> None:
    with pytest.raises(PermissionDenied):
        await METHODS["Token.add"](world.service, user("alice"), {"no": "such params"})
    with pytest.raises(Unauthenticated):
        await METHODS["Task.get"](world.service, caller_of(None), {})


# Who calls: the kernel's numbers, and names in the settings.

SOMEBODY: Final = pwd.getpwnam("nobody")
GROUP: Final = grp.getgrgid(SOMEBODY.pw_gid).gr_name
OTHER: Final = next(group for group in grp.getgrall() if group.gr_gid not in (0, SOMEBODY.pw_gid))


def called(groups: frozenset[int] = frozenset(), **settings: tuple[str, ...]) -> Caller:
    return access.caller(SOMEBODY.pw_uid, SOMEBODY.pw_gid, 1, groups, **settings)


def test_whom_no_setting_names_is_a_user() -> None:
    plain = called()

    assert plain.user == "nobody"
    assert plain.roles == {"user"}
    assert not plain.proxy
    assert access.caller(4242424, 1, 1).user == "4242424"


@pytest.mark.parametrize("name", ["nobody", f"%{GROUP}", f"%{OTHER.gr_name}"])
def test_a_setting_names_a_user_or_a_group_be_it_primary_or_not(name: str) -> None:
    groups = frozenset({OTHER.gr_gid})

    assert called(groups, admins=("root", name)).roles == {"admin"}
    assert called(groups, services=(name,)).roles == {"service"}
    assert called(groups, admins=(name,), services=(name,)).roles == {"admin", "service"}
    assert called(groups, proxies=(name,)).proxy
    assert called(groups, admins=(name,)).groups == groups


@pytest.mark.parametrize("name", ["root", f"%{OTHER.gr_name}", "%root", GROUP + "x", "%nobody at all", "4242424"])
def test_a_setting_that_names_others_or_nobody_is_passed_over(name: str) -> None:
    every = called(admins=(name,), services=(name,), proxies=(name,))

    assert every.roles == {"user"}
    assert not every.proxy
    assert access.caller(4242424, 4242424, 1, admins=(name,)).roles == {"user"}


def test_who_could_not_be_looked_up_for_a_moment_is_looked_up_again() -> None:
    """Who was a number once, for want of a descriptor, stayed one, and what was root's was nobody's."""
    # Systemd's table has root and nobody, whom it knows without a file.
    known = next(entry for entry in pwd.getpwall() if entry.pw_uid not in (0, 65534))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    looks = 0

    def look() -> pwd.struct_passwd:
        nonlocal looks
        looks += 1
        try:
            return pwd.getpwuid(known.pw_uid)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    with descriptors(0):  # whichever another thread closes meanwhile
        found = access._found(look)

    assert (looks, found) == (2, known)


def test_the_daemons_own_user_is_an_admin() -> None:
    assert access.caller(os.geteuid(), 0, 1).roles == {"admin"}


def test_a_proxy_is_nothing_else_whoever_it_is() -> None:
    """Else what it forwards without a token would run as the proxy."""
    own = pwd.getpwuid(os.geteuid()).pw_name
    proxy = access.caller(os.geteuid(), 0, 1, admins=(own,), services=(own,), proxies=(own,))

    assert (proxy.roles, proxy.proxy, proxy.admin) == (frozenset(), True, False)
    assert "proxy" in repr(proxy)


async def test_lists_show_what_is_ones_own_and_all_to_an_admin(world: World) -> None:
    alice, bob, service = user("alice"), user("bob"), world.service
    mine = await service.start(alice, "external", {})
    theirs = await service.start(bob, "external", {})

    assert [t.id for t in await service.list(alice, Query())] == [mine.id]
    assert [t.id for t in await service.list(alice, Query(owner="bob"))] == []
    assert await service.ids(bob) == [theirs.id]
    assert (await service.ids(ROOT))[-2:] == [mine.id, theirs.id]


async def test_a_request_id_is_its_callers_own(world: World) -> None:
    """A service that starts for others could otherwise read what they asked for, or answer in its place."""
    start, ann = METHODS["Task.start"], user("ann")
    services = [Caller(9, 9, 1, name, frozenset({"service"})) for name in ("backup", "mirror")]
    params: dict[str, JSON] = {"operation": "external", "owner": "ann", "request_id": "nightly"}
    found = []
    for caller in (ann, *services, ann, *services):
        made = await start(world.service, caller, params)
        assert isinstance(made, dict)
        found.append((made["id"], made["processor"]))

    assert [processor for _, processor in found[:3]] == ["ann", "backup", "mirror"]
    assert len({id for id, _ in found[:3]}) == 3
    assert found[3:] == found[:3]
