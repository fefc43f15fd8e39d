"""The contract of the store, one promise per test, for every store that there is."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from taskd.codec import dumps, loads
from taskd.errors import Conflict
from taskd.model import LogLine, Residue, Task, Time, Token, Undo
from taskd.states import State
from taskd.store import Query, Store, shares
from taskd.store.memory import MemoryStore
from taskd.store.sqlite import SqliteStore

_numbers = itertools.count()


def task(**changes: Any) -> Task:
    """A new task with an id of its own."""
    plain = Task(
        id=f"task-{next(_numbers)}",
        operation="copy",
        params={"source": "/a", "target": "/b"},
        owner="ann",
        processor="taskd",
        resident_on="here",
        created_at=Time(1_000_000.125),
    )
    return attrs.evolve(plain, **changes)


def ended(at: float, **changes: Any) -> Task:
    made = Time(min(at, 0.0))
    return task(state=State.COMPLETED, cancellable=False, created_at=made, finished_at=Time(at), **changes)


OWED: dict[str, Any] = {
    "journal": (Undo("unlink", {"path": "/b"}),),
    "residue": (Residue("unlink", {"path": "/b"}, "busy"),),
}


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store
    made = MemoryStore() if request.param == "memory" else await SqliteStore.open(tmp_path / "taskd.sqlite")
    yield made
    await made.close()


async def names(store: Store, query: Query) -> Sequence[str]:
    return [task.label for task in await store.list(query)]


# Reserve.


async def test_revisions_set_aside_are_never_given_twice(store: Store) -> None:
    firsts = [await store.reserve(count) for count in (5, 1, 10)]
    last = await store.reserve(1)

    given = [*zip(firsts, (5, 1, 10), strict=True), (last, 1)]
    revisions = [first + i for first, count in given for i in range(count)]
    assert len(set(revisions)) == len(revisions) == 17


async def test_two_who_reserve_at_once_get_different_revisions(store: Store) -> None:
    firsts: list[int] = []

    async def reserve() -> None:
        firsts.append(await store.reserve(10))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(reserve)

    assert sorted(firsts) == list(range(min(firsts), min(firsts) + 200, 10))


# Create and get.


async def test_a_task_reads_back_as_it_was_created_but_for_its_seq(store: Store) -> None:
    whole = task(label="ü\0", request_id="r", started_at=Time(2.5), result={"n": [1, 2.0, None]}, **OWED)

    made = await store.create(whole)

    assert made == attrs.evolve(whole, seq=made.seq)
    read = await store.get(whole.id)
    assert read == made
    # A state equals its text, so it is asked for too.
    assert read is not None
    assert read.state is State.QUEUED


async def test_get_of_what_never_was_is_none(store: Store) -> None:
    assert await store.get("nobody") is None


async def test_each_new_task_gets_a_higher_seq(store: Store) -> None:
    seqs = [(await store.create(task())).seq for _ in range(5)]

    assert seqs == sorted(set(seqs))
    assert seqs[0] > 0


async def test_the_seq_of_a_destroyed_task_is_not_given_again(store: Store) -> None:
    newest = [await store.create(task()) for _ in range(3)][-1]
    await store.delete(newest.id)

    assert (await store.create(task())).seq > newest.seq


async def test_a_repeated_request_returns_the_task_of_the_first(store: Store) -> None:
    first = await store.create(task(request_id="r"))
    again = await store.create(task(request_id="r"))

    assert again == first
    assert await store.ids() == [first.id]


async def test_a_repeated_request_returns_that_task_as_it_is_by_now(store: Store) -> None:
    first = await store.create(task(request_id="r"))
    await store.write(attrs.evolve(first, state=State.RUNNING), expect=State.QUEUED)

    assert (await store.create(task(request_id="r"))).state is State.RUNNING


async def test_the_same_request_id_of_another_owner_is_another_request(store: Store) -> None:
    await store.create(task(request_id="r", owner="ann"))
    await store.create(task(request_id="r", owner="bob"))

    assert len(await store.ids()) == 2


async def test_concurrent_creates_with_one_request_id_yield_one_task(store: Store) -> None:
    answers: list[Task] = []

    async def create() -> None:
        answers.append(await store.create(task(request_id="r")))

    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(create)

    assert len({answer.id for answer in answers}) == 1
    assert await store.ids() == [answers[0].id]


async def test_a_request_is_found_by_owner_and_request_id_only(store: Store) -> None:
    made = await store.create(task(request_id="r"))
    await store.create(task())

    assert await store.requested("ann", "r") == made
    assert await store.requested("ann", "other") is None
    assert await store.requested("bob", "r") is None


async def test_a_request_of_a_destroyed_task_may_be_made_anew(store: Store) -> None:
    first = await store.create(task(request_id="r"))
    await store.delete(first.id)

    assert await store.requested("ann", "r") is None
    assert (await store.create(task(request_id="r"))).id != first.id


# Write.


async def test_state_and_journal_change_together(store: Store) -> None:
    made = await store.create(task())
    changed = attrs.evolve(made, state=State.RUNNING, revision=7, **OWED)

    await store.write(changed, expect=State.QUEUED)

    assert await store.get(made.id) == changed


async def test_a_write_that_expects_another_state_conflicts_and_changes_nothing(store: Store) -> None:
    made = await store.create(task())

    with pytest.raises(Conflict, match="expected running, found queued"):
        await store.write(attrs.evolve(made, label="changed", **OWED), expect=State.RUNNING)

    assert await store.get(made.id) == made


async def test_a_write_to_a_task_that_is_not_there_conflicts_and_makes_none(store: Store) -> None:
    with pytest.raises(Conflict, match="found nothing"):
        await store.write(task(), expect=State.QUEUED)

    assert await store.ids() == []


async def test_of_two_writers_that_expect_the_same_state_one_wins(store: Store) -> None:
    made = await store.create(task())
    won: list[State] = []

    async def move(state: State) -> None:
        try:
            await store.write(attrs.evolve(made, state=state), expect=State.QUEUED)
        except Conflict:
            return
        won.append(state)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(move, State.RUNNING)
        nursery.start_soon(move, State.CANCELLED)

    assert len(won) == 1
    assert await store.get(made.id) == attrs.evolve(made, state=won[0])


# Delete.


async def test_delete_forgets_the_task_and_its_log(store: Store) -> None:
    made = await store.create(task())
    await store.append_log(made.id, [LogLine(0, Time(1.0), "hello")], keep=10)

    await store.delete(made.id)

    assert await store.get(made.id) is None
    assert await store.log(made.id, 0, 10) == []
    assert await store.log_end(made.id) == 0


async def test_delete_of_what_is_not_there_is_fine(store: Store) -> None:
    await store.delete("nobody")


# List. The label of each task is a letter, in order of seq.


async def alphabet(store: Store, **columns: Sequence[Any]) -> None:
    """Tasks a, b, c …, whose fields are given column by column."""
    for i, row in enumerate(zip(*columns.values(), strict=True)):
        await store.create(task(label=chr(ord("a") + i), **dict(zip(columns, row, strict=True))))


async def test_a_list_is_in_order_of_seq_newest_first_unless_told_otherwise(store: Store) -> None:
    await alphabet(store, owner=["ann"] * 4)

    assert await names(store, Query()) == ["d", "c", "b", "a"]
    assert await names(store, Query(newest_first=False)) == ["a", "b", "c", "d"]


_states = (State.QUEUED, State.RUNNING, State.COMPLETED, State.FAILED, State.QUEUED, State.CANCELLED)
_FILTERS: Sequence[tuple[Query, str]] = [
    (Query(states=[State.QUEUED]), "ae"),
    (Query(states=[State.COMPLETED]), "c"),
    (Query(states=[State.FAILED, State.QUEUED, State.COMPLETED]), "acde"),
    (Query(states=[]), ""),
    (Query(operations=["copy"]), "abf"),
    (Query(operations=["command", "external"]), "cde"),
    (Query(operations=[]), ""),
    (Query(operations=["no such"]), ""),
    (Query(owner="bob"), "bdf"),
    (Query(label="c"), "c"),
    (Query(since=4), "abdef"),
    (Query(since=6), "abe"),
    (Query(since=2**64), "abe"),
    (Query(owner="bob", states=[State.RUNNING, State.CANCELLED]), "bf"),
    (Query(owner="bob", states=[State.RUNNING]), "b"),
    (Query(owner="ann", operations=["copy"]), "a"),
    (Query(owner="ann", since=2, states=[State.COMPLETED, State.QUEUED]), "ace"),
    (Query(operations=["copy", "external"], states=[State.RUNNING, State.FAILED]), "bd"),
    (Query(states=[State.COMPLETED, State.FAILED], operations=["command"], owner="ann", label="c"), "c"),
]


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize(("query", "letters"), _FILTERS, ids=[repr(letters) for _, letters in _FILTERS])
@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_every_filter_holds_on_every_page_in_both_directions(
    store: Store, query: Query, letters: str, newest_first: bool, limit: int
) -> None:
    await alphabet(
        store,
        state=_states,
        operation=["copy", "copy", "command", "external", "command", "copy"],
        owner=["ann", "bob"] * 3,
        revision=[1, 2, 3, 6, 4, 5],
    )
    query = attrs.evolve(query, newest_first=newest_first, limit=limit)
    found = ""
    while page := await store.list(query):
        assert len(page) <= limit
        found += "".join(task.label for task in page)
        query = attrs.evolve(query, after=page[-1].seq)

    assert found == (letters[::-1] if newest_first else letters)


async def test_no_task_is_listed_twice_while_new_ones_are_added(store: Store) -> None:
    await alphabet(store, owner=["ann"] * 6)
    query, found = Query(limit=2), list[str]()
    while page := await store.list(query):
        found += [task.label for task in page]
        query = attrs.evolve(query, after=page[-1].seq)
        await store.create(task(label="new"))

    assert found == list("fedcba")


async def test_a_list_from_oldest_to_newest_ends_with_what_was_added_meanwhile(store: Store) -> None:
    await alphabet(store, owner=["ann"] * 3)
    page = await store.list(Query(newest_first=False, limit=2))
    await store.create(task(label="new"))

    assert await names(store, Query(newest_first=False, after=page[-1].seq)) == ["c", "new"]


async def test_a_task_that_changed_is_listed_by_what_it_is_now(store: Store) -> None:
    made = await store.create(task())
    done = attrs.evolve(made, state=State.CANCELLED, label="new", revision=9, finished_at=Time(3.0))
    await store.write(done, expect=State.QUEUED)

    for query in (Query(states=[State.CANCELLED]), Query(label="new"), Query(since=8)):
        assert await store.list(query) == [done]
    for query in (Query(states=[State.QUEUED]), Query(label=""), Query(since=9)):
        assert await store.list(query) == []


async def test_ids_are_all_ids_oldest_first_of_that_owner_and_operation(store: Store) -> None:
    a = await store.create(task(owner="ann", operation="copy"))
    b = await store.create(task(owner="bob", operation="copy"))
    c = await store.create(task(owner="ann", operation="command"))

    assert await store.ids() == [a.id, b.id, c.id]
    assert await store.ids(owner="ann") == [a.id, c.id]
    assert await store.ids(operation="copy") == [a.id, b.id]
    assert await store.ids(owner="ann", operation="copy") == [a.id]
    assert await store.ids_text() == dumps([a.id, b.id, c.id])
    assert await store.ids_text(owner="ann", operation="copy") == dumps([a.id])
    assert await store.ids_text(owner="nobody") == b"[]"


def at_hand(store: Store, **of: str) -> Sequence[str] | None:
    found = store.ids_at_hand(**of)
    return None if found is None else cast(Sequence[str], loads(found))


async def test_ids_that_are_at_hand_are_those_that_a_read_gives_after_every_change(store: Store) -> None:
    whose: Sequence[dict[str, str]] = ({}, {"owner": "ann"}, {"owner": "bob"}, {"operation": "command"})

    async def agree() -> None:
        for of in whose:
            assert at_hand(store, **of) in (None, await store.ids(**of))
        for of in whose:  # and now there may be one
            assert at_hand(store, **of) in (None, await store.ids(**of))

    await agree()
    made = await store.create(task(owner="ann"))
    await agree()
    await store.create(task(owner="bob", operation="command"))
    await agree()
    await store.write(attrs.evolve(made, state=State.RUNNING), expect=State.QUEUED)
    await agree()
    with pytest.raises(Conflict):
        await store.create(task(id=made.id))
    await agree()
    await store.delete(made.id)
    await agree()
    await store.create(ended(1.0, owner="ann"))
    await agree()
    assert await store.prune(before=2.0, keep=10) == 1
    await agree()


async def test_what_was_acknowledged_is_in_the_ids_at_hand_also_when_many_change_and_read(store: Store) -> None:
    """What is at hand never goes back either: it has nothing that was deleted."""

    async def change() -> None:
        for _ in range(10):
            made = await store.create(task())
            there = at_hand(store)
            assert there is None or made.id in there
            await store.delete(made.id)
            there = at_hand(store)
            assert there is None or made.id not in there

    async def read() -> None:
        while True:
            await store.ids()

    async with trio.open_nursery() as reading:
        for _ in range(3):
            reading.start_soon(read)
        async with trio.open_nursery() as changing:
            for _ in range(5):
                changing.start_soon(change)
        reading.cancel_scope.cancel()
    assert at_hand(store) in (None, [])


async def test_open_are_those_not_ended_and_those_that_failed_and_owe_an_undo(store: Store) -> None:
    await alphabet(store, state=list(State), journal=[()] * len(State))
    owing = await store.create(task(state=State.FAILED, label="owing", **OWED))

    unfinished = [state for state in State if not state.ended]
    tasks = await store.open_tasks()
    assert [task.state for task in tasks] == [*unfinished, State.FAILED]
    assert tasks[-1] == owing


async def test_a_task_whose_debt_was_paid_is_open_no_more(store: Store) -> None:
    owing = await store.create(task(state=State.FAILED, **OWED))
    await store.write(attrs.evolve(owing, journal=(), residue=()), expect=State.FAILED)

    assert await store.open_tasks() == []


# The log.


def lines(*numbers: int) -> Sequence[LogLine]:
    return [LogLine(n, Time(n + 0.5), f"line {n}") for n in numbers]


async def test_a_log_is_read_from_a_number_on(store: Store) -> None:
    made = await store.create(task())
    await store.append_log(made.id, lines(0, 1), keep=100)
    await store.append_log(made.id, lines(2, 3, 4), keep=100)

    assert await store.log(made.id, 0, 100) == lines(0, 1, 2, 3, 4)
    assert await store.log(made.id, 1, 2) == lines(1, 2)
    assert await store.log(made.id, 5, 100) == []
    assert await store.log(made.id, 2**64, 2**64) == []
    assert await store.log_end(made.id) == 5


async def test_logs_of_two_tasks_do_not_mix(store: Store) -> None:
    one, two = await store.create(task()), await store.create(task())
    await store.append_log(one.id, lines(0, 1), keep=100)
    await store.append_log(two.id, lines(0), keep=100)

    assert await store.log(two.id, 0, 100) == lines(0)
    assert (await store.log_end(one.id), await store.log_end(two.id)) == (2, 1)


@pytest.mark.parametrize("keep", [0, 1, 3, 6, 7, 8])
async def test_a_log_keeps_its_newest_lines_and_their_numbers(store: Store, keep: int) -> None:
    """Also across a gap, which lines leave that a full disk lost."""
    made = await store.create(task())
    everything = (0, 1, 2, 5, 6, 7, 8)
    for numbers in ((0,), (1, 2, 5), (6,), (7, 8)):
        await store.append_log(made.id, lines(*numbers), keep=keep)

    assert await store.log(made.id, 0, 100) == lines(*everything[len(everything) - min(keep, 7) :])
    assert await store.log_end(made.id) == 9


async def test_lines_for_a_task_that_is_gone_are_dropped(store: Store) -> None:
    await store.append_log("nobody", lines(0), keep=100)

    assert await store.log("nobody", 0, 100) == []
    assert await store.log_end("nobody") == 0


async def test_a_change_of_the_task_leaves_its_log_alone(store: Store) -> None:
    made = await store.create(task())
    await store.append_log(made.id, lines(0, 1), keep=100)
    await store.write(attrs.evolve(made, state=State.RUNNING), expect=State.QUEUED)

    assert await store.log(made.id, 0, 100) == lines(0, 1)
    assert await store.log_end(made.id) == 2


# Prune.


async def test_prune_forgets_what_ended_before_a_time_with_its_log(store: Store) -> None:
    old = await store.create(ended(10.0))
    await store.append_log(old.id, lines(0), keep=100)
    edge, new = await store.create(ended(20.0)), await store.create(ended(30.0))

    assert await store.prune(before=20.0, keep=100) == 1
    assert await store.ids() == [edge.id, new.id]
    assert await store.log(old.id, 0, 100) == []


async def test_prune_keeps_so_many_of_those_that_ended_last(store: Store) -> None:
    """By the time of their end, not of their start; of equals the elder goes."""
    made = [await store.create(ended(at)) for at in (50.0, 10.0, 40.0, 40.0, 60.0)]

    assert await store.prune(before=0.0, keep=3) == 2
    assert await store.ids() == [made[0].id, made[3].id, made[4].id]


async def test_prune_tells_whom_it_forgot_when_they_are_gone(store: Store) -> None:
    old = await store.create(ended(10.0, id="old"))
    await store.create(ended(20.0, id="new"))
    told: list[Task] = []
    await store.prune(before=15.0, keep=100, forgotten=told.extend)

    assert told == [old]
    assert await store.ids() == ["new"]


async def test_owners_are_counted_with_what_they_have(store: Store) -> None:
    assert await store.owners() == {}
    for id, owner in (("a", "alice"), ("b", "bob"), ("c", "alice")):
        await store.create(task(id=id, owner=owner))
    await store.delete("b")

    assert await store.owners() == {"alice": 2}


async def test_what_is_still_to_be_destroyed_is_open(store: Store) -> None:
    owed = await store.create(ended(10.0, id="owed", destroy_on_finish=True))

    assert await store.open_tasks() == [owed]
    assert await store.prune(before=float("inf"), keep=0) == 0


async def test_prune_forgets_by_age_and_by_count(store: Store) -> None:
    made = [await store.create(ended(at)) for at in (10.0, 20.0, 30.0, 40.0)]

    assert await store.prune(before=15.0, keep=3) == 1
    assert await store.prune(before=0.0, keep=1) == 2
    assert await store.ids() == [made[-1].id]


async def test_prune_leaves_an_owner_who_has_few_what_he_has_and_takes_the_oldest_of_who_has_most(
    store: Store,
) -> None:
    """One who starts many would else push out the ends of everybody's, which nobody could ask for any more."""
    few = [await store.create(ended(at, owner="ann")) for at in (1.0, 2.0)]
    many = [await store.create(ended(at, owner="bob")) for at in (3.0, 6.0, 5.0, 4.0, 7.0)]
    some = [await store.create(ended(at, owner="cat")) for at in (8.0, 9.0, 10.0)]

    assert await store.prune(before=0.0, keep=7) == 3
    assert await store.ids() == [task.id for task in (*few, many[1], many[4], *some)]


