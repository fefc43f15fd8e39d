"""The clients: the blocking one and the one on trio, against a real daemon."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import attrs
import pytest
import trio

from taskd import client
from taskd.client import Daemon, NoDaemon, Notification, Refused, on_trio, verbs
from taskd.model import Failure, Speed
from tests.process import PATIENCE, DaemonProcess


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    process = DaemonProcess(tmp_path_factory.mktemp("d"))
    process.start()
    yield process
    process.end()


@pytest.fixture
def daemon(process: DaemonProcess) -> Iterator[Daemon]:
    with process.connect() as daemon:
        yield daemon


@pytest.fixture
async def trio_daemon(process: DaemonProcess) -> AsyncIterator[on_trio.Daemon]:
    async with client.open(process.socket) as daemon:
        yield daemon


TOO_LONG = "x" * (2 << 20)


def reply(id: object, **outcome: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, **outcome}).encode() + b"\n"


# The blocking client.


def test_a_task_through_the_typed_verbs(daemon: Daemon) -> None:
    made = daemon.start("external", {"heartbeat_s": None}, label="typed", request_id="t1")

    assert daemon.start("external", request_id="t1") == made
    assert daemon.get(made.id).state == "running"
    assert made.id in daemon.ids()
    reported = daemon.update(
        made.id,
        done=1,
        total=4,
        unit="files",
        status="busy",
        speeds=[Speed("read", 1.5, "MB/s")],
        log=["one", "two"],
    )
    assert (reported.progress.done, reported.progress.total, reported.progress.unit) == (1, 4, "files")
    assert (reported.status, reported.speeds) == ("busy", (Speed("read", 1.5, "MB/s"),))
    assert daemon.update(made.id, fraction=0.5, label="reported").progress.fraction == 0.5
    assert [line.line for line in daemon.log(made.id, 1).lines] == ["two"]
    assert daemon.wait(made.id, after_revision=made.revision).revision > made.revision
    assert daemon.wait(made.id, timeout_s=0).state == "running"
    daemon.cancel(made.id)
    assert daemon.get(made.id).cancel_requested
    daemon.complete(made.id, [1])
    done = daemon.wait(made.id)
    assert (done.state, done.result, done.ended) == ("completed", [1], True)
    with pytest.raises(Refused) as late:
        daemon.cancel(made.id, must=True)
    assert late.value.error == "Too_late"
    with pytest.raises(Refused):
        daemon.recover(made.id)
    daemon.destroy(made.id)
    with pytest.raises(Refused, match=f"there is no task {made.id}"):
        daemon.get(made.id)
    assert "external" in {offer.name for offer in daemon.operations()}


def test_a_producer_that_fails_says_why_and_one_that_obeys_a_cancel_ends_it(daemon: Daemon) -> None:
    failed = daemon.fail(daemon.start("external").id, "BROKEN", "it broke", ["a"])
    assert (failed.state, failed.error) == ("failed", Failure("BROKEN", "it broke", ("a",)))

    cancelled = daemon.start("external").id
    daemon.cancel(cancelled)
    assert daemon.fail(cancelled, "STOPPED", "as asked").state == "cancelled"


def test_tokens_through_the_typed_verbs(daemon: Daemon) -> None:
    made = daemon.add_token("ann", ["user", "service"], expires_s=60)
    forever = daemon.add_token("bob", ["admin"])

    assert (made.user, made.roles, made.token.split("_")[:2]) == ("ann", ("service", "user"), ["taskd", made.id])
    assert made.expires_at == pytest.approx(made.created_at + 60)
    assert made.token not in repr(made)
    assert daemon.tokens() == (attrs.evolve(made, token=""), attrs.evolve(forever, token=""))
    daemon.remove_token(made.id)
    assert [each.id for each in daemon.tokens()] == [forever.id]
    with pytest.raises(Refused, match=f"there is no token {made.id}"):
        daemon.remove_token(made.id)


def test_a_copy_through_the_typed_verb(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")

    done = daemon.wait(daemon.copy(str(tmp_path / "a"), str(tmp_path / "b"), verify=True).id)

    assert done.state == "completed"
    assert (tmp_path / "b").read_bytes() == b"content"


def test_a_list_goes_through_all_pages(daemon: Daemon) -> None:
    made = [daemon.start("external", label="paged").id for _ in range(5)]

    listed = [each.id for each in daemon.list(label="paged", page_size=2, order="oldest")]

    assert listed == made


def test_a_call_that_timed_out_leaves_the_connection_in_step(process: DaemonProcess, daemon: Daemon) -> None:
    made = daemon.start("external")
    with client.connect(process.socket, timeout_s=0.05) as hasty:
        with pytest.raises(TimeoutError):
            hasty.wait(made.id)
        daemon.call("Task.complete", id=made.id)
        hasty.timeout_s = PATIENCE

        assert isinstance(hasty.ids(), tuple)
        assert hasty.get(made.id).state == "completed"


def test_waits_that_are_given_up_by_the_hundred_leave_room_for_all_other_calls(process: DaemonProcess) -> None:
    """The daemon kept each for as long as the task, and read nothing more when it had 256 of them."""
    with client.connect(process.socket, timeout_s=PATIENCE) as daemon:
        made, ended = daemon.start("external"), daemon.complete(daemon.start("external").id)
        daemon.timeout_s = 0.002
        for _ in range(300):
            with pytest.raises(TimeoutError, match=r"no reply within 0\.002 seconds"):
                daemon.wait(made.id)
        daemon.timeout_s = PATIENCE

        assert daemon.get(made.id).state == "running"
        assert daemon.wait(ended.id).state == "completed"
        daemon.cancel(made.id)


def test_a_wait_goes_on_until_what_it_waits_for(
    process: DaemonProcess, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many calls it is made of."""
    monkeypatch.setattr(verbs, "PART", 0.01)
    made = daemon.start("external")
    assert daemon.wait(made.id, 0.05).state == daemon.wait(made.id, 0.05, made.revision).state == "running"
    assert daemon.wait(made.id, after_revision=0) == made

    with process.connect() as producer:
        end = threading.Timer(0.05, producer.complete, [made.id])
        end.start()
        assert daemon.wait(made.id).state == "completed"
        end.join()


