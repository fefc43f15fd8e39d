"""The SQLite database behind the store: its numbered schema, and what it must be before a store works on it.

The law: ``MIGRATIONS[n - 1]`` makes schema n out of schema n - 1, in one transaction with the number itself.
A migration that was released is never edited; a change is a new one.

A file that is not ours, of a newer schema or damaged is refused before anything is written to it. On opening all
of it is looked at while it is small (``SMALL``), and of a large one what costs the same with a million tasks: the
marks in the header, the tables and indexes, the numbers that must never repeat, and whether two indexes agree on
which tasks have not ended. Each row has a ``seal``, by which ``rows`` knows later that it is as it was written.

``task.doc`` is the truth about a task; the columns beside it exist to be searched. A token is its columns.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from contextlib import ExitStack, closing
from functools import cache
from pathlib import Path
from typing import Final, TypeAlias
from zlib import crc32

from taskd.errors import StoreUnusable
from taskd.states import State
from taskd.store import spare

# "task" in ASCII: how file(1) and we know a database of ours.
APPLICATION_ID: Final = 0x7461736B

# Bytes up to which the whole file is looked at on opening; on a small machine it takes a fifth of a second.
SMALL: Final = 64 * 1024 * 1024

# Seconds to wait for somebody else's lock on the database, an admin's shell for instance.
PATIENCE: Final = 5.0

# Every index that is no UNIQUE one ends in seq, be it by name or because seq is the rowid: so a page in order of
# seq is read off it without sorting.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE task (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        operation TEXT NOT NULL,
        label TEXT NOT NULL,
        state TEXT NOT NULL,
        revision INTEGER NOT NULL,
        finished_at REAL NOT NULL,
        open INTEGER NOT NULL,
        request_id TEXT,
        log_end INTEGER NOT NULL DEFAULT 0,
        log_kept INTEGER NOT NULL DEFAULT 0,
        doc BLOB NOT NULL
    );
    CREATE UNIQUE INDEX task_request ON task (owner, request_id) WHERE request_id IS NOT NULL;
    CREATE INDEX task_owner ON task (owner);
    CREATE INDEX task_operation ON task (operation);
    CREATE INDEX task_state ON task (state);
    CREATE INDEX task_revision ON task (revision);
    CREATE INDEX task_open ON task (seq) WHERE open = 1;
    CREATE INDEX task_finished ON task (finished_at, seq) WHERE open = 0;

    CREATE TABLE task_log (
        task INTEGER NOT NULL,
        n INTEGER NOT NULL,
        at REAL NOT NULL,
        line TEXT NOT NULL,
        PRIMARY KEY (task, n)
    ) WITHOUT ROWID;

    CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO meta VALUES ('next_revision', 1), ('failed_commits', 0);
    """,
    # roles are words with a blank between; expires_at is null where the token is good until it is removed.
    """
    CREATE TABLE token (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        user TEXT NOT NULL,
        roles TEXT NOT NULL,
        digest TEXT NOT NULL,
        created_at REAL NOT NULL,
        expires_at REAL
    );
    """,
    """
    ALTER TABLE task ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
    UPDATE task SET seal = seal(doc);
    CREATE TABLE new_log (
        task INTEGER NOT NULL,
        n INTEGER NOT NULL,
        at REAL NOT NULL,
        line TEXT NOT NULL,
        seal INTEGER NOT NULL,
        PRIMARY KEY (task, n)
    ) WITHOUT ROWID;
    INSERT INTO new_log SELECT task, n, at, line, seal(task, n, at, line) FROM task_log;
    DROP TABLE task_log;
    ALTER TABLE new_log RENAME TO task_log;
    ALTER TABLE token ADD COLUMN seal INTEGER NOT NULL DEFAULT 0;
    UPDATE token SET seal = seal(id, user, roles, digest, created_at, expires_at);
    INSERT INTO meta SELECT 'revision_seal', seal(value) FROM meta WHERE key = 'next_revision';
    """,
    # open is in the index, too: so whose tasks have ended is counted without a look at any of them.
    """
    DROP INDEX task_finished;
    CREATE INDEX task_ended ON task (owner, open, finished_at, seq) WHERE open = 0;
    """,
)