async def test_what_is_too_old_takes_no_part_of_what_may_be_kept(store: Store) -> None:
    for at in (1.0, 2.0, 3.0):
        await store.create(ended(at, owner="ann"))
    new = [await store.create(ended(at, owner="bob")) for at in (10.0, 11.0, 12.0, 13.0)]

    assert await store.prune(before=5.0, keep=4) == 3
    assert await store.ids() == [task.id for task in new]


@given(st.dictionaries(st.text(max_size=2), st.integers(0, 20)), st.integers(0, 60))
def test_a_share_is_lost_one_by_one_by_whoever_has_most(held: dict[str, int], keep: int) -> None:
    left = dict(held)
    while sum(left.values()) > keep:
        left[max(left, key=lambda owner: (left[owner], held[owner], owner))] -= 1

    assert shares(held, keep) == left


async def test_prune_never_touches_a_task_that_is_open_or_owes_an_undo(store: Store) -> None:
    for state in State:
        if not state.ended:
            await store.create(task(state=state))
    await store.create(task(state=State.FAILED, finished_at=Time(1.0), **OWED))
    before = await store.ids()
    await store.create(ended(2.0))

    assert await store.prune(before=float("inf"), keep=0) == 1
    assert await store.ids() == before


async def test_prune_with_nothing_to_forget_forgets_nothing(store: Store) -> None:
    assert await store.prune(before=float("inf"), keep=0) == 0