@pytest.fixture
def deaf(tmp_path: Path) -> Iterator[tuple[Daemon, socket.socket]]:
    """A call waits for hardly a moment, and its peer reads nothing; it hangs up on whoever waits for ever."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        with client.connect(str(tmp_path / "s"), timeout_s=0.001) as daemon, listener.accept()[0] as peer:
            limit = threading.Timer(PATIENCE, peer.shutdown, [socket.SHUT_RDWR])
            limit.start()
            try:
                yield daemon, peer
            finally:
                limit.cancel()


def test_a_call_that_times_out_half_way_ends_the_connection(deaf: tuple[Daemon, socket.socket]) -> None:
    daemon, _ = deaf
    with pytest.raises(TimeoutError, match="no reply within"):
        daemon.call("Task.ls", dbg="x" * (16 << 20))

    with pytest.raises(NoDaemon, match="interrupted half way"):
        daemon.ids()


def test_a_call_that_times_out_before_its_first_byte_leaves_the_connection_in_step(
    deaf: tuple[Daemon, socket.socket],
) -> None:
    daemon, peer = deaf
    for _ in range(1000):
        with pytest.raises(TimeoutError):
            daemon.call("Task.ls", dbg="x" * 1000)

    heard: list[int] = []

    def answer() -> None:
        with peer.makefile() as lines:
            for line in lines:
                heard.append(json.loads(line)["id"])
                peer.sendall(reply(heard[-1], result=[str(heard[-1])]))

    answering = threading.Thread(target=answer)
    answering.start()
    try:
        daemon.timeout_s = PATIENCE
        assert daemon.ids() == (str(len(heard)),)
    finally:
        daemon.close()
        answering.join(PATIENCE)
    assert heard == [*range(1, len(heard) + 1)]
    assert 1 < len(heard) < 1001


def test_a_call_that_is_interrupted_leaves_the_connection_in_step(daemon: Daemon) -> None:
    made = daemon.start("external")

    def interrupting(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupting)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            daemon.wait(made.id)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert daemon.get(made.id).id == made.id
    assert repr(daemon).endswith(" <Conversation 0 in flight>>")


def test_a_daemon_that_dies_is_no_daemon_and_stays_it(tmp_path: Path) -> None:
    process = DaemonProcess(tmp_path)
    process.start()
    try:
        daemon = process.connect()
        daemon.ids()
        process.kill()
        for _ in range(2):
            with pytest.raises(NoDaemon) as caught:
                daemon.ids()
            assert caught.value.data == (process.socket, "the connection was closed")
        daemon.close()
        with pytest.raises(NoDaemon, match="the connection was closed"):
            daemon.ids()
    finally:
        process.end()


def test_a_connection_that_was_closed_says_so(process: DaemonProcess) -> None:
    with process.connect() as daemon:
        pass

    with pytest.raises(NoDaemon, match="the connection is closed"):
        daemon.ids()


@pytest.mark.parametrize("path", ["nobody", "x" * 200, "nul\0byte"])
def test_a_path_where_nobody_listens_is_no_daemon(tmp_path: Path, path: str) -> None:
    with pytest.raises(NoDaemon):
        client.connect(str(tmp_path / path))


def test_what_the_daemon_says_before_it_hangs_up_is_heard(tmp_path: Path) -> None:
    """A refused connection is closed at once; our call may fall into the closed end."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        daemon = client.connect(str(tmp_path / "s"))
        peer, _ = listener.accept()
        peer.sendall(reply(None, error={"code": 1, "message": "Too_many_connections", "data": ["9"]}))
        peer.close()

        with daemon, pytest.raises(Refused, match="already has 9 connections open"):
            daemon.ids()