def seal(*values: object) -> int:
    """What tells the values of a row from others; no secret is in it, it is against rot and not against people."""
    found = 0
    for value in values:
        found = crc32(value if isinstance(value, bytes) else repr(value).encode(errors="replace"), found)
    return found


def open_database(path: Path) -> tuple[sqlite3.Connection, sqlite3.Connection, sqlite3.Connection]:
    """Open the database at ``path``, which is absolute; it is made or migrated where needed. Blocks.

    Where there is no room for that, what is spare is given up. Returns a connection that writes and two that read.

    Raises:
        StoreUnusable: it cannot be written, is no database or not ours, is of a newer schema, or is damaged.
    """
    while True:
        try:
            return _open(path)
        except StoreUnusable:
            if not spare.give_up(path):
                raise


def _open(path: Path) -> tuple[sqlite3.Connection, sqlite3.Connection, sqlite3.Connection]:
    with ExitStack() as stack:
        try:
            _make_file(path)
            writing = stack.enter_context(closing(connect(path)))
            _bring_up(writing, path)
            lookups, readings = (stack.enter_context(closing(connect(path, readonly=True))) for _ in range(2))
        except OSError as error:
            raise StoreUnusable(f"{error.filename or path} cannot be written: {error.strerror}") from error
        except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite quotes what it does not understand
            raise StoreUnusable(f"{path} cannot be used: {error}") from error
        stack.pop_all()
        return writing, lookups, readings


