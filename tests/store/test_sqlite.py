"""What SQLite adds to the contract: durability, group commit, full disks, and files that are refused."""

from __future__ import annotations

import ctypes
import os
import platform
import random
import re
import signal
import sqlite3
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from threading import enumerate as threads

import attrs
import pytest
import trio
import trio.testing

from taskd.codec import dumps
from taskd.errors import Conflict, StoreError, StoreUnavailable, StoreUnusable
from taskd.model import Task, Time
from taskd.states import State
from taskd.store import Query, listed, rows, schema
from taskd.store.sqlite import SqliteStore
from tests.process import PATIENCE
from tests.proof import damage, seed
from tests.store.test_contract import CancelAtStep, ended, lines, task, token

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "taskd.sqlite"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    made = await SqliteStore.open(path)
    yield made
    await made.close()


def edit(path: Path, sql: str) -> None:
    """Do to the file what somebody else's program does."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(sql)


def statements(connection: sqlite3.Connection | None) -> list[str]:
    """Every statement that the connection runs from now on."""
    seen: list[str] = []
    assert connection is not None
    connection.set_trace_callback(seen.append)
    return seen


def writing(before: Collection[Thread]) -> list[Thread]:
    """The threads of stores that were not there before: an earlier test's may be about to end."""
    return [thread for thread in threads() if thread.name == "taskd store" and thread not in before]


# The file.


async def test_the_file_is_made_for_its_owner_only(store: SqliteStore, path: Path) -> None:
    """And the index of its log is no file: mapped into memory it is a SIGBUS when the folder turns read-only."""
    await store.reserve(1)

    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(("taskd.sqlite", "taskd.sqlite-wal", "spare"), 0o600)


async def test_the_writer_keeps_a_log_and_syncs_every_commit(store: SqliteStore) -> None:
    connection = store._writer._connection
    assert connection is not None

    assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
    assert connection.execute("PRAGMA synchronous").fetchall() == [(2,)]


async def test_a_closed_store_is_one_file_and_what_is_spare_and_no_thread(path: Path) -> None:
    before = {*threads()}
    store = await SqliteStore.open(path)
    await store.create(task())
    assert len(writing(before)) == 1
    await store.close()

    assert {file.name for file in path.parent.iterdir()} == {"taskd.sqlite", "spare"}
    assert writing(before) == []


async def test_what_is_queued_when_the_store_closes_is_written(path: Path) -> None:
    store = await SqliteStore.open(path)
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(store.create, task())
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        await store.close()

    store = await SqliteStore.open(path)
    assert len(await store.ids()) == 50
    await store.close()


async def test_a_closed_store_says_so(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.close()

    with pytest.raises(StoreUnavailable, match="closed"):
        await store.create(task())
    with pytest.raises(StoreError, match="closed"):
        await store.get("one")
    with pytest.raises(StoreError, match="closed"):
        await store.list(Query())


def test_a_store_that_nobody_closed_ends_its_thread_with_the_run(path: Path) -> None:
    """Else a daemon that failed could not end: Python waits for the thread."""
    before = {*threads()}

    async def forget() -> list[Thread]:
        await (await SqliteStore.open(path)).create(task())
        return writing(before)

    (thread,) = trio.run(forget)
    thread.join(PATIENCE)

    assert not thread.is_alive()


async def test_tasks_requests_logs_tokens_and_revisions_survive_a_restart(path: Path) -> None:
    store = await SqliteStore.open(path)
    made = await store.create(task(request_id="r", label="first"))
    await store.append_log(made.id, lines(0, 1), keep=10)
    gone = await store.create(task())
    await store.delete(gone.id)
    kept = token("a0000000", expires_at=Time(2_000_000.5))
    await store.add_token(token("b0000000"))
    await store.add_token(kept)
    await store.delete_token("b0000000")
    revision = await store.reserve(10)
    await store.close()

    store = await SqliteStore.open(path)
    assert await store.get(made.id) == made
    assert await store.create(task(request_id="r")) == made
    assert await store.log(made.id, 0, 10) == lines(0, 1)
    assert await store.log_end(made.id) == 2
    assert await store.tokens() == [kept]
    assert await store.reserve(1) >= revision + 10
    assert (await store.create(task())).seq > gone.seq
    await store.close()


# What is refused on opening.


async def refusal(path: Path) -> str:
    """The sentence; and nothing was changed."""
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreUnusable) as caught:
        await SqliteStore.open(path)
    assert (path.read_bytes() if path.is_file() else None) == before
    assert str(path.parent) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("content", [b"hello", b"not a database\n" * 1000, b"\0" * 5000])
