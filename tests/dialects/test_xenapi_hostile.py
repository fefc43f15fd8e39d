"""What a hostile or careless XenAPI client tried, and got the daemon with: each stays here."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from taskd.dialects.xenapi import where
from tests.bench import user
from tests.dialects.client import login, served


def test_a_field_is_put_into_words_once_however_often_it_is_asked_for() -> None:
    """An expression of 4 KiB asked 146 times for a map of 12,000 keys, for each task."""
    asked: list[str] = []

    class Record(dict[str, object]):
        def __getitem__(self, name: str) -> object:
            asked.append(name)
            return super().__getitem__(name)

    test = where.parse(" or ".join(['field "other_config" = "x"'] * 100), {"other_config"})

    assert not test(where.Texts(Record(other_config={"a": "b"})))
    assert asked == ["other_config"]


async def test_to_look_at_all_tasks_lets_others_go_on(autojump_clock: object, tmp_path: Path) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with served(tmp_path) as (_, client), trio.open_nursery() as nursery:
        for _ in range(50):
            await client("task.create", "label", "")
        nursery.start_soon(other)
        before = turns
        assert len(await client("task.get_all_where", "true")) == 50
        assert turns - before > 50
        nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class Steps(trio.abc.Instrument):
    """How many steps tasks of each name have taken."""

    taken: Counter[str] = attrs.field(factory=Counter)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.taken[task.name] += 1


@pytest.mark.parametrize(
    "asked",
    [
        ("event.from", ["task"], "", 0.0),
        ("event.next",),
        ("task.get_all_records",),
        ("task.get_all_records_where", "true"),
        ("task.get_all_where", "true"),
        ("task.get_by_name_label", "label"),
    ],
    ids=lambda asked: asked[0],
)
async def test_while_one_looks_at_all_tasks_another_does_so_once_and_not_as_often_as_it_asked(
    autojump_clock: object, tmp_path: Path, asked: tuple[str, *tuple[object, ...]]
) -> None:
    """Beside thirty calls of another's, which were all worked on at a time, one took thirty times as long."""
    method, *args = asked
    async with served(tmp_path) as (_, client):
        anns = [await login(client.api, user("ann")) for _ in range(30)]
        bob = await login(client.api, user("bob", 1001))
        for each in (*anns, bob):
            await each("event.register", ["task"])
        for each in (anns[0], bob):
            for _ in range(200):
                await each("task.create", "label", "")
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        async with trio.open_nursery() as nursery:
            for each in anns:
                nursery.start_soon(partial(each, method, *args), name="ann")
            while steps.taken["ann"] < 60:
                await trio.lowlevel.checkpoint()
            steps.taken.clear()
            async with trio.open_nursery() as once:
                once.start_soon(partial(bob, method, *args), name="bob")
            trio.lowlevel.remove_instrument(steps)

    assert steps.taken["bob"] >= 200
    assert steps.taken["ann"] < 2 * steps.taken["bob"]


async def test_a_session_that_somebody_waits_in_is_not_the_one_to_make_room(
    autojump_clock: object, tmp_path: Path
) -> None:
    async with served(tmp_path) as (_, client), trio.open_nursery() as nursery:
        token = (await client("event.from", ["task"], "", 0.0))["token"]
        nursery.start_soon(client, "event.from", ["task"], token, 40.0)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(600):
            await login(client.api)
        await client("task.get_all")


async def test_what_one_session_is_registered_for_has_an_end(autojump_clock: object, tmp_path: Path) -> None:
    async with served(tmp_path) as (_, client):
        many = [f"n-{number}" for number in range(20_000)]
        assert (await client.refused("event.register", many))[:2] == ["INVALID_VALUE", "classes"]
        await client("event.register", ["task"])