def connect(path: Path, *, readonly: bool = False) -> sqlite3.Connection:
    """A connection to the database at ``path``, which exists; any thread may use it, one at a time.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    # The index of the write-ahead log is in our memory then, and not in a file that is mapped into it: where its
    # folder turns read-only, a write to such a page is a SIGBUS. The price: while we run, no other process reads.
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=rw&vfs=unix-excl",
        uri=True,
        timeout=PATIENCE,
        isolation_level=None,
        check_same_thread=False,
    )
    # What is acknowledged must outlive a power cut; NORMAL, which WAL makes tempting, loses the last commits.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA cell_size_check = ON")
    connection.create_function("seal", -1, seal, deterministic=True)
    if readonly:
        connection.execute("PRAGMA query_only = ON")
    return connection


def _make_file(path: Path) -> None:
    if not path.exists():
        # It gets its name when it is whole: an empty file of that name is one that was cut. With the first sync of
        # each journal SQLite syncs the folder. So that name is on the disk before anything else is in it; and what
        # an admin left who removed a damaged file is gone before: SQLite would play its log into the new one.
        new = path.with_name(f"{path.name}.new")
        beside = [f"{name}-{end}" for name in (new.name, path.name) for end in ("journal", "wal", "shm")]
        for name in (new.name, *beside):
            path.with_name(name).unlink(missing_ok=True)
        # Params may be private (law L11). The files that SQLite makes beside it get the same mode.
        os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(connect(new)) as connection:
            migrate(connection, 0)
        new.rename(path)
    # Asked, not tried: closing a file descriptor of our own would drop the locks that SQLite has on the file.
    for each in (path.parent, path):
        if not os.access(each, os.W_OK, effective_ids=True):
            raise PermissionError(0, "no permission, or the file system is read-only", str(each))


def _bring_up(connection: sqlite3.Connection, path: Path) -> None:
    number = _identify(connection, path)
    if path.stat().st_size <= SMALL and (found := _one(connection, "PRAGMA integrity_check(1)")) != "ok":
        raise StoreUnusable(f"{path} is damaged: {found}")
    if _one(connection, "PRAGMA journal_mode = WAL") != "wal":
        raise StoreUnusable(f"{path} cannot be used: its file system has no shared memory for SQLite's WAL mode")
    migrate(connection, number)
    columns, made = _expected()
    found_columns, found_made = _layout(connection)
    if missing := (columns | {*made}) - (found_columns | {*found_made}):
        raise StoreUnusable(f"{path} is damaged or was changed by hand: it lacks {', '.join(sorted(missing))}")
    # An index more does no harm.
    if changed := [
        name for name, (kind, sql) in found_made.items() if made.get(name, ("index", sql)) != (kind, sql)
    ]:
        raise StoreUnusable(f"{path} is damaged or was changed by hand: {', '.join(sorted(changed))}")
    for what, sound in SOUND.items():
        if not _one(connection, f"SELECT {sound}"):
            raise StoreUnusable(f"{path} is damaged: {what}")


# What holds in every database of ours; each is asked of an index.
_UNFINISHED: Final = ", ".join(f"'{state}'" for state in State if not state.ended)
_NEXT: Final = "(SELECT value FROM meta WHERE key = 'next_revision')"
SOUND: Final[Mapping[str, str]] = {
    "the number of the next revision is not what was written": (
        f"(SELECT value FROM meta WHERE key = 'revision_seal') = seal({_NEXT})"
    ),
    "there is a revision that was never given": f"{_NEXT} > ifnull((SELECT max(revision) FROM task), 0)",
    "there is a task of a number that was never given": (
        "ifnull((SELECT max(seq) FROM sqlite_sequence WHERE name = 'task'), 0)"
        " >= ifnull((SELECT max(seq) FROM task), 0)"
    ),
    "a task that has not ended counts as one that has": (
        f"NOT EXISTS (SELECT 1 FROM task INDEXED BY task_state WHERE state IN ({_UNFINISHED})"
        " AND seq NOT IN (SELECT seq FROM task INDEXED BY task_open WHERE open = 1))"
    ),
}


def _identify(connection: sqlite3.Connection, path: Path) -> int:
    """The number of the schema; reads only."""
    application = _one(connection, "PRAGMA application_id")
    number = _one(connection, "PRAGMA user_version")
    if application == APPLICATION_ID and isinstance(number, int):
        if number > len(MIGRATIONS):
            raise StoreUnusable(
                f"{path} was written by a newer taskd: its schema is number {number}, "
                f"and this taskd knows those up to {len(MIGRATIONS)}"
            )
        return number
    if not path.stat().st_size:
        raise StoreUnusable(f"{path} is empty: what was in it is lost; without the file taskd begins anew")
    raise StoreUnusable(f"{path} is a database, but not one of taskd")


def migrate(connection: sqlite3.Connection, number: int) -> None:
    """Bring a database of schema ``number`` to the newest; after an error it is as the last step left it."""
    for newer, statements in enumerate(MIGRATIONS[number:], number + 1):
        connection.executescript(
            f"""BEGIN IMMEDIATE; {statements};
            PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {newer}; COMMIT;"""
        )


Layout: TypeAlias = tuple[set[str], Mapping[str, tuple[str, str]]]


@cache
def _expected() -> Layout:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.create_function("seal", -1, seal, deterministic=True)
        migrate(connection, 0)
        return _layout(connection)


def _layout(connection: sqlite3.Connection) -> Layout:
    """The names of all columns, such as ``task.state``; by name, how all indexes, triggers and views are made."""
    columns = connection.execute(
        "SELECT t.name || '.' || c.name FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.type = 'table'"
    )
    made = connection.execute("SELECT name, type, sql FROM sqlite_master WHERE type <> 'table'")
    return {name for (name,) in columns}, {name: (kind, sql) for name, kind, sql in made}


def _one(connection: sqlite3.Connection, sql: str) -> object:
    value: object = connection.execute(sql).fetchone()[0]
    return value