async def test_what_is_no_database_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    assert "file is not a database" in await refusal(path)


async def test_a_newer_schema_is_refused_with_both_numbers(path: Path) -> None:
    await (await SqliteStore.open(path)).close()
    edit(path, "PRAGMA user_version = 4711")

    sentence = await refusal(path)
    assert "was written by a newer taskd" in sentence
    assert re.search(rf"schema is number 4711, .* up to {len(schema.MIGRATIONS)}$", sentence)


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA application_id = 1196444487; PRAGMA user_version = 1",
        "CREATE TABLE customer (name TEXT)",
        "PRAGMA user_version = 3; VACUUM",
    ],
    ids=["other mark", "no mark", "only a version"],
)
async def test_a_database_of_another_program_is_refused(path: Path, sql: str) -> None:
    edit(path, sql)

    assert "not one of taskd" in await refusal(path)


@pytest.mark.parametrize(
    ("sql", "missing"),
    [
        ("DROP TABLE task_log", "task_log.at, task_log.line, task_log.n, task_log.seal, task_log.task"),
        ("ALTER TABLE task RENAME COLUMN doc TO dok", "task.doc"),
        ("DROP INDEX task_owner", "task_owner"),
        ("ALTER TABLE token RENAME COLUMN digest TO secret", "token.digest"),
    ],
)
async def test_a_database_that_lacks_a_part_is_refused(path: Path, sql: str, missing: str) -> None:
    await (await SqliteStore.open(path)).close()
    edit(path, sql)

    assert (await refusal(path)).endswith(f"it lacks {missing}")


async def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert "No such file" in await refusal(tmp_path / "nowhere" / "taskd.sqlite")


