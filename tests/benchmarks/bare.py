"""The barest that could do the job at all: ``python -m tests.benchmarks.bare SOCKET (lines|http|store)``.

trio, a writer's thread and SQLite, and nothing of taskd: no checks, no model, no registry, no dialect. What this
does not reach, no work on taskd will.

- ``lines``: a constant for each line that comes.
- ``http``: a constant for each POST that has come whole.
- ``store``: ``Task.start``, ``complete`` and ``destroy`` are an INSERT, an UPDATE and a DELETE that are on disk
  when they are answered, and ``Task.run`` is the four writes of a task with one step, one after the other: that it
  is there, that it runs, that the step is to be undone, that it has ended. The database is beside the socket.
"""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Final, TypeAlias

import orjson
import outcome
import trio

# As many as share a transaction of taskd's, and bytes of a row.
GROUP: Final = 256
DOC: Final = bytes(800)

STATUS: Final = (
    b'{"jsonrpc":"2.0","result":{"state":["Pending",0.0],"ctime":1700000000.0,"debug_info":"",'
    b'"id":"00000000-0000-4000-8000-000000000000"},"id":1}\n'
)
RESPONSE: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(STATUS),
    STATUS,
)

INSERT: Final = "INSERT INTO task (doc) VALUES (?)"
UPDATE: Final = "UPDATE task SET doc = ? WHERE seq = ?"
DELETE: Final = "DELETE FROM task WHERE seq = ?"

_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)

Talk: TypeAlias = Callable[[trio.SocketStream], Awaitable[None]]


async def lines(stream: trio.SocketStream) -> None:
    async with stream:
        while data := await stream.receive_some(65536):
            await stream.send_all(STATUS * data.count(b"\n"))


async def http(stream: trio.SocketStream) -> None:
    rest = b""
    async with stream:
        while data := await stream.receive_some(65536):
            rest += data
            while (head := rest.find(b"\r\n\r\n")) >= 0 and (length := _LENGTH.search(rest)) is not None:
                end = head + 4 + int(length[1])
                if len(rest) < end:
                    break
                rest = rest[end:]
                await stream.send_all(RESPONSE)


class Writer:
    """The thread that writes; what waits when it is free shares an fsync."""

    def __init__(self, path: str) -> None:
        self._queue: SimpleQueue[tuple[trio.lowlevel.Task, str, tuple[object, ...]]] = SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()
        Thread(target=self._run, args=(path,), daemon=True).start()

    async def write(self, sql: str, *values: object) -> Any:
        """The row's number, when it is on disk."""
        self._queue.put((trio.lowlevel.current_task(), sql, values))
        return await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)

    def _run(self, path: str) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.executescript(
            """PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
            CREATE TABLE task (seq INTEGER PRIMARY KEY, doc BLOB NOT NULL);"""
        )
        while True:
            group = [self._queue.get()]
            with suppress(Empty):
                while len(group) < GROUP:
                    group.append(self._queue.get_nowait())
            connection.execute("BEGIN IMMEDIATE")
            done = [(task, connection.execute(sql, values).lastrowid) for task, sql, values in group]
            connection.execute("COMMIT")
            self._token.run_sync_soon(_wake, done)


def _wake(done: list[tuple[trio.lowlevel.Task, int | None]]) -> None:
    for task, seq in done:
        trio.lowlevel.reschedule(task, outcome.Value(seq))


async def store(writer: Writer, stream: trio.SocketStream) -> None:
    async def start(**params: object) -> object:
        return {"id": await writer.write(INSERT, DOC)}

    async def complete(id: int) -> object:
        return await writer.write(UPDATE, DOC, id)

    async def destroy(id: int) -> object:
        return await writer.write(DELETE, id)

    async def run() -> object:
        id = await writer.write(INSERT, DOC)
        for _ in range(3):
            await writer.write(UPDATE, DOC, id)
        return {"id": id}

    calls: dict[str, Callable[..., Awaitable[object]]] = {
        "Task.start": start,
        "Task.complete": complete,
        "Task.destroy": destroy,
        "Task.run": run,
    }
    rest = b""
    async with stream:
        while data := await stream.receive_some(65536):
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                asked = orjson.loads(line)
                result = await calls[asked["method"]](**asked["params"])
                reply = {"jsonrpc": "2.0", "result": result, "id": asked["id"]}
                await stream.send_all(orjson.dumps(reply, option=orjson.OPT_APPEND_NEWLINE))


async def main(path: str, what: str) -> None:
    talk: Talk = (
        {"lines": lines, "http": http}[what] if what != "store" else partial(store, Writer(path + ".sqlite"))
    )
    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(path)
    listening.listen(4096)
    await trio.serve_listeners(talk, [trio.SocketListener(listening)])


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