# Tokens.


def token(id: str, **changes: Any) -> Token:
    return attrs.evolve(Token(id, "ann", ("user",), "d" * 64, Time(1_000_000.125)), **changes)


async def test_tokens_read_back_as_they_were_added_oldest_first(store: Store) -> None:
    """By when they were added, whatever the clock said then."""
    added = [
        token("c0000000", roles=("admin", "service"), user="gröbe \u202e", created_at=Time(9.0)),
        token("a0000000", expires_at=Time(1_000_001.5)),
        token("b0000000", created_at=Time(1.0)),
    ]
    assert await store.tokens() == []
    for each in added:
        await store.add_token(each)

    assert await store.tokens() == added


async def test_an_id_of_a_token_that_is_taken_conflicts_and_the_first_stays(store: Store) -> None:
    first = token("a0000000")
    await store.add_token(first)
    with pytest.raises(Conflict):
        await store.add_token(token("a0000000", user="bob"))

    assert await store.tokens() == [first]


async def test_a_token_is_deleted_once(store: Store) -> None:
    kept = token("b0000000")
    await store.add_token(token("a0000000"))
    await store.add_token(kept)

    assert [await store.delete_token(id) for id in ("a0000000", "a0000000", "c0000000")] == [True, False, False]
    assert await store.tokens() == [kept]