@pytest.fixture
def small() -> Iterator[Path]:
    """A file system of two megabytes. Not in pytest's folder, which could not be cleared after a killed run."""
    folder = Path(tempfile.mkdtemp(prefix="taskd-test-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "taskd-test", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()


@as_root
@pytest.mark.parametrize("there", [False, True], ids=["no file yet", "file there"])
async def test_a_folder_that_cannot_be_written_is_refused(small: Path, there: bool) -> None:
    if there:
        await (await SqliteStore.open(small / "taskd.sqlite")).close()
    await trio.run_process(["mount", "-o", "remount,ro", small])

    assert re.search(r"cannot be written: .*read-only", await refusal(small / "taskd.sqlite"), re.IGNORECASE)


async def test_an_empty_file_is_one_that_was_cut_and_is_refused(path: Path) -> None:
    path.touch()

    assert "is empty: what was in it is lost" in await refusal(path)


@pytest.mark.parametrize("left", [b"", b"the first half of it"])
async def test_what_a_crash_left_of_a_file_that_was_being_made_is_made_anew(path: Path, left: bytes) -> None:
    for name in ("taskd.sqlite.new", "taskd.sqlite.new-journal"):
        path.with_name(name).write_bytes(left)

    await (await SqliteStore.open(path)).close()

    assert [file.name for file in path.parent.iterdir()] == ["taskd.sqlite"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_without_its_file_a_database_begins_anew_whatever_is_left_beside_it(path: Path) -> None:
    """An admin removes a damaged file after a crash, and not the log, which SQLite would play into the new one."""
    store = await SqliteStore.open(path)
    await store.create(task())
    await store.add_token(token("a0000000"))
    log = path.with_name(f"{path.name}-wal")
    left = log.read_bytes()  # as it is after a kill: to close it would fold it into the file
    await store.close()
    path.unlink()
    log.write_bytes(left)
    for name in ("taskd.sqlite-journal", "taskd.sqlite-shm"):
        path.with_name(name).write_bytes(b"of the old one")

    store = await SqliteStore.open(path)
    assert (await store.ids(), await store.tokens(), await store.reserve(1)) == ([], [], 1)
    await store.close()
    store = await SqliteStore.open(path)
    assert (await store.create(task())).seq == 1
    await store.close()
    assert {file.name for file in path.parent.iterdir()} == {"taskd.sqlite", "spare"}


# What is damaged.


def test_a_database_with_any_bit_flipped_is_refused_or_says_what_is_true() -> None:
    """At places that are told by a seed, another one on each day (``tests/proof/damage.py``)."""
    rng, size = random.Random(seed()), len(damage.base().content)

    for _ in range(60):
        place, bit = rng.randrange(size), 1 << rng.randrange(8)
        damage.database(bytes([place >> 16, *(place & 0xFFFF).to_bytes(2, "big"), bit]))


@pytest.mark.parametrize(
    ("sql", "sentence"),
    [
        ("UPDATE meta SET value = value - 1 WHERE key = 'next_revision'", "is not what was written"),
        ("UPDATE task SET revision = 4711", "there is a revision that was never given"),
        ("UPDATE sqlite_sequence SET seq = 0", "there is a task of a number that was never given"),
        ("UPDATE task SET open = 0", "a task that has not ended counts as one that has"),
        ("CREATE TRIGGER it AFTER UPDATE ON task BEGIN SELECT 1; END", "was changed by hand: it"),
        ("DROP INDEX task_open; CREATE INDEX task_open ON task (seq)", "was changed by hand: task_open"),
    ],
)
async def test_what_contradicts_itself_is_refused_however_large_it_is(
    path: Path, sql: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "SMALL", 0)
    store = await SqliteStore.open(path)
    await store.create(task(id="one"))
    await store.close()
    edit(path, sql)

    assert sentence in await refusal(path)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE task SET doc = replace(doc, 'ann', 'eve')",
        "UPDATE task SET owner = 'eve'",
        "UPDATE task SET label = 'another'",
        "UPDATE task SET finished_at = 1.0",
    ],
)
async def test_a_row_that_is_not_as_it_was_written_is_not_believed(path: Path, sql: str) -> None:
    store = await SqliteStore.open(path)
    await store.create(task(id="one"))
    await store.close()
    edit(path, sql)

    store = await SqliteStore.open(path)
    for ask in (lambda: store.get("one"), lambda: store.list(Query()), store.open_tasks):
        with pytest.raises(StoreError, match="task 1 in the database is damaged"):
            await ask()
    await store.close()


async def test_a_time_that_is_finer_than_a_millisecond_is_believed(store: SqliteStore) -> None:
    made = await store.create(ended(1_700_000_000.12399, id="one"))

    assert made.finished_at == 1_700_000_000.12399
    assert await store.get("one") is not None


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE task_log SET line = 'another' WHERE n = 1",
        "UPDATE task_log SET at = 1 WHERE n = 1",
        "UPDATE token SET user = 'root'",
        "UPDATE token SET expires_at = NULL",
    ],
)
async def test_no_line_and_no_token_is_believed_that_is_not_as_it_was_written(path: Path, sql: str) -> None:
    store = await SqliteStore.open(path)
    made = await store.create(task())
    await store.append_log(made.id, lines(0, 1), keep=10)
    await store.add_token(token("a0000000", expires_at=Time(5.0)))
    await store.close()
    edit(path, sql)

    store = await SqliteStore.open(path)
    with pytest.raises(StoreError, match="is not what was written"):
        await (store.tokens() if "token" in sql else store.log(made.id, 0, 10))
    await store.close()


