"""The clients' watches, blocks beside a task, and patience: a daemon that goes away costs nobody an event."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

from taskd import client, errors
from taskd.client import (
    Changed,
    Daemon,
    Destroyed,
    DoesNotExist,
    Event,
    Log,
    NoDaemon,
    NotCompleted,
    Refused,
    Resync,
    Snapshot,
    Synced,
    on_trio,
    refusals,
    verbs,
)
from taskd.client.patience import Patience
from tests.process import PATIENCE, DaemonProcess


@pytest.fixture
def process(tmp_path: Path) -> Iterator[DaemonProcess]:
    process = DaemonProcess(tmp_path)
    process.start()
    yield process
    process.end()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """For tests that leave the daemon alone."""
    process = DaemonProcess(tmp_path_factory.mktemp("d"))
    process.start()
    yield process
    process.end()


@pytest.fixture
def daemon(shared: DaemonProcess) -> Iterator[Daemon]:
    with shared.connect() as daemon:
        yield daemon


def brief(event: Event) -> tuple[object, ...]:
    """An event without what differs from one run to the next."""
    match event:
        case Snapshot(record=record) | Changed(record=record):
            return type(event), record.label, record.state, record.progress.fraction
        case Log(lines=lines):
            return Log, *[each.line for each in lines]
        case _:
            return (type(event),)


def until(events: Iterator[Event], last: Callable[[Event], bool]) -> list[Event]:
    told = []
    for event in events:
        told.append(event)
        if last(event):
            return told
    raise AssertionError(told)


def is_end(event: Event) -> bool:
    return isinstance(event, Snapshot | Changed) and event.record.ended


# What a watch tells.


def test_a_watch_tells_what_there_is_then_what_happens_then_that_it_is_gone_and_ends(daemon: Daemon) -> None:
    made = daemon.start("external", label="watched")

    with daemon.watch(made.id, log=True) as events:
        told = until(events, lambda event: isinstance(event, Synced))
        daemon.update(made.id, fraction=0.5, log=["one", "two"])
        told += until(events, lambda event: isinstance(event, Changed))
        daemon.complete(made.id)
        told += until(events, is_end)
        daemon.destroy(made.id)
        told += events

    assert [brief(each) for each in told] == [
        (Snapshot, "watched", "running", 0.0),
        (Synced,),
        (Log, "one", "two"),
        (Changed, "watched", "running", 0.5),
        (Changed, "watched", "completed", 1.0),
        (Destroyed,),
    ]


def test_a_watch_begins_where_it_is_entered(daemon: Daemon) -> None:
    """Not where its first event is asked for: what is done inside the block is seen."""
    with daemon.watch() as events:
        made = daemon.start("external", label="new").id
        daemon.destroy(daemon.complete(made).id)
        gone = until(events, lambda event: isinstance(event, Destroyed) and event.id == made)

    assert gone


def test_a_watch_of_what_does_not_exist_is_refused_on_entering(daemon: Daemon) -> None:
    with pytest.raises(DoesNotExist, match="there is no task nobody"):
        with daemon.watch(["nobody"]):
            pass


def test_calls_go_on_beside_watches_and_watches_beside_each_other(daemon: Daemon) -> None:
    first, second = daemon.start("external").id, daemon.start("external").id
    with daemon.watch(first) as one, daemon.watch([second]) as other:
        daemon.complete(first)
        daemon.complete(second)

        assert until(one, is_end)
        assert until(other, is_end)


def test_leaving_a_watch_hangs_up_and_an_iterator_that_was_left_has_ended(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def play() -> None:
            with listener.accept()[0], listener.accept()[0] as peer, peer.makefile("rwb") as file:
                asked = json.loads(file.readline())
                assert asked["params"] == {"ids": ["a"], "log": False}
                file.write(json.dumps({"id": asked["id"], "result": {"subscription": "s1"}}).encode() + b"\n")
                file.flush()
                heard.append(file.read())

        heard: list[bytes] = []
        player = threading.Thread(target=play)
        player.start()
        with client.connect(str(tmp_path / "s"), timeout_s=PATIENCE) as daemon:
            with daemon.watch("a") as events:
                pass
            player.join(PATIENCE)

            assert list(events) == []
    assert heard == [b""]


async def test_whoever_is_cancelled_while_it_waits_for_an_event_loses_none(shared: DaemonProcess) -> None:
    async with client.open(shared.socket) as daemon:
        made = await daemon.start("external", label="patient")
        told: list[Event] = []
        async with daemon.watch(made.id, log=True) as events:
            for n in range(30):
                await daemon.update(made.id, log=[str(n)])
                with trio.move_on_after(0.001):
                    while True:
                        told.append(await anext(events))
            await daemon.complete(made.id)
            with trio.fail_after(PATIENCE):
                async for event in events:
                    told.append(event)
                    if is_end(event):
                        break

    lines = [int(each.line) for event in told if isinstance(event, Log) for each in event.lines]
    assert lines == list(range(30))


# A daemon that goes away.


def test_a_watch_goes_on_when_the_daemon_is_back_and_nothing_is_missed_or_told_twice(
    process: DaemonProcess,
) -> None:
    with client.connect(process.socket, PATIENCE, patience_s=PATIENCE) as watching:
        with process.connect() as daemon:
            quiet, made = daemon.start("external", label="quiet").id, daemon.start("external", label="busy").id
            gone = daemon.start("external", label="gone").id
            with watching.watch(log=True) as events:
                told = until(events, lambda event: isinstance(event, Synced))
                daemon.update(made, fraction=0.25, log=["one"])
                told += until(events, lambda event: isinstance(event, Changed))
                process.kill()
                process.start()
                with process.connect() as other:
                    other.update(made, fraction=0.5, log=["two"])
                    other.destroy(other.complete(gone).id)
                    other.complete(made)
                    told += until(events, is_end)
                    other.complete(quiet)
                    told += until(events, is_end)

    lines = [each.line for event in told if isinstance(event, Log) for each in event.lines]
    assert lines == ["one", "two"]
    assert [brief(each)[2] for each in told if brief(each)[1:2] == ("quiet",)] == ["running", "completed"]
    assert [each.id for each in told if isinstance(each, Destroyed)] == [gone]
    assert [brief(each) for each in told][-1] == (Changed, "quiet", "completed", 1.0)
    assert any(isinstance(each, Resync) for each in told)


def test_a_named_task_that_was_destroyed_meanwhile_is_told_as_destroyed(process: DaemonProcess) -> None:
    with client.connect(process.socket, PATIENCE, patience_s=PATIENCE) as watching:
        with process.connect() as daemon:
            one, two = daemon.start("external").id, daemon.start("external").id
        with watching.watch([one, two]) as events:
            until(events, lambda event: isinstance(event, Synced))
            process.kill()
            process.start()
            with process.connect() as daemon:
                daemon.destroy(daemon.complete(one).id)
                told = until(events, lambda event: isinstance(event, Destroyed))
                assert told[-1].id == one  # type: ignore[union-attr]  # `until` says so
                daemon.destroy(daemon.complete(two).id)
                told = list(events)

    assert [each.id for each in told if isinstance(each, Destroyed)] == [two]


async def test_on_trio_watch_wait_and_start_outlive_a_restart(process: DaemonProcess) -> None:
    heard: list[bool] = []
    ended: list[str] = []
    async with client.open(process.socket, patience_s=PATIENCE, away=heard.append) as daemon:
        made = await daemon.start("external", label="made")
        reached = trio.Event()

        async def wait() -> None:
            ended.append((await daemon.wait(made.id)).state)

        async def watch() -> None:
            async with daemon.watch(made.id) as events:
                async for event in events:
                    reached.set()
                    if is_end(event):
                        ended.append("seen")
                        return

        with trio.fail_after(3 * PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                nursery.start_soon(watch)
                await reached.wait()
                process.kill()
                await trio.testing.wait_all_tasks_blocked(0.01)
                await trio.to_thread.run_sync(process.start)
                assert (await daemon.start("external", label="after")).label == "after"
                await daemon.complete(made.id)

    assert sorted(ended) == ["completed", "seen"]
    assert True in heard
    assert heard[-1] is False


async def test_patience_has_an_end(process: DaemonProcess, autojump_clock: trio.testing.MockClock) -> None:
    async with client.open(process.socket, patience_s=10) as daemon:
        made = await daemon.start("external")
        async with daemon.watch(made.id) as events:
            while not isinstance(await anext(events), Synced):
                pass
            process.kill()
            began = trio.current_time()
            with pytest.raises(NoDaemon):
                await anext(events)
            assert 10 <= trio.current_time() - began < 11
        began = trio.current_time()
        with pytest.raises(NoDaemon):
            await daemon.wait(made.id)
        assert 10 <= trio.current_time() - began < 11


def test_the_time_that_a_daemon_may_be_away_begins_anew_once_it_has_answered_or_stayed() -> None:
    told: list[bool] = []
    patience, error = Patience(10, told.append), NoDaemon("s", "gone")

    patience.met(0)
    patience.lost(error, 100)
    patience.lost(error, 105)
    patience.met(106)
    patience.lost(error, 107)
    with pytest.raises(NoDaemon):
        patience.lost(error, 110)
    patience.met(111)
    patience.answered()
    patience.lost(error, 112)
    patience.met(115)
    patience.lost(error, 130)
    patience.lost(error, 139)

    assert told == [True, False, True, False, True, False, True]


def test_a_call_that_may_not_be_made_twice_is_not_but_waits_for_a_daemon_that_it_finds_away(
    process: DaemonProcess,
) -> None:
    with client.connect(process.socket, PATIENCE, patience_s=PATIENCE) as daemon:
        made = daemon.start("external", label="made")
        process.kill()
        process.start()

        assert daemon.update(made.id, log=["once"]).label == "made"
        assert [each.line for each in daemon.log(made.id).lines] == ["once"]


def played(folder: Path, *replies: bytes | None) -> threading.Thread:
    """A daemon at ``folder/s`` that takes a call on each of its connections, and answers it so, or hangs up."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "s"))
    listener.listen()
    asked: list[dict[str, object]] = []

    def play() -> None:
        with closing(listener):
            for reply in replies:
                with listener.accept()[0] as peer, peer.makefile("rwb") as file:
                    asked.append(json.loads(file.readline()))
                    if reply is not None:
                        file.write(json.dumps({"id": asked[-1]["id"]}).encode()[:-1] + b", " + reply + b"}\n")
                        file.flush()
        (folder / "asked").write_text(json.dumps(asked))

    player = threading.Thread(target=play)
    player.start()
    return player