def test_a_call_that_is_too_long_is_refused_and_what_follows_it_is_not(process: DaemonProcess) -> None:
    with process.connect() as once, client.connect(process.socket, patience_s=PATIENCE) as patient:
        for daemon in (once, patient):
            with pytest.raises(Refused, match="longer than 1048576 bytes"):
                daemon.get(TOO_LONG)
        with pytest.raises(NoDaemon, match="ended with a message that was refused: a message is longer than"):
            once.ids()
        assert isinstance(patient.ids(), tuple)


def test_importing_the_client_does_not_load_trio() -> None:
    script = "import sys, taskd.client; sys.exit('trio' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=PATIENCE).returncode == 0


# The client on trio.


async def test_many_calls_are_in_flight_on_one_connection(trio_daemon: on_trio.Daemon) -> None:
    """Each of 200 waits for a task of its own; they are ended last to first."""
    made = [(await trio_daemon.start("external", label=str(n))).id for n in range(200)]
    ended: list[str] = []

    async def wait(id: str) -> None:
        done = await trio_daemon.wait(id)
        assert done.id == id
        ended.append(id)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for id in made:
                nursery.start_soon(wait, id)
            for id in reversed(made):
                await trio_daemon.call("Task.complete", id=id)

    assert sorted(ended) == sorted(made)


async def test_a_refused_call_does_not_disturb_the_others(trio_daemon: on_trio.Daemon) -> None:
    made = await trio_daemon.start("external")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio_daemon.wait, made.id)
        with pytest.raises(Refused, match="there is no task nobody"):
            await trio_daemon.get("nobody")
        await trio_daemon.call("Task.complete", id=made.id)


async def test_a_call_that_is_too_long_is_refused_alone_and_a_wait_beside_it_is_repeated(
    process: DaemonProcess,
) -> None:
    """The wait was told that its message is too long, and the call hung, for the daemon waited before it read."""
    async with client.open(process.socket, patience_s=PATIENCE) as daemon:
        made = await daemon.start("external")
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(daemon.wait, made.id)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(Refused, match="longer than 1048576 bytes"):
                    await daemon.get(TOO_LONG)
                await daemon.complete(made.id)


async def test_a_wait_beside_a_call_that_is_too_long_hears_that_nobody_answers(process: DaemonProcess) -> None:
    async with client.open(process.socket) as daemon:
        made = await daemon.start("external")

        async def wait() -> None:
            with pytest.raises(NoDaemon, match="ended with a message that was refused"):
                await daemon.wait(made.id)

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(Refused, match="longer than 1048576 bytes"):
                    await daemon.get(TOO_LONG)


async def test_who_sends_wakes_up_when_the_connection_has_ended(tmp_path: Path) -> None:
    """The peer refuses what it has not read, and reads nothing."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        async with client.open(str(tmp_path / "s")) as daemon:
            with trio.fail_after(PATIENCE), listener.accept()[0] as peer:
                async with trio.open_nursery() as nursery:

                    async def wait() -> None:
                        with pytest.raises(NoDaemon):
                            await daemon.wait("x")

                    async def send() -> None:
                        with pytest.raises(Refused, match="too long"):
                            await daemon.get(TOO_LONG)

                    nursery.start_soon(wait)
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.start_soon(send)
                    await trio.testing.wait_all_tasks_blocked()
                    peer.sendall(reply(None, error={"code": -32600, "message": "too long"}))


async def test_a_call_that_is_cancelled_leaves_the_connection_in_step(trio_daemon: on_trio.Daemon) -> None:
    """Also when it was the one that read for the others."""
    made = await trio_daemon.start("external")
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.05) as scope:
            nursery.start_soon(trio_daemon.wait, made.id)
            await trio_daemon.wait(made.id)
        assert scope.cancelled_caught
        await trio_daemon.call("Task.complete", id=made.id)

    assert (await trio_daemon.get(made.id)).state == "completed"
    assert repr(trio_daemon).endswith(" <Conversation 0 in flight>>")


async def test_waits_that_are_cancelled_by_the_hundred_leave_room_for_all_other_calls(
    trio_daemon: on_trio.Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon kept each for as long as the task, and read nothing more when it had 256 of them."""
    monkeypatch.setattr(verbs, "PART", 1.0)
    made = await trio_daemon.start("external")
    ended = await trio_daemon.complete((await trio_daemon.start("external")).id)
    with trio.fail_after(PATIENCE):
        for _ in range(300):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio_daemon.wait, made.id)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()

        assert (await trio_daemon.get(made.id)).state == "running"
        assert (await trio_daemon.wait(ended.id)).state == "completed"
        await trio_daemon.cancel(made.id)


