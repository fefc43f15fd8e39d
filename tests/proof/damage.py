"""A database of the store that has been damaged: it is refused, or all that it says is as it was."""

from __future__ import annotations

import atexit
import os
import shutil
from collections.abc import Awaitable, Callable
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

import attrs
import trio

from taskd.errors import StoreError
from taskd.model import LogLine, Task, Time, Token
from taskd.states import State
from taskd.store import Query
from taskd.store.sqlite import SqliteStore

PAGE: Final = 4096

# What one edit of four bytes may do: change a byte, and on the coarse side a page, or the end.
SEEDS: Final = (
    b"\x00\x10\x20\x01",
    b"\x01\x30\x20\x80\x00\x40\x00\xff",
    b"\x05\x02\x03\x00",
    b"\x06\x02\x00\x00",
    b"\x07\x20\0\0",
)


# Where files are quick, if there is such a place.
RAM: Final = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@cache
def scratch() -> Path:
    """A folder for this process, gone with it; libFuzzer's end is sudden, so who starts one gives it a TMPDIR."""
    folder = Path(mkdtemp(prefix="taskd-fuzz-", dir=os.environ.get("TMPDIR", RAM)))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@attrs.frozen
class Base:
    """The file as it was, and all that it said."""

    folder: Path
    content: bytes
    said: dict[str, object]


def edited(content: bytes, data: bytes) -> bytes:
    """``content`` with edits: kind, place (two bytes), value."""
    new = bytearray(content)
    for at in range(0, len(data) - 3, 4):
        kind, place, value = data[at], int.from_bytes(data[at + 1 : at + 3], "big"), data[at + 3]
        pages = max(1, len(new) // PAGE)
        one, other = (place >> 8) % pages * PAGE, (place & 255) % pages * PAGE
        match kind % 8:
            case 5:
                new[one : one + PAGE], new[other : other + PAGE] = new[other : other + PAGE], new[one : one + PAGE]
            case 6:
                new[one : one + PAGE] = bytes(len(new[one : one + PAGE]))
            case 7:
                del new[place * 8 % (len(new) or 1) :]
            case low if new:
                new[(place + low * 65536) % len(new)] ^= value
    return bytes(new)


Asking = Callable[[SqliteStore], Awaitable[object]]


def _task(number: int) -> Task:
    state = [*State][number % len(State)]
    return Task(
        id=f"00000000-0000-4000-8000-0000000000{number:02}",
        operation=("copy", "command", "external")[number % 3],
        params={"source": f"/srv/{number}.img", "target": "/srv/copy.img"},
        owner=("ann", "root")[number % 2],
        processor="taskd:",
        resident_on="host",
        created_at=Time(1_700_000_000.5),
        label=f"number {number % 4}",
        revision=100 + number,
        state=state,
        cancellable=state.cancellable,
        attempt=1,
        finished_at=Time(1_700_000_003.25) if state.ended else None,
        request_id=f"ann\0{number}" if number % 2 else None,
        result={"bytes": number} if state is State.COMPLETED else None,
    )


# How many tasks and revisions have been given.
NUMBER: Final = 28
SPENT: Final = 1000
_IDS: Final = tuple(_task(number).id for number in range(NUMBER))


async def _filled(path: Path) -> None:
    store = await SqliteStore.open(path)
    await store.reserve(SPENT)
    for number in range(NUMBER):
        await store.create(_task(number))
    for id in _IDS[:3]:
        await store.append_log(id, [LogLine(n, Time(1_700_000_000.0 + n), f"line {n}") for n in range(5)], keep=4)
    await store.delete(_IDS[-1])
    await store.add_token(Token("0000000a", "ann", ("user",), "a" * 64, Time(1.5), Time(2_000_000_000.5)))
    await store.add_token(Token("0000000b", "root", ("admin", "service"), "b" * 64, Time(2.5)))
    await store.close()


def _questions() -> dict[str, Asking]:
    """Everything that a daemon asks a store, by how it is asked."""
    found: dict[str, Asking] = {
        "open tasks": lambda store: store.open_tasks(),
        "ids": lambda store: store.ids(),
        "ids of ann": lambda store: store.ids(owner="ann"),
        "owners": lambda store: store.owners(),
        "tokens": lambda store: store.tokens(),
    }
    queries = (
        Query(),
        Query(newest_first=False, after=3, limit=5),
        Query(owner="ann"),
        Query(operations=("copy", "command")),
        Query(states=(State.COMPLETED, State.RUNNING)),
        Query(states=(State.RUNNING, State.QUEUED)),
        Query(since=110),
        Query(label="number 1"),
    )
    # Asked last: what is given next was never given.
    last: dict[str, Asking] = {
        "revision": lambda store: store.reserve(1),
        "seq": lambda store: store.create(_new()),
    }
    found |= {f"list {query}": partial(_listed, query) for query in queries}
    found |= {f"get {id}": partial(_got, id) for id in _IDS}
    found |= {f"requested {n}": partial(_requested, f"ann\0{n}") for n in range(3)}
    found |= {f"log {id}": partial(_logged, id) for id in _IDS[:3]}
    return found | last


async def _listed(query: Query, store: SqliteStore) -> object:
    return await store.list(query)


async def _got(id: str, store: SqliteStore) -> object:
    return await store.get(id)


async def _requested(request_id: str, store: SqliteStore) -> object:
    return await store.requested("root", request_id)


async def _logged(id: str, store: SqliteStore) -> object:
    return await store.log(id, 0, 100), await store.log_end(id)


QUESTIONS: Final = _questions()


@cache
def base() -> Base:
    """Made once in a process."""
    folder = scratch() / "state"
    folder.mkdir()
    path = folder / "taskd.sqlite"
    trio.run(_filled, path)
    content = path.read_bytes()
    return Base(folder, content, trio.run(_all_of, path))


async def _all_of(path: Path) -> dict[str, object]:
    """What it answers to each question; those that it refuses are left out. Raises StoreError at the opening."""
    store = await SqliteStore.open(path)
    said: dict[str, Any] = {}
    try:
        for name, ask in QUESTIONS.items():
            try:
                said[name] = await ask(store)
            except StoreError:
                continue
    finally:
        await store.close()
    return said


def _new() -> Task:
    return attrs.evolve(_task(1), id="new", request_id=None)


def database(data: bytes) -> None:
    """A file with edits: it is refused, or what it says is true."""
    before = base()
    path = before.folder / "taskd.sqlite"
    shutil.rmtree(before.folder)
    before.folder.mkdir()
    path.write_bytes(edited(before.content, data))
    try:
        said = trio.run(_all_of, path)
    except StoreError:
        return
    for name, answer in said.items():
        true = before.said[name]
        if name == "revision":
            given = answer if isinstance(answer, int) else 0
            assert given >= SPENT, f"revision {given} is given again"
        elif name == "seq":
            given = answer.seq if isinstance(answer, Task) else 0
            assert given > NUMBER, f"seq {given} is given again"
        else:
            assert answer == true, f"{name}: it says {answer}, and {true} was said"
