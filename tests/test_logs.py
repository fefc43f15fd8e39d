"""The daemon's log: one line an event, whatever somebody else's text holds; who it is about; and no secrets."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from taskd import logs
from taskd.model import JSON
from taskd.operations import Handle, Operation
from taskd.states import State
from taskd.store.memory import MemoryStore
from tests.bench import ROOT, ended, running
from tests.heard import heard, parsed
from tests.process import DaemonProcess


def record(message: str, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("taskd", level, "", 0, "%s", (message,), None)
    made.created = 1_767_225_600.25
    vars(made).update(extra)
    return made


def line(form: str, made: logging.LogRecord, *, journal: bool = True) -> str:
    return logs.Line(form, journal=journal).format(made)


# One line.


def test_an_event_is_a_line_of_fields_with_the_time_first() -> None:
    assert line("text", record("it is on"), journal=False) == (
        'time=2026-01-01T00:00:00.250Z level=info logger=taskd message="it is on"'
    )
    assert json.loads(line("json", record("it is on"), journal=False)) == {
        "time": "2026-01-01T00:00:00.250Z",
        "level": "info",
        "logger": "taskd",
        "message": "it is on",
    }


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2)],
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_for_the_journal_a_priority_stands_before_it_and_no_time(form: str, level: int, priority: int) -> None:
    said = line(form, record("on", level))

    assert said.startswith(f"<{priority}>")
    assert "2026" not in said


@pytest.mark.parametrize("form", ["text", "json"])
@given(message=st.text(), task=st.text(max_size=36), dbg=st.text(max_size=200))
def test_whatever_is_in_it_an_event_stays_one_line_and_is_read_back(
    form: str, message: str, task: str, dbg: str
) -> None:
    said = line(form, record(message, task=task, dbg=dbg))
    fields = parsed(said[3:]) if form == "text" else json.loads(said[3:])

    assert len(said.splitlines()) == 1
    assert said.isprintable()
    assert fields == {"level": "info", "logger": "taskd", "message": message, "task": task, "dbg": dbg}


def test_nobody_can_make_up_a_second_event() -> None:
    said = line("text", record('ann\n<3>level=error message="all is lost"'))

    assert said == r'<6>level=info logger=taskd message="ann\n<3>level=error message=\"all is lost\""'


def test_a_traceback_is_one_field_of_the_line() -> None:
    made = record("it broke", logging.ERROR)
    try:
        raise LookupError("no\nsuch")
    except LookupError:
        made.exc_info = sys.exc_info()
    (said,) = line("text", made).splitlines()

    assert parsed(said[3:])["traceback"].endswith("LookupError: no\nsuch")
    assert "test_logs.py" in parsed(said[3:])["traceback"]


def test_the_words_of_a_line_are_those_that_a_shell_would_read() -> None:
    """So that ``grep`` and ``awk`` do for what is plain."""
    assert shlex.split(line("text", record("a b", task="1-2", dbg="x=y"))) == [
        "<6>level=info",
        "logger=taskd",
        "message=a b",
        "task=1-2",
        "dbg=x=y",
    ]


def test_a_long_dbg_is_cut() -> None:
    assert len(parsed(line("text", record("m", dbg="x" * 5000))[3:])["dbg"]) == 200


# Whom it is about.


@attrs.frozen
class Nothing:
    pass


def operation(run: Callable[[Nothing, Handle], Awaitable[JSON]]) -> Mapping[str, Operation]:
    async def undo() -> None:
        logging.getLogger("a.plugin").info("undoes")
        raise OSError(28, "No space left on device")

    return {"toy": Operation("toy", "", Nothing, run, verbs={"undo": undo})}


async def test_every_line_about_a_task_has_its_id_and_dbg_also_those_of_its_operation(
    autojump_clock: object, tmp_path: Path
) -> None:
    plugin = logging.getLogger("a.plugin")

    async def run(params: Nothing, handle: Handle) -> JSON:
        await handle.journal("undo")
        plugin.info("here")
        raise RuntimeError("unforeseen")

    with heard() as log:
        async with running(MemoryStore(), operation(run), str(tmp_path)) as service:
            task = await service.start(ROOT, "toy", {}, dbg="VM.copy R:1")
            assert (await ended(service, task.id)).state is State.FAILED
    said = [each for each in log() if each["logger"] in ("a.plugin", "taskd.runner")]

    assert {each["message"].partition(":")[0] for each in said} == {
        "here",
        "failed unforeseen",
        "undoes",
        "undo failed",
        "toy failed UNDO_FAILED",
    }
    assert {(each["task"], each["dbg"]) for each in said} == {(task.id, "VM.copy R:1")}


async def test_so_have_those_from_its_threads(tmp_path: Path) -> None:
    async def run(params: Nothing, handle: Handle) -> JSON:
        await trio.to_thread.run_sync(logging.getLogger("a.plugin").info, "in a thread")
        return None

    with heard() as log:
        async with running(MemoryStore(), operation(run), str(tmp_path)) as service:
            task = await service.start(ROOT, "toy", {})
            await ended(service, task.id)
    (said,) = (each for each in log() if each["logger"] == "a.plugin")

    assert said["task"] == task.id


async def test_two_tasks_at_a_time_do_not_speak_for_each_other(autojump_clock: object, tmp_path: Path) -> None:
    async def run(params: Nothing, handle: Handle) -> JSON:
        for _ in range(3):
            logging.getLogger("a.plugin").info(handle.id)
            await trio.sleep(1)
        return None

    with heard() as log:
        async with running(MemoryStore(), operation(run), str(tmp_path)) as service:
            ids = [(await service.start(ROOT, "toy", {})).id for _ in range(2)]
            for id in ids:
                await ended(service, id)
    said = [each for each in log() if each["logger"] == "a.plugin"]

    assert len(said) == 6
    assert all(each["task"] == each["message"] for each in said)


# A daemon.


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_daemon_logs_in_the_form_of_its_settings(tmp_path: Path, form: str) -> None:
    daemon = DaemonProcess(tmp_path, settings={"log_format": form})
    daemon.start()
    try:
        with daemon.connect() as connection:
            task = connection.start("external", dbg='a "b"\nc')
            connection.complete(task.id)
            connection.wait(task.id)
        assert daemon.stop() == 0
    finally:
        daemon.end()
    said = [parsed(each) if form == "text" else json.loads(each) for each in daemon.log.splitlines()]

    assert [each["message"] for each in said if "task" in each] == ["external completed"]
    assert [(each["task"], each["dbg"]) for each in said if "task" in each] == [(task.id, 'a "b"\nc')]
