"""Databases of every schema that was ever released still open, and every task in them is as it was.

``v1.sqlite`` was written by the store when schema 1 was the newest, and so on. For a new schema: add to
``EXAMPLES``, and write its file with ``python -m tests.store.test_old_files``. A file that is here is never
written again.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import attrs
import pytest
import trio

from taskd.model import Draft, Failure, LogLine, Progress, Residue, Speed, Task, Time, Token, Undo
from taskd.states import State
from taskd.store import Query
from taskd.store.schema import MIGRATIONS
from taskd.store.sqlite import SqliteStore

HERE = Path(__file__).parent


def _task(number: int, state: State) -> Task:
    """One that has every field set, so that no field can be lost unnoticed."""
    return Task(
        id=f"00000000-0000-4000-8000-00000000000{number}",
        operation="copy" if number % 2 else "command",
        params={"source": "/srv/größe.img", "blocks": {"size": 65536, "ranges": [[0, 1]]}, "verify": True},
        owner="root",
        processor="taskd",
        resident_on="host.example",
        created_at=Time(1_700_000_000.125),
        label=f"number {number}",
        description="an example",
        debug_info="dbg",
        seq=number,
        revision=100 + number,
        state=state,
        cancellable=state.cancellable,
        cancel_requested=state is State.CANCELLED,
        progress=Progress(50, 100, "bytes", 0.5, 12.5, 4.0, Time(1_700_000_002.5)),
        status="half way",
        speeds=(Speed("read", 1.5, "MiB/s"),),
        result={"digest": None, "sizes": [1, 2.5]} if state is State.COMPLETED else None,
        error=Failure("ENOSPC", "no space", ("/srv",)) if state is State.FAILED else None,
        attempt=1,
        started_at=Time(1_700_000_001.0),
        finished_at=Time(1_700_000_003.75) if state.ended else None,
        journal=() if state.ended else (Undo("unlink", {"path": "/srv/x.part", "inode": 7}),),
        request_id=f"request {number}",
        deadline_s=60.0,
        destroy_on_finish=number == 1,
    )


_STATES = [_task(number, state) for number, state in enumerate(State, 1)]
_OWED = (Residue("unlink", {"path": "/srv/x.part"}, "busy"),)
_OWING = attrs.evolve(_task(8, State.FAILED), journal=_STATES[0].journal, residue=_OWED)
_LOG = [LogLine(n, Time(1_700_000_001.0 + n), f"line {n} of größe") for n in range(5)]

_SAID = Draft({"bytes": 1}, ("SR_FULL", "4096"))
_NEWER = [attrs.evolve(each, annotations={"größe": "1"}, parent=_STATES[0].id, draft=_SAID) for each in _STATES]
_TOKENS = [
    Token("0000000b", "größe", ("admin", "service"), "b" * 64, Time(1_700_000_000.125)),
    Token("0000000a", "ann", ("user",), "a" * 64, Time(1_700_000_001.0), Time(1_700_000_060.5)),
]


@attrs.frozen
class Example:
    """What is in a file; the log is the first task's, and its newest 3 lines are kept."""

    tasks: list[Task]
    log: list[LogLine]
    tokens: list[Token] = attrs.field(factory=list)


EXAMPLES: dict[str, Example] = {
    "v1.sqlite": Example([*_STATES, _OWING], _LOG),
    "v2.sqlite": Example([*_NEWER, _OWING], _LOG, _TOKENS),
    "v3.sqlite": Example([*_NEWER, _OWING], _LOG, _TOKENS),
    "v4.sqlite": Example([*_NEWER, _OWING], _LOG, _TOKENS),
}


async def write_example(path: Path) -> None:
    """A database with the newest example, small and in one file."""
    example = [*EXAMPLES.values()][-1]
    store = await SqliteStore.open(path)
    await store.reserve(1000)
    for task in example.tasks:
        await store.create(task)
    await store.append_log(example.tasks[0].id, example.log, keep=3)
    for token in example.tokens:
        await store.add_token(token)
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM")


async def hold(path: Path, name: str) -> None:
    """The file at ``path`` has all that the example of that name has, and can be worked with."""
    tasks, log, tokens = attrs.astuple(EXAMPLES[name], recurse=False)
    store = await SqliteStore.open(path)

    assert await store.list(Query(newest_first=False)) == tasks
    assert [await store.get(task.id) for task in tasks] == tasks
    assert [await store.requested("root", f"request {task.seq}") for task in tasks] == tasks
    assert await store.open_tasks() == [task for task in tasks if task.open]
    assert await store.log(tasks[0].id, 0, 10) == log[-3:]
    assert await store.log_end(tasks[0].id) == 5
    assert await store.tokens() == tokens
    assert await store.reserve(1) == 1001
    assert (await store.create(attrs.evolve(tasks[0], id="new", request_id=None))).seq == len(tasks) + 1
    assert await store.prune(before=float("inf"), keep=0) == len([task for task in tasks if not task.open])
    await store.add_token(attrs.evolve(_TOKENS[0], id="new"))
    assert await store.delete_token("new")
    await store.close()


@pytest.mark.parametrize("name", EXAMPLES)
async def test_an_old_database_opens_with_every_task_as_it_was(tmp_path: Path, name: str) -> None:
    path = tmp_path / "taskd.sqlite"
    shutil.copy(HERE / name, path)

    await hold(path, name)


async def test_the_newest_file_is_what_the_store_writes_today(tmp_path: Path) -> None:
    path = tmp_path / "taskd.sqlite"
    await write_example(path)

    await hold(path, [*EXAMPLES][-1])


def test_every_schema_has_its_file() -> None:
    assert list(EXAMPLES) == [f"v{number}.sqlite" for number in range(1, len(MIGRATIONS) + 1)]
    assert sorted(file.name for file in HERE.glob("*.sqlite")) == sorted(EXAMPLES)


if __name__ == "__main__":
    newest = HERE / f"v{len(MIGRATIONS)}.sqlite"
    assert not newest.exists(), f"{newest} is there already"
    trio.run(write_example, newest)