@pytest.mark.parametrize("sql", ["UPDATE task SET log_end = 1", "DELETE FROM task_log WHERE n = 0"])
async def test_a_log_does_not_go_on_where_lines_of_it_are_missing(path: Path, sql: str) -> None:
    store = await SqliteStore.open(path)
    made = await store.create(task())
    await store.append_log(made.id, lines(0, 1), keep=10)
    await store.close()
    edit(path, sql)

    store = await SqliteStore.open(path)
    with pytest.raises(StoreError, match="its lines are not those that it had"):
        await store.log_end(made.id)
    await store.close()


# Migrations.


async def test_an_older_schema_is_brought_up_and_keeps_its_tasks(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await SqliteStore.open(path)
    made = await store.create(task())
    await store.close()
    more = ("ALTER TABLE task ADD COLUMN colour TEXT", "CREATE INDEX task_colour ON task (colour)")
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, *more))

    store = await SqliteStore.open(path)
    assert await store.get(made.id) == made
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchall() == [(len(schema.MIGRATIONS),)]
        assert connection.execute("SELECT colour FROM task").fetchall() == [(None,)]


async def test_a_migration_that_fails_leaves_the_schema_before_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await SqliteStore.open(path)).close()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "CREATE TABLE x (y); CREATE TABLE x (y)"))
        with pytest.raises(StoreUnusable, match="already exists"):
            await SqliteStore.open(path)

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchall() == [(len(schema.MIGRATIONS),)]
        assert connection.execute("SELECT * FROM sqlite_master WHERE name = 'x'").fetchall() == []
    await (await SqliteStore.open(path)).close()


# Group commit.


async def test_concurrent_writes_share_commits(store: SqliteStore) -> None:
    seen = statements(store._writer._connection)
    before = store.commits
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(store.create, task())

    assert len(await store.ids()) == 100
    assert store.commits - before == seen.count("COMMIT") <= 20


async def test_a_write_that_conflicts_does_not_spoil_those_that_share_its_commit(store: SqliteStore) -> None:
    made = [await store.create(task()) for _ in range(60)]
    conflicts: list[str] = []

    async def move(i: int, task: Task) -> None:
        expect = State.RUNNING if i % 3 == 0 else State.QUEUED
        try:
            await store.write(attrs.evolve(task, state=State.CANCELLED), expect=expect)
        except Conflict:
            conflicts.append(task.id)

    before = store.commits
    async with trio.open_nursery() as nursery:
        for i, each in enumerate(made):
            nursery.start_soon(move, i, each)

    assert store.commits - before <= 20
    assert sorted(conflicts) == sorted(task.id for task in made[::3])
    queued = await store.list(Query(states=[State.QUEUED], newest_first=False))
    assert [task.id for task in queued] == [task.id for task in made[::3]]


async def test_an_id_that_is_taken_is_a_conflict_and_the_first_task_stays(store: SqliteStore) -> None:
    made = await store.create(task(id="one", label="first"))

    with pytest.raises(Conflict):
        await store.create(task(id="one", label="second"))
    assert await store.get("one") == made


async def test_a_write_that_conflicts_half_way_is_taken_back_whole(store: SqliteStore) -> None:
    made = await store.create(task())
    await store.append_log(made.id, lines(1), keep=10)

    with pytest.raises(Conflict):
        await store.append_log(made.id, lines(0, 1, 2), keep=10)
    assert await store.log(made.id, 0, 10) == lines(1)


async def test_a_write_that_breaks_the_transaction_leaves_none_open(store: SqliteStore, path: Path) -> None:
    made = await store.create(task())
    edit(path, "ALTER TABLE task_log RENAME TO elsewhere")

    with pytest.raises(StoreUnavailable, match="no such table"):
        await store.append_log(made.id, lines(0), keep=10)
    after = await store.create(task())
    assert await store.get(after.id) == after


# Cancel and steps.


