"""``taskctl top``: what it shows is calm, aligned and true; the rest is a terminal that is given back."""

from __future__ import annotations

import re
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from taskd.cli.top import ORDERS, row
from taskd.cli.top.cells import Cell, Layout, Line, cut, fit
from taskd.cli.top.keys import Keys
from taskd.cli.top.page import Page
from taskd.cli.top.screen import Screen
from taskd.cli.top.sorts import SORTS
from taskd.cli.top.tasks import KEPT, LINGER, PACE, Tasks
from taskd.cli.top.view import Verb, View, Wish
from taskd.client import Record
from taskd.model import Failure, Progress, Time

GIB = 1 << 30

NOW = 1_000_000.0


def task(seq: int, state: str = "running", **changes: Any) -> Record:
    """The task number ``seq``, made 100 seconds ago."""
    ended = Time(NOW - 10) if state in ("completed", "failed", "cancelled") else None
    started = None if state == "queued" else Time(NOW - 100)
    return Record(
        f"{seq:08x}-0000-4000-8000-000000000000", changes.pop("revision", seq), changes.pop("operation", "external"),
        state, Time(NOW - 100), seq=seq, owner="root", cancellable=True, started_at=started,
        finished_at=changes.pop("finished_at", ended), **changes,
    )  # fmt: skip


def moving(done: int, total: int, rate: float | None, left: float | None, *, at: float = NOW - 1) -> Progress:
    return Progress(done, total, "bytes", done / total, rate, left, Time(at))


FEW = (
    task(1, operation="copy", label="copy /srv/images/golden.img to /srv/backup/golden-of-today.img",
         progress=moving(GIB // 2, GIB, 1 << 20, 512.0)),
    task(2, label="図書館の本を全部数えています、もう少しです", progress=Progress(3, 12, "books", 0.25, 2, 4.5, Time(NOW - 1))),
    task(3, label="evil \x1b[2J\x1b[31mred\r\n\u202egnitirw", progress=Progress(0, None, "1/10000", 0.335, None, None, Time(NOW))),
    task(4, operation="command", label="no word from it"),
    task(5, label="asked", cancel_requested=True, progress=moving(GIB // 4, GIB, 1 << 20, 512.0)),
    task(6, label="silent", progress=moving(GIB // 8, GIB, 1 << 20, 512.0, at=NOW - 90)),
    task(7, "undoing", operation="copy", error=Failure("ENOSPC", "No space left on device: /srv/backup")),
    task(8, "committed", operation="copy", progress=moving(GIB - 1, GIB, 99.9 * (1 << 30), 0.0)),
    task(9, "queued", operation="copy", label="waits", waits_for="task 00000001, which has the same target"),
    task(10, "queued", operation="copy", label="waits its turn"),
    task(11, "completed", operation="copy", label="done", progress=Progress(9, 9, "bytes", 1.0)),
    task(12, "failed", label="broke", error=Failure("BROKEN", "it broke\nin two"), finished_at=Time(NOW - 20)),
    task(13, "cancelled", label="called off", finished_at=Time(NOW - 30)),
)  # fmt: skip


def view(*tasks: Record, width: int = 80, height: int = 24, **arranged: Any) -> View:
    """What is seen of them; watched since they were made."""
    known = Tasks(NOW - 200)
    for each in tasks:
        known.put(each, NOW)
    known.arrange(**arranged)
    return View(known, "taskd 0.1.0 on /run/taskd/taskd.sock", width, height)


def texts(frame: list[Line]) -> list[str]:
    return ["".join(cell.text for cell in line).rstrip() for line in frame]


def shown(seen: View) -> str:
    return "\n".join(texts(seen.frame(NOW)))


def press(seen: View, *keys: str) -> Wish | None:
    wish = None
    for key in keys:
        wish = seen.key(key, NOW)
        seen.frame(NOW)
    return wish


def chosen(seen: View) -> str:
    """The label of the task that is marked."""
    (line,) = (text for text in texts(seen.frame(NOW)) if text.startswith(">"))
    return line[Layout.of(seen.width).places["LABEL"][0] :]


def test_frames() -> None:
    for w, h in ((80, 24), (40, 10), (200, 50)):
        print(f"=== {w} {h}")
        print(shown(view(*FEW, width=w, height=h)))
