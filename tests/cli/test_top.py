"""``taskctl top``: what it shows is calm, aligned and true; the rest is a terminal that is given back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from taskd.cli import words
from taskd.cli.top import ORDERS, row
from taskd.cli.top.cells import Cell, Layout, Line, cut, fit
from taskd.cli.top.keys import Keys
from taskd.cli.top.screen import Screen
from taskd.cli.top.sorts import SORTS
from taskd.cli.top.tasks import KEPT, LINGER, PACE, Tasks, wanted
from taskd.cli.top.view import ACTS, Verb, View, Wish
from taskd.client import Record
from taskd.model import Failure, Progress, Time

GIB = 1 << 30

NOW = 1_000_000.0


def task(seq: int, state: str = "running", **changes: Any) -> Record:
    """The task number ``seq``, made 100 seconds ago."""
    ended = Time(NOW - 10) if state in ("completed", "failed", "cancelled") else None
    started = None if state == "queued" else Time(NOW - 100)
    fresh = Record(f"{seq:08x}-0000-4000-8000-000000000000", seq, "external", state, Time(NOW - 100), seq=seq)
    fresh = attrs.evolve(fresh, owner="root", cancellable=True, started_at=started, finished_at=ended)
    return attrs.evolve(fresh, **changes)


def moving(done: int, total: int, rate: float | None, left: float | None, *, at: float = NOW - 1) -> Progress:
    return Progress(done, total, "bytes", done / total, rate, left, Time(at))


FEW = (
    task(1, operation="copy", label="copy /srv/images/golden.img to /srv/backup/golden-of-today.img",
         progress=moving(GIB // 2, GIB, 1 << 20, 512.0)),
    task(2, label="図書館の本を全部数えています、もう少しです",
         progress=Progress(3, 12, "books", 0.25, 2, 4.5, Time(NOW - 1))),
    task(3, label="evil \x1b[2J\x1b[31mred\r\n\u202egnitirw", progress=Progress(fraction=0.335)),
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


def test_a_frame_of_80_by_24() -> None:
    assert (
        shown(view(*FEW))
        == """\
 taskd 0.1.0 on /run/taskd/taskd.sock                                   by state
 6 running      2 queued      +1 completed  +1 failed  +1 cancelled  1 undoing
 ID       STATE     PROGRESS       %       RATE   LEFT LABEL