async def test_a_cancel_that_comes_while_a_write_is_under_way_waits_for_its_answer(
    store: SqliteStore, path: Path
) -> None:
    answers: list[Task] = []
    scope = trio.CancelScope()

    async def create() -> None:
        with scope:
            answers.append(await store.create(task()))

    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(create)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert answers == []
            other.execute("ROLLBACK")

    assert [task.id for task in answers] == await store.ids()
    assert len(answers) == 1


@pytest.mark.parametrize("step", [1, 2])
async def test_cancelled_out_of_a_write_says_that_nothing_was_written(store: SqliteStore, step: int) -> None:
    """And where the cancel came too late, the answer arrives: the caller need not guess."""
    instrument = CancelAtStep(step)
    trio.lowlevel.add_instrument(instrument)
    answer = None
    with instrument.scope:
        await trio.lowlevel.checkpoint()
        answer = await store.create(task(id="one"))
    trio.lowlevel.remove_instrument(instrument)

    assert instrument.scope.cancel_called
    assert await store.get("one") == answer
    assert (answer is None) == (step == 1)


@attrs.define(eq=False)
class CountSteps(trio.abc.Instrument):
    steps: dict[trio.lowlevel.Task, int] = attrs.field(factory=dict)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps[task] = self.steps.get(task, 0) + 1


_VERBS: dict[str, Callable[[SqliteStore], Awaitable[object]]] = {
    "create": lambda store: store.create(task()),
    "delete": lambda store: store.delete("nobody"),
    "get": lambda store: store.get("nobody"),
    "list": lambda store: store.list(Query()),
    "open_tasks": lambda store: store.open_tasks(),
}


@pytest.mark.parametrize("verb", _VERBS)
async def test_a_verb_takes_the_same_number_of_steps_alone_and_in_a_crowd(store: SqliteStore, verb: str) -> None:
    """So that a sweep that cancels at step n means the same thing each time."""
    crowd: set[trio.lowlevel.Task] = set()

    async def call() -> None:
        crowd.add(trio.lowlevel.current_task())
        await _VERBS[verb](store)

    counter = CountSteps()
    trio.lowlevel.add_instrument(counter)
    for size in (1, 1, 40):
        async with trio.open_nursery() as nursery:
            for _ in range(size):
                nursery.start_soon(call)
    trio.lowlevel.remove_instrument(counter)

    assert len({counter.steps[task] for task in crowd}) == 1


# The cost of reading, and of forgetting.


async def test_no_log_line_outlives_its_task(store: SqliteStore, path: Path) -> None:
    for i in range(3):
        made = await store.create(ended(1.0, id=f"{i}"))
        await store.append_log(made.id, lines(0, 1), keep=10)
    await store.delete("0")
    await store.prune(before=2.0, keep=0)

    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM task_log").fetchall() == []


_WAYS: dict[str, tuple[Callable[[SqliteStore], Awaitable[object]], str]] = {
    "get": (lambda store: store.get("one"), "autoindex_task_1 (id="),
    "requested": (lambda store: store.requested("ann", "r"), "task_request (owner=? AND request_id="),
    "log_end": (lambda store: store.log_end("one"), "autoindex_task_1 (id="),
    "log": (lambda store: store.log("one", 5, 10), "PRIMARY KEY (task=? AND n>"),
    "open": (lambda store: store.open_tasks(), "task_open"),
    "newest": (lambda store: store.list(Query()), "PRIMARY KEY (rowid<"),
    "oldest": (lambda store: store.list(Query(newest_first=False)), "PRIMARY KEY (rowid>"),
    "later": (lambda store: store.list(Query(after=50)), "PRIMARY KEY (rowid<"),
    "of an owner": (
        lambda store: store.list(Query(owner="ann", operations=["copy"], states=[State.FAILED], label="x")),
        "task_owner (owner=? AND rowid<",
    ),
    "of an operation": (
        lambda store: store.list(Query(operations=["copy", "command"], states=[State.FAILED])),
        "task_operation (operation=? AND rowid<",
    ),
    "unfinished": (
        lambda store: store.list(Query(states=[State.RUNNING, State.QUEUED], owner="ann")),
        "task_open (seq<",
    ),
    "ended": (
        lambda store: store.list(Query(states=[State.FAILED, State.CANCELLED])),
        "task_state (state=? AND rowid<",
    ),
    "changed": (lambda store: store.list(Query(since=5, owner="ann")), "PRIMARY KEY (rowid=?)"),
    "ids of an owner": (lambda store: store.ids(owner="ann"), "task_owner (owner="),
    "ids of an operation": (lambda store: store.ids(operation="copy"), "task_operation (operation="),
    "whose to forget": (lambda store: store.prune(before=0.0, keep=0), "COVERING INDEX task_ended"),
}


