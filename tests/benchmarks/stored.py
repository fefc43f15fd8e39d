"""A million ended tasks: what they cost whoever asks, the start, and the memory."""

from __future__ import annotations

import random
import sqlite3
import statistics
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache, partial
from pathlib import Path

from taskd.codec import format_time
from taskd.store.schema import seal
from tests.benchmarks import clients, peers
from tests.benchmarks.measure import Extent, Outcomes, compared, in_turn, milliseconds
from tests.benchmarks.resident import mebibytes, memory
from tests.process import DaemonProcess

# Tasks that are asked for, and pages.
ASKED = 1000
PAGE = 100


@contextmanager
def state(tasks: int) -> Iterator[Path]:
    """The folder of a daemon with so many ended tasks: one that it ran, and others that differ in their ids."""
    with peers.folder() as own:
        if tasks:
            id, database = one_ended()
            path = own / "state" / "taskd.sqlite"
            path.parent.mkdir(mode=0o700)
            path.write_bytes(database)
            path.chmod(0o600)
            multiply(path, id, tasks)
        yield own


@cache
def one_ended() -> tuple[str, bytes]:
    """The id of a task that a daemon ran to its end, and the database that it left."""
    with peers.folder() as own, peers.taskd(own) as daemon, clients.connected(daemon.socket) as sock:
        id: str = clients.ask(sock, "Task.start", operation="external")["id"]
        clients.ask(sock, "Task.complete", id=id)
        assert daemon.stop() == 0
        return id, (own / "state" / "taskd.sqlite").read_bytes()


def multiply(database: Path, id: str, tasks: int) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        row = dict(connection.execute("SELECT * FROM task").fetchone())
        named = str(id).encode(), b'"seq":%d,' % row["seq"], _finished(row["finished_at"])
        assert all(row["doc"].count(each) == 1 for each in named)
        columns = ", ".join(row)

        def others() -> Iterator[Sequence[object]]:
            for seq in range(row["seq"] + 1, tasks + 1):
                new = str(uuid.UUID(int=random.getrandbits(128), version=4))
                # Each ended later than the one before, by less than a retention.
                finished = row["finished_at"] + seq / 1000
                doc = row["doc"]
                for old, its in zip(named, (new.encode(), b'"seq":%d,' % seq, _finished(finished)), strict=True):
                    doc = doc.replace(old, its)
                changed = {"seq": seq, "id": new, "doc": doc, "finished_at": finished, "seal": seal(doc)}
                yield tuple({**row, **changed}.values())

        with connection:
            connection.execute("PRAGMA synchronous = OFF")
            connection.executemany(f"INSERT INTO task ({columns}) VALUES ({', '.join('?' * len(row))})", others())
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _finished(moment: float) -> bytes:
    return b'"finished_at":"%b"' % format_time(moment).encode()


def sample(folder: Path) -> tuple[list[bytes], list[bytes]]:
    """Requests for tasks of that state, and for pages of it, here and there."""
    with closing(sqlite3.connect(folder / "state" / "taskd.sqlite")) as connection:
        (last,) = connection.execute("SELECT max(seq) FROM task").fetchone()
        seqs = [random.randint(1, last) for _ in range(ASKED)]
        ids = [connection.execute("SELECT id FROM task WHERE seq = ?", (seq,)).fetchone()[0] for seq in seqs]
    stats = [clients.request("Task.stat", id=id, dbg="") for id in ids]
    cursors = [str(max(seq, PAGE + 1)) for seq in seqs]
    return stats, [clients.request("Task.list", cursor=cursor, page_size=PAGE) for cursor in cursors]


def a_million(extent: Extent) -> Outcomes:
    """With a million beside a thousand, and beside none."""
    with state(extent.stored) as large, state(extent.few) as small, state(0) as empty:
        asked = answers(large, small, extent)
        sizes: dict[str, list[float]] = {"ours": [], "none": []}
        starts = in_turn(
            extent.rounds,
            {"ours": lambda: start(large, sizes["ours"]), "none": lambda: start(empty, sizes["none"])},
        )
    return {
        **asked,
        **compared(starts, {"start-stored": "none"}, milliseconds),
        **compared(sizes, {"memory-stored": "none"}, mebibytes),
    }


def answers(large: Path, small: Path, extent: Extent) -> Outcomes:
    few, many = sample(small), sample(large)

    def asked(daemon: DaemonProcess, requests: Sequence[bytes]) -> float:
        with clients.connected(daemon.socket) as sock:
            return statistics.median(clients.one_at_a_time(sock, requests, extent.seconds))

    with peers.taskd(large) as big, peers.taskd(small) as little:
        stats, pages = (
            in_turn(
                extent.rounds,
                {"ours": partial(asked, big, many[kind]), "few": partial(asked, little, few[kind])},
            )
            for kind in (0, 1)
        )
    return {
        **compared(stats, {"stat-stored": "few"}, milliseconds),
        **compared(pages, {"list-stored": "few"}, milliseconds),
    }


def start(folder: Path, sizes: list[float]) -> float:
    """Seconds from the start of the process until it listens; adds its resident bytes when it has answered."""
    began = time.perf_counter()
    with peers.taskd(folder) as daemon:
        took = time.perf_counter() - began
        with clients.connected(daemon.socket) as sock:
            clients.ask(sock, "Task.list", page_size=PAGE)
            sizes.append(memory(peers.pid(daemon)))
    return took
