"""What a terminal shows: a bar that moves, honest words beside it, and one line that is left."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from taskd.cli.meter import room, told
from taskd.client import Daemon, Record
from taskd.model import Progress, Time
from tests.cli.conftest import PATIENT, Taskctl, masked
from tests.process import DaemonProcess
from tests.terminal import pieces

GIB = 1 << 30


def running(**changes: Any) -> Record:
    return attrs.evolve(Record("id", 1, "copy", "running", Time(0.0), started_at=Time(0.0)), **changes)


@pytest.mark.parametrize(
    ("record", "bar", "text"),
    [
        (running(state="queued"), False, "queued"),
        (running(state="undoing", cancel_requested=True, cancellable=True), False, "undoing (cancel asked)"),
        (running(), False, "running for 1 min 40 s"),
        (running(progress=Progress(unit="lines", done=7)), False, "running for 1 min 40 s  7 lines"),
        (
            running(progress=Progress(GIB // 2, GIB, "bytes", 0.5, 1 << 20, 512.0, Time(99.0))),
            True,
            "50 %  512.0 MiB of 1.0 GiB  1.0 MiB/s  8 min 32 s left",
        ),
        (
            running(progress=Progress(GIB // 2, GIB, "bytes", 0.5, 1 << 20, 512.0, Time(40.0))),
            True,
            "50 %  512.0 MiB of 1.0 GiB  no movement for 1 min 0 s",
        ),
        (running(progress=Progress(7, 9, "", 0.77, 2, None, Time(99.0))), True, "77 %  7 of 9  2/s"),
        (running(progress=Progress(4200, 10_000, "1/10000", 0.42, 10, None, Time(99.0))), True, "42 %"),
        (
            running(
                progress=Progress(9999, 10_000, "steps", 0.9999, None, None, Time(99.0)), cancel_requested=True
            ),
            True,
            "99 %  9999 steps of 10000 steps  cancel asked",
        ),
    ],
)
def test_slow_work_looks_different_from_stalled_work(record: Record, bar: bool, text: str) -> None:
    """The row beside a label, 100 seconds after the start."""
    row = told(record, now=100.0)

    assert (row.bar, row.text) == (bar, text)


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (running(state="queued"), "queued  the daemon is away"),
        (running(), "the daemon is away"),
        (
            running(progress=Progress(GIB // 2, GIB, "bytes", 0.5, 1 << 20, 512.0, Time(99.0))),
            "50 %  512.0 MiB of 1.0 GiB  the daemon is away",
        ),
    ],
)
def test_of_a_daemon_that_is_away_nothing_is_told_that_may_have_changed(record: Record, text: str) -> None:
    assert told(record, now=100.0, away=True).text == text


def on_terminal(taskctl: Taskctl, *args: str, columns: int = 100, **env: str) -> Iterator[str]:
    """What ``taskctl`` writes to a terminal of so many columns, piece by piece, to its end."""
    return pieces([*taskctl.program, *args], taskctl.environment(TERM="xterm-256color", **env), columns)


def left_on_screen(written: str) -> list[str]:
    """The lines that stay on a terminal that knows what ``taskctl`` uses: erase a line, go up a line."""
    lines, row = [""], 0
    for token in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif token == "\x1b[2K":
            lines[row] = ""
        elif re.fullmatch(r"\x1b\[\d*A", token):
            row = max(0, row - int(token[2:-1] or 1))
        elif not token.startswith(("\x1b", "\r")):
            lines[row] += token
    return [line.rstrip() for line in lines if line.strip()]


def until_cancelled(
    taskctl: Taskctl, daemon: Daemon, image: Path, enough: Callable[[str], object], columns: int = 100
) -> str:
    """What is written about a copy of half a minute, which is cancelled as soon as that is ``enough``."""
    seen, asked = "", False
    args = ("copy", "--label", "shown", "--rate-limit", "64K", str(image), f"{image}.copy")
    for piece in on_terminal(taskctl, *args, columns=columns):
        seen += piece
        if not asked and enough(seen):
            (task,) = daemon.list(label="shown", states=["running"])
            daemon.cancel(task.id)
            asked = True
    assert asked, seen
    return seen


def percents(written: str) -> list[int]:
    return [int(number) for number in re.findall(r"(\d+) %", written)]


PACE = r"iB of 2\.0 MiB  .*/s  \d.* left"


def test_on_a_terminal_a_bar_moves_and_one_line_is_left(taskctl: Taskctl, daemon: Daemon, image: Path) -> None:
    def enough(seen: str) -> bool:
        return len(set(percents(seen))) > 3 and re.search(PACE, seen) is not None

    written = until_cancelled(taskctl, daemon, image, enough)

    assert percents(written) == sorted(percents(written))
    assert "━" in written
    assert [masked(line) for line in left_on_screen(written)] == ["taskctl: shown: cancelled"]
    assert written.count("\x1b[?25h") == written.count("\x1b[?25l") == 1, "the cursor is back"


def test_of_a_copy_that_completes_one_line_is_left(taskctl: Taskctl, image: Path) -> None:
    written = "".join(on_terminal(taskctl, "copy", "--label", "whole", str(image), f"{image}.copy"))

    assert [masked(line) for line in left_on_screen(written)] == ["whole: completed, 2.0 MiB in <time>"]
    assert written.count("\x1b[?25h") == written.count("\x1b[?25l") == 1, "the cursor is back"


def test_on_80_columns_rate_and_time_left_are_seen(taskctl: Taskctl, daemon: Daemon, image: Path) -> None:
    written = until_cancelled(taskctl, daemon, image, lambda seen: re.search(PACE, seen), columns=80)

    shown = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", written).splitlines()
    assert max(len(line) for line in shown if line.endswith(" left")) <= 80


@pytest.mark.parametrize(
    ("left", "bar", "label"),
    [(200, 24, 40), (36, 24, 10), (35, 12, 21), (24, 12, 10), (23, 0, 22), (11, 0, 10), (10, 0, 0), (-5, 0, 0)],
)
def test_the_label_gives_way_first_then_the_bar(left: int, bar: int, label: int) -> None:
    assert room(left) == (bar, label)


def test_while_the_daemon_is_away_no_rate_is_shown(tmp_path: Path) -> None:
    process = DaemonProcess(tmp_path)
    process.start()
    try:
        with process.connect() as daemon:
            id = daemon.start("external", label="bar").id
            daemon.update(id, done=GIB // 2, total=GIB, unit="bytes")
        seen, killed = "", False
        for piece in on_terminal(Taskctl(process.socket, PATIENT), "wait", id):
            seen += piece
            if not killed and "512.0 MiB of 1.0 GiB" in seen:
                killed = True
                process.kill()
            if process.process is None and "512.0 MiB of 1.0 GiB  the daemon is away" in seen:
                process.start()
                with process.connect() as daemon:
                    daemon.complete(id)
    finally:
        process.end()

    assert left_on_screen(seen)[0] == "taskctl: the daemon went away; waiting for it to come back"
    assert masked(left_on_screen(seen)[-1]) == "bar: completed in <time>"


def test_on_a_terminal_lines_of_a_log_stay_above_the_display(taskctl: Taskctl) -> None:
    script = "echo first; echo 'no [bold]markup[/bold] :smile: here'; printf 'progress 0.5\\n' >&3; echo last"

    written = "".join(on_terminal(taskctl, "run", "--", "sh", "-c", script))

    *lines, last = left_on_screen(written)
    assert lines == ["first", "no [bold]markup[/bold] :smile: here", "last"]
    assert masked(last) == "taskctl: sh: completed in <time>"


def test_colours_are_for_terminals_and_never_with_no_color(
    taskctl: Taskctl, external: Callable[..., Record]
) -> None:
    external("coloured")

    assert "\x1b[34mrunning\x1b[0m" in "".join(on_terminal(taskctl, "ls"))
    assert "\x1b[" not in "".join(on_terminal(taskctl, "ls", NO_COLOR="1"))
    assert "\x1b[" not in taskctl("ls").out


def test_a_listing_fits_the_terminal(taskctl: Taskctl, external: Callable[..., Record]) -> None:
    external("long " * 100 + "end")

    for columns in (100, 80, 60):
        written = "".join(on_terminal(taskctl, "ls", NO_COLOR="1", columns=columns))

        assert max(len(line) for line in written.splitlines()) == columns
        assert "long end\r\n" in written