@pytest.mark.parametrize("way", _WAYS)
async def test_a_read_goes_by_its_index_and_sorts_nothing(store: SqliteStore, path: Path, way: str) -> None:
    read, index = _WAYS[way]
    seen = [statements(store._lookups), statements(store._readings)]
    await read(store)
    plan: list[str] = []
    with closing(sqlite3.connect(path)) as connection:
        for sql in {sql for each in seen for sql in each} - {"BEGIN", "COMMIT"}:
            plan += [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]

    assert index in "; ".join(plan)
    # All of the index of open tasks may be read: it holds no others. Of ended ones, no more than the index.
    long = r"SCAN (task|meta)(?! USING (COVERING )?INDEX task_open| USING COVERING INDEX task_ended)|ORDER BY"
    assert [step for step in plan if re.search(long, step)] == []


async def test_few_or_many_changes_since_a_revision_list_the_same(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for revision in range(10):
        await store.create(task(revision=revision))
        await store.create(ended(1.0, revision=revision))
    queries = [Query(since=4, newest_first=newest_first, after=9) for newest_first in (True, False)]
    few = [await store.list(query) for query in queries]
    monkeypatch.setattr(rows, "FEW", 0)

    assert [await store.list(query) for query in queries] == few


async def test_prune_takes_many_small_writes(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded by tasks, by log lines and by bytes, so that nobody waits long for the writer."""
    monkeypatch.setattr(rows, "PRUNED_TASKS", 3)
    monkeypatch.setattr(rows, "PRUNED_LINES", 4)
    monkeypatch.setattr(rows, "PRUNED_BYTES", 5000)
    for i in range(14):
        made = await store.create(ended(float(i), result="x" * 4000 * (i > 9)))
        if i < 4:
            await store.append_log(made.id, lines(0, 1, 2), keep=10)
    before = store.commits
    told: list[list[float]] = []

    def forgotten(tasks: Sequence[Task]) -> None:
        told.append([each.finished_at or 0.0 for each in tasks])

    assert await store.prune(before=20.0, keep=5, forgotten=forgotten) == 14
    # By their lines; then three and three; then by their bytes; and one that found nothing more.
    assert told == [[0], [1], [2], [3, 4, 5], [6, 7, 8], [9], [10], [11], [12], [13]]
    assert store.commits - before == 11


# Disks.


def fill(folder: Path) -> Path:
    ballast = folder / "ballast"
    with pytest.raises(OSError, match="No space"), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    return ballast


@as_root
async def test_on_a_full_disk_writes_are_refused_reads_answered_and_writing_resumes(small: Path) -> None:
    store = await SqliteStore.open(small / "taskd.sqlite")
    made = await store.create(task(request_id="r"))
    ballast = fill(small)

    for _ in range(3):
        with pytest.raises(StoreUnavailable, match=r"the store cannot write: .*full"):
            while True:  # the log may have some room left
                await store.create(task(label="x" * 10_000))
        assert await store.get(made.id) == made
        assert await store.requested("ann", "r") == made
        assert made in await store.list(Query(newest_first=False))
        assert made in await store.open_tasks()

    ballast.unlink()
    after = await store.create(task())
    assert await store.get(after.id) == after
    await store.close()


@as_root
async def test_a_full_disk_fails_the_whole_group_and_nothing_of_it_is_written(small: Path) -> None:
    store = await SqliteStore.open(small / "taskd.sqlite")
    ballast = fill(small)
    acknowledged: list[str] = []

    async def create() -> None:
        wanted = task(label="x" * 5_000)
        try:
            await store.create(wanted)
        except StoreUnavailable:
            return
        acknowledged.append(wanted.id)

    async with trio.open_nursery() as nursery:
        for _ in range(300):
            nursery.start_soon(create)

    assert len(acknowledged) < 300
    assert sorted(await store.ids()) == sorted(acknowledged)
    ballast.unlink()
    await store.close()


async def test_a_lock_of_somebody_else_refuses_writes_and_no_reads(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "PATIENCE", 0.01)
    store = await SqliteStore.open(path)
    made = await store.create(task())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.create(task())
        assert await store.get(made.id) == made
        assert await store.list(Query()) == [made]

    await store.create(task())
    await store.close()


# The ids at hand.


async def test_a_list_that_was_read_is_at_hand_until_a_change_is_asked_for(store: SqliteStore) -> None:
    made = await store.create(task())
    assert store.ids_at_hand() is None
    assert await store.ids() == [made.id]
    assert store.ids_at_hand() == dumps([made.id])
    assert store.ids_at_hand(owner="ann") is None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.delete, made.id)
        await trio.testing.wait_all_tasks_blocked(0)
        assert store.ids_at_hand() is None


@pytest.mark.parametrize("change", ["create", "delete"])
async def test_a_list_that_was_read_before_a_change_is_not_at_hand_after_it(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    old = await store.create(task())
    read, was_read, go = rows.ids, trio.Event(), Event()

    def slow(connection: sqlite3.Connection, owner: str | None, operation: str | None) -> bytes:
        found = read(connection, owner, operation)
        trio.from_thread.run_sync(was_read.set)
        go.wait(20)
        return found

    monkeypatch.setattr(rows, "ids", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.ids)
        await was_read.wait()
        await (store.create(task()) if change == "create" else store.delete(old.id))
        go.set()

    monkeypatch.undo()
    assert store.ids_at_hand() in (None, dumps(await store.ids()))


async def test_a_list_that_is_read_while_a_change_is_under_way_is_not_at_hand_after_it(path: Path) -> None:
    store = await SqliteStore.open(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # the change waits for this
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.create, task())
            await trio.testing.wait_all_tasks_blocked()
            assert await store.ids() == []
            assert store.ids_at_hand() is None
            other.execute("COMMIT")
    assert store.ids_at_hand() in (None, dumps(await store.ids()))
    await store.close()


async def test_not_many_lists_are_kept(store: SqliteStore) -> None:
    for number in range(3 * listed.LISTS):
        await store.ids(owner=f"owner {number}")
    kept = [store.ids_at_hand(owner=f"owner {number}") for number in range(3 * listed.LISTS)]

    assert 0 < len(kept) - kept.count(None) <= listed.LISTS


async def test_a_list_is_let_go_of_when_nobody_asks_for_it_and_kept_for_those_who_do(
    autojump_clock: trio.testing.MockClock,
) -> None:
    kept = listed.Listed()
    for _ in range(2):  # and when all are gone it begins anew
        kept.keep((None, None), b'["a","b"]', 0)
        kept.keep(("ann", None), b'["a"]', 0)
        for _ in range(10):
            await trio.sleep(listed.KEPT / 2)
            assert kept.get(("ann", None)) == b'["a"]'
        assert kept.get((None, None)) is None
        await trio.sleep(2 * listed.KEPT + 1)
        assert kept.get(("ann", None)) is None


async def test_after_a_change_that_failed_the_ids_at_hand_are_what_is_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "PATIENCE", 0.01)
    store = await SqliteStore.open(path)
    made = await store.create(task())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for change in (store.create(task()), store.delete(made.id)):
            await store.ids()
            with pytest.raises(StoreUnavailable):
                await change
            assert store.ids_at_hand() is None
            assert await store.ids() == [made.id]
            assert store.ids_at_hand() == dumps([made.id])
    await store.close()


# Crashes. The child is this module, run with the name of one of its functions and a path.


def child(function: Callable[[Path], Awaitable[None]], path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", __name__, function.__name__, str(path)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )


def found_in(path: Path) -> Sequence[Task]:
    """The tasks that the next process finds."""

    async def look() -> Sequence[Task]:
        store = await SqliteStore.open(path)
        found = await store.list(Query(limit=100_000, newest_first=False))
        assert await store.open_tasks() == found
        await store.close()
        return found

    return trio.run(look)


async def create_and_tell(path: Path) -> None:
    store = await SqliteStore.open(path)

    async def create(worker: int) -> None:
        for i in range(100_000):
            made = await store.create(task(id=f"{worker}-{i}", request_id=f"{worker}-{i}"))
            print(made.id, flush=True)

    async with trio.open_nursery() as nursery:
        for worker in range(16):
            nursery.start_soon(create, worker)


@pytest.mark.parametrize("moment", [1, 2, 5, 40, 300, 1500])
def test_what_was_acknowledged_is_there_after_a_kill(path: Path, moment: int) -> None:
    """Killed after so many answers, in the middle of the next writes."""
    with child(create_and_tell, path) as process:
        assert process.stdout is not None
        answered = [process.stdout.readline().strip() for _ in range(moment)]
        process.kill()
        answered += process.stdout.read().split("\n")[:-1]

    found = found_in(path)
    assert {*answered} <= {task.id for task in found}
    # In order and without a hole: seq is given in the transaction that writes it.
    assert [task.seq for task in found] == list(range(1, len(found) + 1))


async def test_no_task_is_made_in_a_file_that_no_start_would_find(path: Path, store: SqliteStore) -> None:
    """SQLite writes on to one that has no name any more. What runs already goes on with it."""
    await store.reserve(1)
    made = await store.create(task(id="one"))
    path.rename(path.with_name("away"))
    with pytest.raises(StoreUnavailable, match="was removed, or something else is in its place"):
        await store.reserve(1)
    path.touch()
    with pytest.raises(StoreUnavailable):
        await store.create(task(id="two"))
    await store.write(made, expect=made.state)
    path.with_name("away").replace(path)

    assert await store.reserve(1) == 2


# The numbers of seccomp, fsync and fdatasync.
_CALLS = {"x86_64": (317, 74, 75), "aarch64": (277, 82, 83)}


def break_syncing() -> None:
    """From now on the kernel answers every fsync of this process with EIO, as a dying disk does."""
    seccomp, fsync, fdatasync = _CALLS[platform.machine()]
    # Load the call's number; if it is one of the two, fail it with errno 5; else allow it.
    steps = [
        (0x20, 0, 0, 0),
        (0x15, 1, 0, fsync),
        (0x15, 0, 1, fdatasync),
        (6, 0, 0, 0x50005),
        (6, 0, 0, 0x7FFF0000),
    ]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    prog = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # no new privileges, which lets anybody set a filter
    assert libc.syscall(seccomp, 1, 1, prog) == 0, os.strerror(ctypes.get_errno())  # in every thread


async def commit_without_sync(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.create(task(id="before"))
    break_syncing()
    try:
        await store.create(task(id="refused"))
    except StoreUnavailable as error:
        print(error, await store.ids(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(platform.machine() not in _CALLS, reason="the numbers of its system calls are not known")
def test_a_write_that_was_refused_because_of_its_fsync_is_not_found_by_the_next_process(path: Path) -> None:
    """SQLite has written its frames whole by then, and would find them in the log."""
    with child(commit_without_sync, path) as process:
        said, _ = process.communicate()

    assert said == "the store cannot write: disk I/O error ['before']\n"
    assert [task.id for task in found_in(path)] == ["before"]


if __name__ == "__main__":
    trio.run(globals()[sys.argv[1]], Path(sys.argv[2]))