>00000001 running   ━━━━━─────  50 %  1.0 MiB/s  8m32s copy /srv/im…of-today.img
 00000002 running   ━━╸───────  25 %  2 books/s     4s 図書館の本を…もう少しです
 00000003 running   ━━━───────  33 %                   evil \\x1b[2J…u202egnitirw
 00000004 running   for 1 min                          no word from it
 00000005 running   ━━╸───────  25 % cancel asked      asked
 00000006 running   ━─────────  12 % still for 1 min   silent
 00000008 committed ━━━━━━━━━╸  99 % finishing         copy
 00000007 undoing   ENOSPC: No space left on device: … copy
 00000009 queued    for task 00000001, which has the … waits
 0000000a queued                                       waits its turn
 0000000b completed ━━━━━━━━━━ 100 % in 1m30s          done
 0000000c failed    BROKEN: it broke\\nin two           broke
 0000000d cancelled                                    called off







 q quit  h help  c cancel  enter detail  f filter  s sort  r reverse  a ended"""
    )


def test_a_frame_of_40_by_10() -> None:
    assert (
        shown(view(*FEW, width=40, height=10))
        == """\
 taskd 0.1.0 on…askd/taskd.sock by state
 6 running      2 queued      +1 failed
 ID       STATE         % LABEL
>00000001 running    50 % copy /…day.img
 00000002 running    25 % 図書館…しです
 00000003 running    33 % evil \\…gnitirw
 00000004 running         no wor…from it
 00000005 running    25 % asked
 00000006 running    12 % silent
 q quit  h help  c cancel  enter detail"""
    )


def test_a_frame_of_200_by_50() -> None:
    frame = texts(view(*FEW, width=200, height=50).frame(NOW))

    assert len(frame) == 50
    assert frame[1:9] == [
        " 6 running      2 queued      +1 completed  +1 failed  +1 cancelled  1 committed  1 undoing",
        " ID       STATE     PROGRESS       %                    DONE       RATE   LEFT OWNER    OPERATION LABEL",
        ">00000001 running   ━━━━━─────  50 %    512.0 MiB of 1.0 GiB  1.0 MiB/s  8m32s root     copy      "
        "copy /srv/images/golden.img to /srv/backup/golden-of-today.img",
        " 00000002 running   ━━╸───────  25 %     3 books of 12 books  2 books/s     4s root     external  "
        "図書館の本を全部数えています、もう少しです",
        " 00000003 running   ━━━───────  33 %                                           root     external  "
        "evil \\x1b[2J\\x1b[31mred\\r\\n\\u202egnitirw",
        " 00000004 running   for 1 min                                                  root     command   "
        "no word from it",
        " 00000005 running   ━━╸───────  25 %    256.0 MiB of 1.0 GiB cancel asked      root     external  asked",
        " 00000006 running   ━─────────  12 %    128.0 MiB of 1.0 GiB still for 1 min   root     external  silent",
    ]


@example(["\U0001f3fb", "\U0001f44d\U0001f3ff"], 3, 3, "")
@given(
    st.lists(st.text(max_size=60), min_size=1, max_size=5),
    st.integers(1, 220),
    st.integers(1, 30),
    st.sampled_from(["", "h", "c", "f", "fx", ("enter",)]),
)
def test_every_frame_fills_its_terminal_whatever_the_labels(
    labels: list[str], width: int, height: int, keys: Sequence[str]
) -> None:
    """Cells follow each other without a gap, are as wide as the terminal together, and hold nothing but signs."""
    states = ("running", "queued", "failed")
    tasks = [
        task(n, states[n % 3], label=text, operation=text or "x", waits_for=text, status=text)
        for n, text in enumerate(labels)
    ]
    seen = view(*tasks, width=width, height=height)
    press(seen, *keys)
    if seen.page is not None:
        seen.page.say(labels)

    frame = seen.frame(NOW)

    assert len(frame) == height
    for line in frame:
        assert all(cell.text == words.printable(cell.text) for cell in line)
        ends = [cell.x + cell_len(cell.text) for cell in line]
        assert [cell.x for cell in line] == [0, *ends[:-1]]
        assert ends[-1] == width


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("backwards", [False, True])
def test_each_order_can_be_had(order: str, backwards: bool) -> None:
    first = {
        "state": 1, "progress": 11, "rate": 8, "left": 8, "age": 1, "label": 5, "owner": 1, "operation": 4,
    }  # fmt: skip
    seen = view(*FEW, backwards=backwards, sort=next(each for each in SORTS if each.name == order))

    rows = seen.tasks.rows(0, 99)

    assert rows[-1 if backwards else 0].seq == first[order]
    assert f"by {order}{', reversed' if backwards else ''}" in texts(seen.frame(NOW))[0]


def test_keys_go_through_the_orders_both_ways() -> None:
    seen = view(*FEW)

    for order in (*ORDERS[1:], ORDERS[0]):
        press(seen, "s")
        assert seen.tasks.sort.name == order
    press(seen, "<", "<", ">", "r")

    assert shown(seen).splitlines()[0].endswith("by operation, reversed")


STATES = ("queued", "running", "undoing", "completed", "failed")

moves = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 9), st.sampled_from(STATES), st.floats(0, 0.99)),
        st.tuples(st.just("drop"), st.integers(0, 9)),
        st.tuples(st.just("later"), st.floats(0, 2 * LINGER)),
        st.tuples(st.just("sort"), st.sampled_from(SORTS)),
        st.tuples(st.sampled_from(["backwards", "everything"]), st.booleans()),
        st.tuples(st.just("filter"), st.sampled_from(["", "running", "1", "failed queued", "nothing"])),
    ),
    max_size=40,
)


@given(moves)
@settings(deadline=None)
def test_whatever_happens_the_order_is_that_of_a_sort(steps: Sequence[Any]) -> None:
    """And what is in sight, and how many there are of each state, as if it were counted anew."""
    tasks, now, ever = Tasks(NOW), NOW, 0
    for revision, (step, *with_) in enumerate(steps, 1):
        match step, with_:
            case "put", [seq, state, fraction]:
                ended = Time(now) if state in ("completed", "failed") else None
                before = tasks.known.get(task(seq).id)
                ever += ended is not None and (before is None or not before.ended)
                progress = Progress(fraction=fraction, rate=fraction or None)
                tasks.put(task(seq, state, revision=revision, progress=progress, finished_at=ended), now)
            case "drop", [seq]:
                tasks.drop(task(seq).id)
            case "later", [seconds]:
                now += seconds
            case _:
                tasks.arrange(**{step: with_[0]})
    now += PACE
    tasks.settle(now)

    passes = wanted(tasks.filter) or bool
    seen = [
        record
        for record in tasks.known.values()
        if passes(record) and (record.finished_at is None or tasks.everything or now - record.finished_at < LINGER)
    ]
    for tasks.backwards in (False, True):
        assert tasks.rows(0, 99) == sorted(seen, key=tasks.sort.key, reverse=tasks.backwards)
        assert [tasks.index(record.id) for record in tasks.rows(0, 99)] == [*range(len(tasks))]
    unfinished = Counter(record.state for record in tasks.known.values() if not record.ended)
    assert +tasks.counts == unfinished
    assert tasks.ends.total() == ever


def test_where_the_order_is_by_what_moves_a_task_keeps_its_place_for_a_while() -> None:
    tasks = Tasks(NOW, next(each for each in SORTS if each.name == "progress"))
    for seq in (1, 2):
        tasks.put(task(seq, progress=moving(10 - seq, 100, None, None)), NOW)
    tasks.settle(NOW)

    tasks.put(task(2, revision=9, progress=moving(50, 100, None, None)), NOW)
    tasks.settle(NOW + PACE / 2)
    soon = [record.seq for record in tasks.rows(0, 9)]
    tasks.settle(NOW + PACE)

    assert soon == [1, 2]
    assert tasks.rows(0, 9)[1].progress.done == 9
    assert [record.seq for record in tasks.rows(0, 9)] == [2, 1]


def test_what_ended_stays_for_a_minute_and_comes_back_when_asked_for() -> None:
    seen = view(task(1, "completed", label="done"), task(2))

    assert "done" in shown(seen)
    later = NOW + LINGER
    assert "done" not in "".join(texts(seen.frame(later)))
    assert seen.key("a", later) == Wish(Verb.RECALL)
    assert "done" in "".join(texts(seen.frame(later)))
    assert seen.key("a", later) is None
    assert "done" not in "".join(texts(seen.frame(later)))


def test_of_those_that_ended_the_newest_are_remembered() -> None:
    tasks = Tasks(NOW)
    tasks.put(task(0, "completed", finished_at=Time(NOW)), NOW)
    tasks.recall([task(seq, "failed", finished_at=Time(NOW - seq)) for seq in range(1, KEPT + 5)], NOW)
    tasks.put(task(KEPT + 5), NOW)

    assert len(tasks.known) == KEPT + 1
    assert task(0).id in tasks.known
    assert task(KEPT).id not in tasks.known


def test_old_news_changes_nothing() -> None:
    tasks = view(task(1, revision=5, label="new")).tasks

    tasks.put(task(1, "queued", revision=4, label="old"), NOW)

    assert [record.label for record in tasks.rows(0, 9)] == ["new"]


MANY = tuple(task(seq, label=f"number {seq}") for seq in range(1, 101))


@pytest.mark.parametrize(
    ("keys", "at"),
    [
        ("", 1), (["down"], 2), ("j", 2), ("jjk", 2), (["up"], 1), (["pgdn"], 20), ([" ", "pgup"], 1),
        (["end"], 100), ("G", 100), ("Gk", 99), (["end", "home"], 1), ("Gg", 1), (["end", "down", "pgdn"], 100),
        (["left", "x"], 1),
    ],
)  # fmt: skip
def test_keys_move_the_mark(keys: Sequence[str], at: int) -> None:
    seen = view(*MANY)

    press(seen, *keys)

    assert chosen(seen) == f"number {at}"


def test_the_window_moves_no_further_than_the_mark() -> None:
    seen = view(*MANY)

    press(seen, *["down"] * 20)
    assert texts(seen.frame(NOW))[3].endswith("number 2")
    press(seen, *["up"] * 19)
    assert texts(seen.frame(NOW))[3].endswith("number 2")
    press(seen, "up")
    assert texts(seen.frame(NOW))[3].endswith("number 1")


def test_the_chosen_task_is_followed_in_the_window_and_let_go_of_where_it_leaves() -> None:
    seen = view(*MANY)
    press(seen, "down", "down")

    seen.tasks.drop(task(1).id)
    assert chosen(seen) == "number 3"
    window = texts(seen.frame(NOW))[3:-1]
    seen.tasks.put(task(3, "completed", revision=999, label="number 3"), NOW)

    assert chosen(seen) == "number 4"
    assert texts(seen.frame(NOW))[3] == window[0]


def test_a_cancel_is_asked_about_and_is_of_the_task_that_was_asked_about() -> None:
    seen = view(*MANY)

    press(seen, "down", "c")
    assert shown(seen).splitlines()[-1] == " cancel 00000002  number 2" + " " * 48 + "? y/n"
    seen.tasks.put(task(2, "queued", revision=999, label="number 2"), NOW)

    assert chosen(seen) == "number 3"
    assert press(seen, "y") == Wish(Verb.CANCEL, task(2).id)


@pytest.mark.parametrize("key", ["n", "esc", "enter", "c", "q", "down"])
def test_whatever_is_no_yes_is_a_no(key: str) -> None:
    seen = view(*MANY)

    assert press(seen, "c", key) is None
    assert press(seen, "y") is None
    assert chosen(seen) == "number 1"


@pytest.mark.parametrize("state", ["committed", "completed", "failed"])
def test_what_is_too_late_to_cancel_is_not_asked_about(state: str) -> None:
    seen = view(attrs.evolve(task(1, state), cancellable=False))

    assert press(seen, "c") is None
    assert shown(seen).splitlines()[-1] == f" too late to cancel 00000001: it is {state}"
    assert press(seen, "y") is None


@pytest.mark.parametrize(
    ("typed", "seqs"),
    [
        ("", range(1, 14)), ("queued", [9, 10]), ("queued failed", [9, 10, 12]), ("COPY", [1, 7, 8, 9, 10, 11]),
        ("copy queued", [9, 10]), ("0000000c", [12]), ("図書館", [2]), ("waits turn", [10]), ("nothing", []),
    ],
)  # fmt: skip
def test_a_filter_lets_through(typed: str, seqs: Sequence[int]) -> None:
    seen = view(*FEW)

    press(seen, "f", *typed, "enter")

    assert sorted(record.seq for record in seen.tasks.rows(0, 99)) == [*seqs]


def test_a_filter_is_typed_kept_and_dropped() -> None:
    seen = view(*FEW)

    press(seen, "/", *"queuedX", "backspace")
    assert " filter: queued▏" in shown(seen)
    press(seen, "enter")
    assert "2 with queued  by state" in shown(seen)
    press(seen, "esc")
    assert len(seen.tasks) == len(FEW)
    press(seen, "f", *"qc", "esc")
    assert len(seen.tasks) == len(FEW)


def test_a_page_tells_all_of_a_task_and_the_end_of_its_log() -> None:
    seen = view(task(1, label="talks", params={"argv": ["x" * 100]}), height=16)

    assert press(seen, "enter") == Wish(Verb.OPEN, task(1).id)
    assert seen.page is not None
    seen.page.say([f"line {n}\t\x1b[31m" for n in range(1, 31)])
    lines = texts(seen.frame(NOW))

    assert lines[2] == " talks"
    assert " state       running" in lines
    assert lines[-2:] == [" line 30 \\x1b[31m", " esc back  ↑↓ scroll  c cancel"]
    press(seen, "up", "up")
    seen.page.say(["line 31"])
    assert texts(seen.frame(NOW))[-2] == " line 28 \\x1b[31m", "who reads further up stays there"
    press(seen, "end")
    assert texts(seen.frame(NOW))[-2] == " line 31"
    assert press(seen, "c", "y") == Wish(Verb.CANCEL, task(1).id)
    assert press(seen, "q") == Wish(Verb.CLOSE)
    assert chosen(seen) == "talks"


def test_help_names_every_key_and_every_order_within_80_by_24() -> None:
    seen = view(task(1))
    press(seen, "h")
    text = shown(seen)

    assert "counts what has ended" in text
    for key in ACTS:
        assert re.search(rf"(^| ){re.escape(key)} ", text, re.MULTILINE), key
    assert all(order in text for order in ORDERS)


def test_while_the_daemon_is_away_it_says_so_and_tells_no_rate() -> None:
    seen = view(*FEW)
    seen.away = NOW - 12

    lines = texts(seen.frame(NOW))

    assert lines[0] == " the daemon is away for 12s; waiting for it, q quits"
    assert lines[3] == ">00000001 running   ━━━━━─────  50 %                   copy /srv/im…of-today.img"
    assert lines[6] == " 00000004 running                                      no word from it"


def test_colours_are_not_for_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    assert any(cell.style == "34" for line in view(*FEW).frame(NOW) for cell in line)

    monkeypatch.setenv("NO_COLOR", "1")

    styles = {cell.style for line in view(*FEW).frame(NOW) for cell in line}
    assert styles == {"", "1", "2", "4", "7", "1;4"}


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"jk", ["j", "k"]), (b"\x1b[A\x1b[B\x1bOC\x1bOD", ["up", "down", "right", "left"]),
        (b"\x1b[5~\x1b[6~\x1b[H\x1b[F\x1b[1~\x1b[4~", ["pgup", "pgdn", "home", "end", "home", "end"]),
        (b"\x1b[1;5A", ["up"]), (b"\r\n\x7f\x08", ["enter", "enter", "backspace", "backspace"]),
        ("é図".encode(), ["é", "図"]), (b"\x1b[99~\x1b[?1;2c\x00\x01a\xff", ["a"]), (b"\x1b\x1b[A", ["esc", "up"]),
        (b"\x1bx", ["esc", "x"]), (b"\x0c", ["\x0c"]),
    ],
)  # fmt: skip
def test_keys_are_understood_however_their_bytes_are_cut(sent: bytes, keys: list[str]) -> None:
    for cut_at in range(len(sent) + 1):
        keyboard = Keys()

        found = keyboard.receive(sent[:cut_at]) + keyboard.receive(sent[cut_at:])

        assert found == keys
        assert not keyboard.begun


def test_an_escape_that_nothing_follows_is_the_key() -> None:
    keyboard = Keys()

    assert keyboard.receive(b"\x1b") == []
    assert keyboard.begun
    assert keyboard.nothing_follows() == ["esc"]
    assert keyboard.receive(b"[A") == ["[", "A"]


def written(data: bytes, before: list[str]) -> list[str]:
    """A terminal of 80 columns that showed ``before``, after these bytes."""
    rows = [list(line.ljust(80)) for line in before]
    row = column = 0
    for token in re.findall(r"\x1b\[[0-9;]*[A-Za-z]|[^\x1b]", data.decode()):
        if token == "\x1b[2J":
            rows = [[" "] * 80 for _ in rows]
        elif token == "\x1b[K":
            rows[row][column:] = [" "] * (80 - column)
        elif token.endswith("H"):
            row, column = (int(number) - 1 for number in token[2:-1].split(";"))
        elif not token.startswith("\x1b"):
            rows[row][column] = token
            column += 1
    return ["".join(line).rstrip() for line in rows]


def test_only_what_differs_is_written() -> None:
    seen, screen = view(*MANY), Screen()
    first = seen.frame(NOW)
    assert written(screen.draw(first), ["rubbish"] * 24) == texts(first)
    assert screen.draw(seen.frame(NOW)) == b""

    seen.tasks.put(task(3, revision=999, label="number 3", status="half way"), NOW)
    data = screen.draw(seen.frame(NOW))

    assert data.count(b"H") == 1
    assert len(data) < 80
    assert written(data, texts(first)) == texts(seen.frame(NOW))
    screen.forget()
    assert written(screen.draw(seen.frame(NOW)), ["rubbish"] * 24) == texts(seen.frame(NOW))


def test_a_terminal_of_another_encoding_gets_what_it_can_show() -> None:
    frame = view(*FEW).frame(NOW)

    data = Screen("ascii").draw(frame)

    assert b"#####-----" in data
    assert "é".encode("latin-1") in Screen("latin-1").draw([(Cell(0, "é━"),)])


@pytest.mark.parametrize(
    ("text", "width", "fitted", "sentence"),
    [
        ("abc", 5, "abc  ", "abc  "), ("abcdefg", 5, "ab…fg", "abcd…"), ("図書館", 5, "図…館", "図書…"),
        ("図書館", 4, "…館 ", "図… "), ("a\tb", 4, "a\\tb", "a\\tb"), ("abc", 1, "…", "…"), ("abc", 0, "", ""),
    ],
)  # fmt: skip
def test_a_text_fits_in_cells(text: str, width: int, fitted: str, sentence: str) -> None:
    assert (fit(text, width), cut(text, width)) == (fitted, sentence)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (3599, "59m59s"), (3600, "1h00m"), (86399, "23h59m"),
        (86400, "1d0h"), (8_639_999, "99d23h"), (8_640_000, "100d"), (-1, "0s"), (float("inf"), "11574d"),
    ],
)  # fmt: skip
def test_time_left_takes_six_characters(seconds: float, text: str) -> None:
    assert row.short(seconds) == text
    assert len(text) <= 6
