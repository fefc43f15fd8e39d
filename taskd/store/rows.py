"""The SQL of the SQLite store: each verb as a function of a connection.

Those that write run inside a transaction that the writer opens and commits. Those that read see all that was
committed before they began, and read to the end: an open read would hold up checkpoints.

No row is believed that is not as it was written: that raises StoreError.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from operator import itemgetter
from typing import Any, Final

import attrs

from taskd.codec import dumps, pack, unpack
from taskd.errors import Conflict, StoreError
from taskd.model import LogLine, Task, Time, Token
from taskd.states import State
from taskd.store import Query, shares
from taskd.store.schema import seal

# Prune forgets at most so many tasks, and about so many log lines, and bytes of tasks, in one write, so that
# others get in between; and so many it tells of at a time.
PRUNED_TASKS: Final = 500
PRUNED_LINES: Final = 20_000
PRUNED_BYTES: Final = 256 * 1024

# Up to so many tasks changed since a revision are sought by revision; where there are more, a page of them is
# soon found by walking all tasks in order.
FEW: Final = 1000

# The numbers that SQLite can say; JSON can say larger ones.
LARGEST: Final = 2**63 - 1

# The columns of a task, in the order of ``_names`` and ``_columns``; and those of a token.
ROW: Final = "seq, id, owner, operation, request_id, label, state, revision, finished_at, open, seal, doc"
FINISHED: Final = 8
TOKEN: Final = "id, user, roles, digest, created_at, expires_at"

UNFINISHED: Final = ", ".join(f"'{state}'" for state in State if not state.ended)


# Writing.


def reserve(connection: sqlite3.Connection, count: int) -> int:
    first: int = connection.execute("SELECT value FROM meta WHERE key = 'next_revision'").fetchall()[0][0]
    following = {"next_revision": first + count, "revision_seal": seal(first + count)}
    connection.executemany("UPDATE meta SET value = ?2 WHERE key = ?1", [*following.items()])
    return first


def create(connection: sqlite3.Connection, task: Task) -> Task:
    if task.request_id is not None:
        existing = requested(connection, task.owner, task.request_id)
        if existing is not None:
            return existing
    # AUTOINCREMENT's own memory of the highest number ever given; asked first, because doc holds it too.
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'task'").fetchall()
    task = attrs.evolve(task, seq=last[0][0] + 1 if last else 1)
    doc = pack(task)
    connection.execute(
        f"INSERT INTO task ({ROW}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*_names(task), *_columns(task), seal(doc), doc),
    )
    return task


def replace(connection: sqlite3.Connection, task: Task, doc: bytes, expect: State) -> None:
    written = connection.execute(
        """UPDATE task SET label = ?, state = ?, revision = ?, finished_at = ?, open = ?, seal = ?, doc = ?
        WHERE id = ? AND state = ?""",
        (*_columns(task), seal(doc), doc, task.id, expect.value),
    )
    if written.rowcount == 0:
        rows = connection.execute("SELECT state FROM task WHERE id = ?", (task.id,)).fetchall()
        found = rows[0][0] if rows else "nothing"
        raise Conflict(f"task {task.id}: expected {expect}, found {found}")


def _names(task: Task) -> tuple[object, ...]:
    return task.seq, task.id, task.owner, task.operation, task.request_id


def _columns(task: Task) -> tuple[object, ...]:
    return task.label, task.state.value, task.revision, task.finished_at or 0.0, task.open


def forget(connection: sqlite3.Connection, id: str) -> None:
    _delete(connection, connection.execute("SELECT seq FROM task WHERE id = ?", (id,)).fetchall())


def _delete(connection: sqlite3.Connection, seqs: Sequence[tuple[int]]) -> None:
    connection.executemany("DELETE FROM task_log WHERE task = ?", seqs)
    connection.executemany("DELETE FROM task WHERE seq = ?", seqs)


def append(connection: sqlite3.Connection, id: str, lines: Sequence[LogLine], keep: int) -> None:
    if not lines:
        return
    rows = connection.execute("SELECT seq, log_kept FROM task WHERE id = ?", (id,)).fetchall()
    if not rows:
        return
    seq, kept = rows[0]
    connection.executemany(
        "INSERT INTO task_log VALUES (?, ?, ?, ?, ?)",
        [(*row, seal(*row)) for row in ((seq, line.n, float(line.at), line.line) for line in lines)],
    )
    # Counted, not told from the numbers: lines that a full disk lost leave gaps.
    surplus = max(0, kept + len(lines) - keep)
    connection.execute(
        "DELETE FROM task_log WHERE task = ?1 AND n IN"
        " (SELECT n FROM task_log WHERE task = ?1 ORDER BY n LIMIT ?2)",
        (seq, surplus),
    )
    connection.execute(
        "UPDATE task SET log_end = ?, log_kept = ? WHERE seq = ?",
        (lines[-1].n + 1, kept + len(lines) - surplus, seq),
    )


def prune(connection: sqlite3.Connection, bound: tuple[str, float, int]) -> Sequence[Task]:
    """Forget the oldest of an owner's ended tasks below ``bound``, so many that the writer is not held long."""
    doomed: list[tuple[int]] = []
    tasks: list[Task] = []
    lines = size = 0
    found = connection.execute(
        f"""SELECT log_kept, {ROW} FROM task WHERE open = 0 AND owner = ? AND (finished_at, seq) < (?, ?)
        ORDER BY finished_at, seq LIMIT ?""",
        (*bound, PRUNED_TASKS),
    )
    with closing(found):  # read to where they are enough, and no further
        for kept, *row in found:
            lines += kept
            size += len(row[-1])
            if doomed and (lines > PRUNED_LINES or size > PRUNED_BYTES):
                break
            tasks.append(_believed(row))
            doomed.append((row[0],))
    _delete(connection, doomed)
    return tasks