async def test_a_watch_is_entered_when_the_daemon_is_back(process: DaemonProcess) -> None:
    went, back = trio.Event(), trio.Event()
    async with client.open(
        process.socket, patience_s=PATIENCE, away=lambda away: went.set() if away else None
    ) as daemon:
        made = await daemon.start("external")
        process.kill()

        async def enter() -> None:
            async with daemon.watch(made.id) as events:
                assert (await anext(events)).record.id == made.id  # type: ignore[union-attr]  # a snapshot
                back.set()

        with trio.fail_after(2 * PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(enter)
                await went.wait()
                await trio.to_thread.run_sync(process.start)
                await back.wait()


def test_a_start_that_breaks_is_made_again_with_the_same_request_id(tmp_path: Path) -> None:
    record = b'"result": {"id": "a", "revision": 1, "operation": "x", "state": "queued", "created_at": null}'
    record = record.replace(b"null", b'"2026-01-01T00:00:00.000Z"')
    player = played(tmp_path, None, record)
    try:
        with client.connect(str(tmp_path / "s"), PATIENCE, patience_s=PATIENCE) as daemon:
            assert daemon.start("x").id == "a"
    finally:
        player.join(PATIENCE)

    first, second = (each["params"] for each in json.loads((tmp_path / "asked").read_text()))
    assert first == second
    assert first["request_id"]


def test_a_cancel_that_is_repeated_after_a_restart_is_granted_again(process: DaemonProcess) -> None:
    """So it is where the answer to the first was lost: the task is cancelled by then."""
    with client.connect(process.socket, PATIENCE, patience_s=PATIENCE) as daemon:
        cancelled, failed = daemon.start("command", {"argv": ["sleep", "600"]}), daemon.start("external")
        daemon.fail(failed.id, "BROKEN", "it broke")
        daemon.cancel(cancelled.id, must=True)
        process.kill()
        process.start()
        assert daemon.wait(cancelled.id).state == "cancelled"
        daemon.cancel(cancelled.id, must=True)
        with pytest.raises(client.TooLate):
            daemon.cancel(failed.id, must=True)


def test_an_update_that_breaks_is_not_made_again(tmp_path: Path) -> None:
    player = played(tmp_path, None)
    try:
        with client.connect(str(tmp_path / "s"), PATIENCE, patience_s=PATIENCE) as daemon:
            with pytest.raises(NoDaemon):
                daemon.update("a", log=["once"])
    finally:
        player.join(PATIENCE)


def test_a_start_that_leaves_nothing_behind_has_no_request_id() -> None:
    once = verbs.start("external", destroy_on_finish=True)

    assert verbs.twice(once) == once
    assert not once.again


def test_a_request_id_of_none_is_none_given() -> None:
    start = verbs.raw("Task.start", {"operation": "external", "request_id": None})
    named = verbs.raw("Task.start", {"operation": "external", "request_id": "mine"})

    assert verbs.twice(start).params["request_id"]
    assert verbs.twice(named).params == named.params


# A block beside a task.


def test_the_end_of_a_block_is_the_end_of_its_task(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    with daemon.running("copy", {"source": str(tmp_path / "a"), "target": str(tmp_path / "b")}) as task:
        assert not task.record.ended

    assert task.record.check().state == "completed"
    assert (tmp_path / "b").read_bytes() == b"content"


def test_the_end_of_a_task_may_take_longer_than_a_call_waits(shared: DaemonProcess) -> None:
    with client.connect(shared.socket, timeout_s=PATIENCE) as daemon:
        with daemon.running("command", {"argv": ["sleep", "2.2"]}) as task:
            daemon.timeout_s = 2.0

    assert task.record.state == "completed"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_whoever_leaves_a_block_by_an_exception_leaves_no_task_running(
    daemon: Daemon, error: type[BaseException], tmp_path: Path
) -> None:
    undo = ["touch", str(tmp_path / "undone")]
    argv = ["sh", "-c", "echo runs; exec sleep 600"]
    with pytest.raises(error):
        with daemon.running("command", {"argv": argv, "undo_argv": undo}) as task:
            with daemon.watch(task.id, log=True) as events:
                until(events, lambda event: isinstance(event, Log))
            raise error

    assert task.record.state == "cancelled"
    assert (tmp_path / "undone").exists()


def test_a_ctrl_c_while_the_end_is_waited_for_cancels(daemon: Daemon) -> None:
    def interrupting(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupting)
    try:
        with pytest.raises(KeyboardInterrupt):
            with daemon.running("command", {"argv": ["sleep", "600"]}) as task:
                signal.setitimer(signal.ITIMER_REAL, 0.05)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert task.record.state == "cancelled"


def test_whoever_cannot_ask_for_the_cancel_is_told_so(process: DaemonProcess) -> None:
    with process.connect() as daemon:
        with pytest.raises(RuntimeError) as caught:
            with daemon.running("external"):
                process.kill()
                raise RuntimeError

    assert caught.value.__notes__[0].startswith("the task was not seen to end: no taskd answers on ")


def test_a_task_that_is_refused_is_no_task(daemon: Daemon) -> None:
    with pytest.raises(client.BadParams):
        with daemon.running("copy", {"source": "relative", "target": "/tmp/x"}):
            raise AssertionError


async def test_a_task_beside_a_block_is_not_forgotten_when_it_ends(shared: DaemonProcess) -> None:
    """Its end is told at the block's; and a start that is interrupted is asked again, by its ``request_id``."""
    with shared.connect() as daemon, pytest.raises(ValueError, match="destroy_on_finish"):
        daemon.running("external", label="forgotten", destroy_on_finish=True)
    async with client.open(shared.socket) as on_trio_too:
        with pytest.raises(ValueError, match="destroy_on_finish"):
            on_trio_too.running("external", label="forgotten", destroy_on_finish=True)
    with shared.connect() as daemon:
        assert not list(daemon.list(label="forgotten"))
        with daemon.running("command", {"argv": ["true"]}, destroy_on_finish=False) as task:
            pass
    assert task.record.state == "completed"


async def test_a_block_that_is_cancelled_is_left_when_its_task_has_ended(shared: DaemonProcess) -> None:
    async with client.open(shared.socket) as daemon:
        with trio.CancelScope() as scope:
            async with daemon.running("command", {"argv": ["sleep", "600"]}) as task:
                scope.deadline = trio.current_time() + 0.1

        assert scope.cancelled_caught
        assert task.record.state == "cancelled"


async def test_whoever_is_cancelled_before_the_start_is_answered_leaves_no_task(shared: DaemonProcess) -> None:
    async with client.open(shared.socket) as daemon:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with daemon.running("command", {"argv": ["sleep", "600"]}, label="early"):
                await trio.lowlevel.checkpoint()

        assert [each.state async for each in daemon.list(label="early")] == ["cancelled"]


async def test_whoever_cannot_ask_for_the_cancel_on_trio_is_told_so(process: DaemonProcess) -> None:
    async with client.open(process.socket) as daemon:
        with pytest.raises(RuntimeError) as caught:
            async with daemon.running("external") as task:
                process.kill()
                raise RuntimeError

    assert caught.value.__notes__[0].startswith(f"task {task.id} was not seen to end: no taskd answers on ")


# Errors by type.


def test_the_types_of_refusals_are_named_as_the_daemons_own_errors() -> None:
    for name, kind in refusals.BY_NAME.items():
        assert getattr(errors, kind.__name__).name == name
        assert getattr(client, kind.__name__) is kind
        assert issubclass(kind, Refused)


def test_a_task_that_did_not_complete_says_why(daemon: Daemon) -> None:
    made = daemon.start("external")
    with pytest.raises(NotCompleted, match=f"task {made.id} is running$"):
        made.check()

    with pytest.raises(NotCompleted, match="is failed: BROKEN: it broke") as caught:
        daemon.fail(made.id, "BROKEN", "it broke").check()
    assert (caught.value.state, caught.value.failure) == ("failed", "BROKEN")


def test_everything_public_is_exported_and_documented() -> None:
    for name in client.__all__:
        assert getattr(client, name).__doc__
    for kind in (Daemon, on_trio.Daemon):
        for name, member in vars(kind).items():
            if not name.startswith("_") and callable(member):
                assert member.__doc__, name
