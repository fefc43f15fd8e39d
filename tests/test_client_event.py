"""Where a watcher stands, sans-IO: whatever breaks when, each thing is told once, and the rest is asked about."""

from __future__ import annotations

import pytest

from taskd.client import Changed, Destroyed, DoesNotExist, Log, Notification, Refused, Resync, Snapshot, Synced
from taskd.client.event import Event, Standing, event
from taskd.client.record import record
from taskd.errors import BadParams
from taskd.model import JSON

ENDED = "2026-01-01T00:00:00.000Z"


def task(id: str, revision: int, *, ended: bool = False, label: str = "") -> dict[str, JSON]:
    return {
        "id": id,
        "revision": revision,
        "operation": "external",
        "state": "completed" if ended else "running",
        "created_at": ENDED,
        "finished_at": ENDED if ended else None,
        "label": label,
    }


def hear(standing: Standing, kind: str, revision: int, **more: JSON) -> list[Event]:
    """What is told of a notification; one about a task in doubt is left."""
    params = {"subscription": "s1", "event": kind, "revision": revision, **more}
    standing.hear(Notification("Task.event", params))
    return due(standing)


def due(standing: Standing) -> list[Event]:
    told = []
    while (each := standing.next()) is not None:
        told.append(each)
    return told


def gone(id: str) -> DoesNotExist:
    return DoesNotExist("Does_not_exist", f"there is no task {id}", ("task", id))


def test_whoever_goes_on_asks_from_the_last_revision_and_the_next_lines() -> None:
    standing = Standing(None, log=True)
    assert standing.call().params == {"log": True}

    hear(standing, "snapshot", 5, task=task("a", 5))
    hear(standing, "synced", 4)
    hear(standing, "log", 6, id="a", lines=[{"n": 0, "at": ENDED, "line": "x"}], next=1)
    hear(standing, "changed", 6, task=task("a", 6))

    assert standing.call().params == {"since": 6, "log": True, "log_from": {"a": 1}}


def test_broken_before_all_was_told_it_is_told_anew_but_nothing_twice_and_what_ended_is_asked_about() -> None:
    standing = Standing(None, log=False)
    standing.call()
    told = [hear(standing, "snapshot", n, task=task(id, n)) for n, id in enumerate("abc", 1)]
    assert [type(each) for [each] in told] == [Snapshot, Snapshot, Snapshot]

    assert standing.call().params == {"log": False}
    assert hear(standing, "snapshot", 1, task=task("a", 1)) == []
    assert len(hear(standing, "snapshot", 7, task=task("d", 7))) == 1
    assert hear(standing, "synced", 7) == []

    told = []
    for _ in range(2):
        doubt = standing.doubt
        if doubt == "b":
            standing.found(record(task("b", 8, ended=True)))
        else:
            assert doubt == "c"
            standing.lost(gone("c"))
        told.append(due(standing))
    flat = [each for some in told for each in some]
    assert {(type(each), each.record.id if isinstance(each, Snapshot) else None) for each in flat[:2]} == {
        (Snapshot, "b"),
        (Destroyed, None),
    }
    assert flat[2:] == [Synced(7)]


def test_a_watch_that_the_daemon_ends_is_as_good_as_broken_and_goes_on_where_it_was() -> None:
    standing = Standing(None, log=False)
    hear(standing, "synced", 4)

    error: JSON = {"code": 1, "message": "Internal_error", "data": ["the store cannot read: disk I/O error"]}
    with pytest.raises(BadParams, match="disk I/O error"):
        standing.hear(Notification("Task.event", {"subscription": "s1", "error": error}))

    assert standing.call().params == {"since": 4, "log": False}


def test_after_a_resync_what_did_not_change_is_not_told_again_although_its_revision_is_new() -> None:
    standing = Standing(None, log=False)
    standing.call()
    for id in "abc":
        hear(standing, "snapshot", 1, task=task(id, 1))
    hear(standing, "synced", 1)
    standing.call()

    assert hear(standing, "resync", 100) == [Resync(100)]
    assert hear(standing, "snapshot", 101, task=task("a", 101)) == []
    assert len(hear(standing, "snapshot", 102, task=task("b", 102, label="new"))) == 1
    assert hear(standing, "synced", 103) == []
    assert standing.doubt == "c"
    standing.lost(gone("c"))
    assert due(standing) == [Destroyed(103, "c"), Synced(103)]


def test_an_answer_that_breaks_is_asked_for_again() -> None:
    standing = Standing(None, log=False)
    standing.call()
    hear(standing, "snapshot", 1, task=task("a", 1))
    hear(standing, "synced", 1)
    hear(standing, "resync", 9)
    hear(standing, "synced", 9)
    assert standing.doubt == "a"

    assert standing.call().params["since"] == 9
    assert standing.doubt == "a"
    standing.found(record(task("a", 9)))
    assert due(standing) == [Synced(9)]


def test_a_watch_of_named_tasks_is_over_when_the_last_of_them_is_told_as_gone() -> None:
    standing = Standing(["a", "b"], log=False)
    standing.call()
    for id in "ab":
        hear(standing, "snapshot", 1, task=task(id, 1, ended=True))
    hear(standing, "synced", 1)
    assert hear(standing, "destroyed", 2, id="a") == [Destroyed(2, "a")]
    assert standing.call().params == {"ids": ["b"], "since": 2, "log": False}

    standing.lost(gone("b"))

    assert not standing.over
    assert due(standing) == [Destroyed(2, "b")]
    assert standing.over


def test_a_watch_that_was_told_nothing_yet_is_refused() -> None:
    with pytest.raises(Refused):
        Standing(["a"], log=False).lost(gone("a"))


def test_lines_that_were_told_are_not_told_again() -> None:
    standing = Standing(["a"], log=True)
    lines = [{"n": n, "at": ENDED, "line": str(n)} for n in range(4)]
    hear(standing, "log", 1, id="a", lines=lines[:2], next=2)

    [again] = hear(standing, "log", 2, id="a", lines=lines[1:], next=4)

    assert isinstance(again, Log)
    assert [each.n for each in again.lines] == [2, 3]
    assert hear(standing, "log", 2, id="a", lines=lines, next=4) == []


def test_kinds_of_events_and_fields_that_a_newer_daemon_knows_are_passed_over() -> None:
    assert event({"event": "renamed", "revision": 1}) is None
    assert event({"event": "synced", "revision": 1, "why": "x"}) == Synced(1)
    assert isinstance(event({"event": "changed", "revision": 2, "task": task("a", 2)}), Changed)
    for wrong in (None, {"event": "changed", "revision": 2}, {"event": "destroyed", "revision": 1}):
        with pytest.raises(BadParams):
            event(wrong)
