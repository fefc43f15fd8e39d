"""The SQLite database behind the store: its numbered schema, and what it must be before a store works on it.

The law: ``MIGRATIONS[n - 1]`` makes schema n out of schema n - 1, in one transaction with the number itself.
A migration that was released is never edited; a change is a new one.

A file that is not ours, or of a newer schema, is refused before anything is written to it. What is looked at
on opening costs the same with ten tasks and with a million: the marks in the header, the tables, the columns.
Whether every page is sound is not asked, because that would be paid in rows at every start.

``task.doc`` is the truth about a task; the columns beside it exist to be searched. A token is its columns.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

from taskd.errors import StoreUnusable

# "task" in ASCII: how file(1) and we know a database of ours.
APPLICATION_ID: Final = 0x7461736B

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
)


def open_database(path: Path) -> tuple[sqlite3.Connection, sqlite3.Connection, sqlite3.Connection]:
    """Open the database at ``path``, which is absolute; it is made or migrated where needed. Blocks.

    Returns a connection that writes and two that read.

    Raises:
        StoreUnusable: it cannot be written, is no database or not ours, is of a newer schema, or is damaged.
    """
    with ExitStack() as stack:
        try:
            _make_file(path)
            writing = stack.enter_context(closing(connect(path)))
            _bring_up(writing, path)
            _sync_folder(path.parent)
            lookups, readings = (stack.enter_context(closing(connect(path, readonly=True))) for _ in range(2))
        except OSError as error:
            raise StoreUnusable(f"{error.filename or path} cannot be written: {error.strerror}") from error
        except sqlite3.Error as error:
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
    if readonly:
        connection.execute("PRAGMA query_only = ON")
    return connection


def _make_file(path: Path) -> None:
    if not path.exists():
        # Params may be private (law L11). The files that SQLite makes beside it get the same mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    # Asked, not tried: closing a file descriptor of our own would drop the locks that SQLite has on the file.
    for each in (path.parent, path):
        if not os.access(each, os.W_OK, effective_ids=True):
            raise PermissionError(0, "no permission, or the file system is read-only", str(each))


def _bring_up(connection: sqlite3.Connection, path: Path) -> None:
    number = _identify(connection, path)
    if _one(connection, "PRAGMA journal_mode = WAL") != "wal":
        raise StoreUnusable(f"{path} cannot be used: its file system has no shared memory for SQLite's WAL mode")
    migrate(connection, number)
    missing = _expected() - _layout(connection)
    if missing:
        raise StoreUnusable(f"{path} is damaged or was changed by hand: it lacks {', '.join(sorted(missing))}")


def _identify(connection: sqlite3.Connection, path: Path) -> int:
    """The number of the schema, 0 for an empty file; reads only."""
    application = _one(connection, "PRAGMA application_id")
    number = _one(connection, "PRAGMA user_version")
    if application == APPLICATION_ID and isinstance(number, int):
        if number > len(MIGRATIONS):
            raise StoreUnusable(
                f"{path} was written by a newer taskd: its schema is number {number}, "
                f"and this taskd knows those up to {len(MIGRATIONS)}"
            )
        return number
    if application or number or _one(connection, "SELECT count(*) FROM sqlite_master"):
        raise StoreUnusable(f"{path} is a database, but not one of taskd")
    return 0


def migrate(connection: sqlite3.Connection, number: int) -> None:
    """Bring a database of schema ``number`` to the newest; after an error it is as the last step left it."""
    for newer, statements in enumerate(MIGRATIONS[number:], number + 1):
        connection.executescript(
            f"""BEGIN IMMEDIATE; {statements};
            PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {newer}; COMMIT;"""
        )


def _expected() -> set[str]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection, 0)
        return _layout(connection)


def _layout(connection: sqlite3.Connection) -> set[str]:
    """The names of all columns and indexes, such as ``task.state`` and ``task_open``."""
    columns = connection.execute(
        "SELECT t.name || '.' || c.name FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.type = 'table'"
    )
    names = {name for (name,) in columns}
    return names | {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}


def _one(connection: sqlite3.Connection, sql: str) -> object:
    value: object = connection.execute(sql).fetchone()[0]
    return value


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