async def test_of_two_who_delete_a_token_at_once_one_did(store: Store) -> None:
    await store.add_token(token("a0000000"))
    answers: list[bool] = []

    async def delete() -> None:
        answers.append(await store.delete_token("a0000000"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(delete)
        nursery.start_soon(delete)

    assert sorted(answers) == [False, True]


# Cancel.


async def _write(store: Store) -> None:
    made = await store.get("one")
    assert made is not None
    await store.write(attrs.evolve(made, state=State.RUNNING), expect=State.QUEUED)


_VERBS: dict[str, Callable[[Store], Awaitable[object]]] = {
    "reserve": lambda store: store.reserve(1),
    "create": lambda store: store.create(task(id="other")),
    "write": _write,
    "delete": lambda store: store.delete("one"),
    "get": lambda store: store.get("one"),
    "requested": lambda store: store.requested("ann", "r"),
    "list": lambda store: store.list(Query()),
    "ids": lambda store: store.ids(),
    "ids_text": lambda store: store.ids_text(),
    "owners": lambda store: store.owners(),
    "open_tasks": lambda store: store.open_tasks(),
    "append_log": lambda store: store.append_log("one", lines(0), keep=10),
    "log": lambda store: store.log("one", 0, 10),
    "log_end": lambda store: store.log_end("one"),
    "prune": lambda store: store.prune(before=5.0, keep=10),
    "tokens": lambda store: store.tokens(),
    "add_token": lambda store: store.add_token(token("b0000000")),
    "delete_token": lambda store: store.delete_token("a0000000"),
}


@pytest.mark.parametrize("verb", _VERBS)
async def test_every_verb_is_a_checkpoint(store: Store, verb: str) -> None:
    await store.create(task(id="one"))

    with trio.testing.assert_checkpoints():
        await _VERBS[verb](store)


@attrs.define(eq=False)
class CancelAtStep(trio.abc.Instrument):
    """Cancels ``scope`` just before the given step of the task that entered it."""

    step: int
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    task: trio.lowlevel.Task = attrs.field(factory=trio.lowlevel.current_task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.step -= 1
            if self.step == 0:
                self.scope.cancel()


async def _contents(store: Store) -> object:
    """All that the verbs that write can change, but for numbers that were set aside."""
    tasks = await store.list(Query(newest_first=False))
    plain = [(task.id, task.state) for task in tasks]
    logs = [(await store.log(task.id, 0, 10), await store.log_end(task.id)) for task in tasks]
    return plain, logs, await store.tokens()


@pytest.mark.parametrize("verb", ["create", "write", "delete", "append_log", "prune", "add_token", "delete_token"])
async def test_a_write_that_is_cancelled_happened_whole_or_not_at_all(store: Store, verb: str) -> None:
    """Not when the cancel came before its first step, wholly when it came after its last."""
    outcomes: list[object] = []
    for step in itertools.count():
        for id in await store.ids():
            await store.delete(id)
        for each in await store.tokens():
            await store.delete_token(each.id)
        await store.add_token(token("a0000000"))
        await store.create(task(id="one"))
        await store.create(ended(1.0, id="old"))
        before = await _contents(store)
        instrument = CancelAtStep(step)
        if step == 0:
            instrument.scope.cancel()
        trio.lowlevel.add_instrument(instrument)
        with instrument.scope:
            await _VERBS[verb](store)
        trio.lowlevel.remove_instrument(instrument)
        outcomes.append(await _contents(store))
        if not instrument.scope.cancel_called:
            break

    happened = [outcome != before for outcome in outcomes]
    assert happened == sorted(happened)
    assert (happened[0], happened[-1]) == (False, True)
    assert all(outcome in (before, outcomes[-1]) for outcome in outcomes)