def add_token(connection: sqlite3.Connection, token: Token) -> None:
    expires_at = None if token.expires_at is None else float(token.expires_at)
    row = (token.id, token.user, " ".join(token.roles), token.digest, float(token.created_at), expires_at)
    connection.execute(f"INSERT INTO token ({TOKEN}, seal) VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, seal(*row)))


def delete_token(connection: sqlite3.Connection, id: str) -> bool:
    return connection.execute("DELETE FROM token WHERE id = ?", (id,)).rowcount > 0


# Reading one row.


def _believed(row: Sequence[Any]) -> Task:
    """The task of a row (``ROW``). Raises StoreError: it is not as it was written."""
    *columns, sealed, doc = row
    if sealed != seal(doc):
        raise StoreError(f"task {columns[0]} in the database is damaged: it is not what was written")
    task = unpack(doc)
    meant = [*_names(task), *_columns(task)]
    # The document has milliseconds, the column what the clock gave.
    if isinstance(columns[FINISHED], float) and abs(columns[FINISHED] - (task.finished_at or 0.0)) < 0.002:
        meant[FINISHED] = columns[FINISHED]
    if columns != meant:
        raise StoreError(f"task {columns[0]} in the database is damaged: its row contradicts itself")
    return task


def find(connection: sqlite3.Connection, id: str) -> Task | None:
    return _task(connection.execute(f"SELECT {ROW} FROM task WHERE id = ?", (id,)).fetchall())


def requested(connection: sqlite3.Connection, owner: str, request_id: str) -> Task | None:
    sql = f"SELECT {ROW} FROM task WHERE owner = ? AND request_id = ?"
    return _task(connection.execute(sql, (owner, request_id)).fetchall())


def _task(rows: Sequence[Sequence[Any]]) -> Task | None:
    return _believed(rows[0]) if rows else None


def log_end(connection: sqlite3.Connection, id: str) -> int:
    rows: Sequence[tuple[int, int, int, int | None]] = connection.execute(
        """SELECT log_end, log_kept, count(n), max(n) FROM task LEFT JOIN task_log ON task = seq WHERE id = ?
        GROUP BY seq""",
        (id,),
    ).fetchall()
    if not rows:
        return 0
    end, kept, count, last = rows[0]
    if kept != count or (last is not None and end != last + 1):
        raise StoreError(f"the log of task {id} in the database is damaged: its lines are not those that it had")
    return end


# Reading many.


def page(connection: sqlite3.Connection, query: Query) -> Sequence[Task]:
    """The page by keyset: it starts at a place in an index and costs what it shows, wherever it is.

    One filter drives, by its index (``_drivers``); the others are looked at row by row, which the unary plus
    says to SQLite. Where the driving filter has several values, each gives a page and the pages are merged.
    """
    order, beyond, start = ("DESC", "<", LARGEST) if query.newest_first else ("ASC", ">", 0)
    after = start if query.after is None else _integer(query.after)
    filters = _filters(query)
    rows: list[Sequence[Any]] = []
    connection.execute("BEGIN")  # one view for all the values: a task that moves between two is seen once
    try:
        for driver, values in _drivers(connection, query):
            where = " AND ".join([f"seq {beyond} ?", driver, *filters])
            rows += connection.execute(
                f"SELECT {ROW} FROM task WHERE {where} ORDER BY seq {order} LIMIT ?",
                (after, *values, *filters.values(), _integer(query.limit)),
            )
    finally:
        connection.execute("COMMIT")
    rows.sort(key=itemgetter(0), reverse=query.newest_first)
    return [_believed(row) for row in rows[: query.limit]]


def _filters(query: Query) -> dict[str, object]:
    """Condition and value of every filter that is set."""
    filters: dict[str, object] = {}
    for column, values in (("state", query.states), ("operation", query.operations)):
        if values is not None:
            filters[f"+{column} IN (SELECT value FROM json_each(?))"] = dumps(sorted(values)).decode()
    for column, value in (("owner", query.owner), ("label", query.label)):
        if value is not None:
            filters[f"+{column} = ?"] = value
    if query.since is not None:
        filters[f"(+revision > ? OR +state IN ({UNFINISHED}))"] = _integer(query.since)
    return filters


def _drivers(connection: sqlite3.Connection, query: Query) -> Sequence[tuple[str, Sequence[object]]]:
    """Conditions that lead to few rows by an index, one for each value of the filter that is likely to be the
    narrowest."""
    if query.states is not None and not any(state.ended for state in query.states):
        return [("open = 1", ())]
    if query.since is not None:
        since = _integer(query.since)
        sql = "SELECT count(*) FROM (SELECT 1 FROM task WHERE revision > ? LIMIT ?)"
        if connection.execute(sql, (since, FEW)).fetchall()[0][0] < FEW:
            newer = "SELECT seq FROM task WHERE revision > ? UNION SELECT seq FROM task WHERE open = 1"
            return [(f"seq IN ({newer})", (since,))]
    if query.owner is not None:
        return [("owner = ?", (query.owner,))]
    if query.operations is not None:
        return [("operation = ?", (operation,)) for operation in set(query.operations)]
    if query.states is not None:
        return [("state = ?", (state.value,)) for state in set(query.states)]
    return [("1", ())]


def ids(connection: sqlite3.Connection, owner: str | None, operation: str | None) -> bytes:
    """A list of them in JSON: made by SQLite, no other thread waits for it meanwhile."""
    wanted = {"owner = ?": owner, "operation = ?": operation}
    filters = {condition: value for condition, value in wanted.items() if value is not None}
    where = " AND ".join(filters) or "1"
    rows = connection.execute(
        f"SELECT json_group_array(id) FROM (SELECT id FROM task WHERE {where} ORDER BY seq)", (*filters.values(),)
    ).fetchall()
    text: str = rows[0][0]
    return text.encode()


def owners(connection: sqlite3.Connection) -> Mapping[str, int]:
    return dict(connection.execute("SELECT owner, count(*) FROM task GROUP BY owner"))


def open_tasks(connection: sqlite3.Connection) -> Sequence[Task]:
    return [_believed(row) for row in connection.execute(f"SELECT {ROW} FROM task WHERE open = 1 ORDER BY seq")]


def log(connection: sqlite3.Connection, id: str, start: int, limit: int) -> Sequence[LogLine]:
    rows = connection.execute(
        """SELECT task, n, at, line, seal FROM task_log WHERE task = (SELECT seq FROM task WHERE id = ?) AND n >= ?
        ORDER BY n LIMIT ?""",
        (id, _integer(start), _integer(limit)),
    )
    return [LogLine(n, Time(at), line) for _, n, at, line in _sealed(rows, f"the log of task {id}")]


def tokens(connection: sqlite3.Connection) -> Sequence[Token]:
    rows = _sealed(connection.execute(f"SELECT {TOKEN}, seal FROM token ORDER BY seq"), "a token")
    return [Token(id, user, tuple(roles.split()), *rest) for id, user, roles, *rest in rows]


def _sealed(rows: sqlite3.Cursor, what: str) -> Sequence[Sequence[Any]]:
    """The rows without their seal, which is last. Raises StoreError: one is not as it was written."""
    found = rows.fetchall()
    for *row, sealed in found:
        if sealed != seal(*row):
            raise StoreError(f"{what} in the database is damaged: it is not what was written")
    return [row[:-1] for row in found]


def bounds(connection: sqlite3.Connection, before: float, keep: int) -> Sequence[tuple[str, float, int]]:
    """The owners of whom ended tasks are to be forgotten, each with the ``finished_at`` and ``seq`` below which.

    Walks over the index of all ended tasks.
    """
    found: list[tuple[str, int, int]] = connection.execute(
        """SELECT owner, count(*), count(*) FILTER (WHERE finished_at >= ?) FROM task WHERE open = 0
        GROUP BY owner""",
        (before,),
    ).fetchall()
    share = shares({owner: fresh for owner, _, fresh in found}, keep)
    bounds: list[tuple[str, float, int]] = []
    for owner, count, fresh in found:
        if share[owner] == fresh < count:
            bounds.append((owner, before, 0))
        elif share[owner] < fresh:
            bounds += connection.execute(
                """SELECT owner, finished_at, seq + 1 FROM task WHERE open = 0 AND owner = ?
                ORDER BY finished_at DESC, seq DESC LIMIT 1 OFFSET ?""",
                (owner, share[owner]),
            )
    return bounds


def _integer(number: int) -> int:
    return max(-LARGEST, min(number, LARGEST))