async def test_a_wait_on_trio_goes_on_until_what_it_waits_for(
    trio_daemon: on_trio.Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many calls it is made of."""
    monkeypatch.setattr(verbs, "PART", 0.01)
    made = await trio_daemon.start("external")
    assert (await trio_daemon.wait(made.id, 0.05)).state == "running"
    assert (await trio_daemon.wait(made.id, 0.05, made.revision)).state == "running"
    assert await trio_daemon.wait(made.id, after_revision=0) == made
    with trio.move_on_after(0.05) as hasty:
        await trio_daemon.wait(made.id)
    assert hasty.cancelled_caught

    async def end() -> None:
        await trio_daemon.wait(made.id, 0.05)
        await trio_daemon.complete(made.id)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end)
        assert (await trio_daemon.wait(made.id)).state == "completed"


async def test_the_reader_that_is_cancelled_hands_its_seat_on(trio_daemon: on_trio.Daemon) -> None:
    made = await trio_daemon.start("external")
    reader = trio.CancelScope()

    async def read_first() -> None:
        with reader:
            await trio_daemon.wait(made.id)

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_first)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(trio_daemon.wait, made.id, 0.1)
            await trio.testing.wait_all_tasks_blocked()
            reader.cancel()

    assert reader.cancelled_caught


async def test_a_producer_on_trio(trio_daemon: on_trio.Daemon) -> None:
    made = await trio_daemon.start("external")
    assert (await trio_daemon.update(made.id, fraction=0.5)).progress.fraction == 0.5
    assert (await trio_daemon.complete(made.id, "done")).result == "done"
    other = await trio_daemon.start("external")
    assert (await trio_daemon.fail(other.id, "BROKEN", "it broke")).state == "failed"


async def test_a_list_on_trio_goes_through_all_pages(trio_daemon: on_trio.Daemon) -> None:
    made = [(await trio_daemon.start("external", label="paged on trio")).id for _ in range(3)]

    listed = [each.id async for each in trio_daemon.list(label="paged on trio", page_size=2, order="oldest")]

    assert listed == made


async def test_everybody_who_waits_hears_that_the_daemon_died(tmp_path: Path) -> None:
    process = DaemonProcess(tmp_path)
    await trio.to_thread.run_sync(process.start)
    heard: list[NoDaemon] = []
    try:
        async with client.open(process.socket) as daemon:
            made = await daemon.start("external")

            async def wait() -> None:
                with pytest.raises(NoDaemon) as caught:
                    await daemon.wait(made.id)
                heard.append(caught.value)

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                process.kill()
            daemon.close()
            with pytest.raises(NoDaemon) as caught:
                await daemon.ids()
    finally:
        process.end()

    assert [error.data for error in heard] == [caught.value.data] * 3


async def test_no_daemon_on_trio(tmp_path: Path) -> None:
    with pytest.raises(NoDaemon):
        async with client.open(str(tmp_path / "nobody")):
            pass


async def test_a_connection_that_was_closed_is_no_daemon(process: DaemonProcess) -> None:
    async with client.open(process.socket) as daemon:
        made = await daemon.start("external")
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(NoDaemon, match="the connection is closed"):
                    await daemon.wait(made.id)

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            daemon.close()

    with pytest.raises(NoDaemon, match="the connection is closed"):
        await daemon.ids()


async def test_notifications_are_awaited_beside_calls(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def play() -> None:
            peer, _ = listener.accept()
            with peer, peer.makefile("rwb", buffering=0) as file:
                id = json.loads(file.readline())["id"]
                file.write(b'{"method": "Task.event", "params": 1}\n' + reply(id, result=[]))
                file.readline()

        player = threading.Thread(target=play)
        player.start()
        try:
            async with client.open(str(tmp_path / "s")) as daemon:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(daemon.ids)
                    assert await daemon.notification() == Notification("Task.event", 1)
        finally:
            player.join()
