"""What the machine does to a running daemon: it says so, answers what it can, loses nothing, and recovers.

Against a real daemon, on a disk of its own where the disk is what fails; a well-behaved client asks meanwhile.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taskd import client
from taskd.client.record import Record
from taskd.errors import Refused
from taskd.store.spare import SIZE
from tests.operations.conftest import filesystem, mounted, needs_root, output
from tests.others import NOBODY, connected_as_nobody
from tests.process import PATIENCE, DaemonProcess
from tests.well_behaved import WellBehaved, well_behaved

LABEL = "asked for meanwhile"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's, which could not be cleared while a disk is mounted in it."""
    with tempfile.TemporaryDirectory(prefix="taskd-test-") as name:
        yield Path(name)


@pytest.fixture
def disk(folder: Path) -> Iterator[Path]:
    """An ext4 of 24 MB, mounted; a loop device is no memory, so a full one is full."""
    image = folder / "disk.img"
    with image.open("wb") as file:
        file.truncate(24 << 20)
    output("mkfs.ext4", "-q", "-m", "0", image)
    with mounted(folder / "disk", "-o", "loop,errors=remount-ro", str(image)) as there:
        yield there


@contextmanager
def serving(folder: Path, state: Path | None = None, **settings: str) -> Iterator[DaemonProcess]:
    options = () if state is None else ("--state", str(state))
    daemon = DaemonProcess(folder, options, settings)
    daemon.start()
    try:
        yield daemon
    finally:
        print(daemon.log)  # shown where the test fails
        daemon.end()


@contextmanager
def asked_meanwhile(daemon: DaemonProcess, *, fresh: bool = True) -> Iterator[WellBehaved]:
    """Somebody who has every answer to the end of the block, whatever happens in it."""
    with daemon.connect() as ours:
        id = ours.start("external", label=LABEL).id
    with well_behaved(daemon.socket, id, LABEL, fresh=fresh) as other:
        yield other
        other.goes_on()
        other.end()


def pid(daemon: DaemonProcess) -> int:
    assert daemon.process is not None
    return daemon.process.pid


def until(what: Callable[[], bool], other: WellBehaved) -> None:
    """Until it is so; the other client goes on meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline
        other.goes_on(10)


def failure(record: Record) -> str:
    """The code of the error that a task failed with."""
    assert record.error is not None
    return record.error.code


def refused(act: Callable[[], object]) -> str:
    """The name and the sentence of the refusal."""
    with pytest.raises(Refused) as caught:
        act()
    return f"{caught.value.error}: {caught.value.text} {' '.join(caught.value.details)}"


def as_promised(daemon: DaemonProcess, promised: dict[str, str]) -> None:
    """After ``kill -9`` every task is what was answered last."""
    daemon.kill()
    daemon.start()
    with daemon.connect() as ours:
        assert {id: ours.get(id).state for id in promised} == promised


def under_way(ours: client.Daemon, folder: Path) -> Record:
    """A command that runs, until there is a file ``go``."""
    script = f"touch {folder}/up; until test -e {folder}/go; do sleep 0.02; done"
    task = ours.start("command", {"argv": ["sh", "-c", script]})
    while not (folder / "up").exists():
        task = ours.wait(task.id, timeout_s=0.02, after_revision=task.revision)
    return task


def until_undone(ours: client.Daemon, task: Record) -> str:
    """What it shows when it runs no more."""
    while task.state in ("queued", "running"):
        task = ours.wait(task.id, timeout_s=PATIENCE, after_revision=task.revision)
    return task.state


# File descriptors.


def test_without_descriptors_whoever_is_connected_is_answered_and_whoever_comes_waits(folder: Path) -> None:
    (folder / "a").write_bytes(b"x" * 100_000)
    with serving(folder) as daemon:
        with daemon.connect() as ours, asked_meanwhile(daemon, fresh=False) as other:
            before = ours.wait(ours.copy(str(folder / "a"), str(folder / "before")).id)
            assert before.state == "completed"  # and what is imported late is imported
            limits = resource.prlimit(pid(daemon), resource.RLIMIT_NOFILE)
            resource.prlimit(pid(daemon), resource.RLIMIT_NOFILE, (3, limits[1]))
            with socket.socket(socket.AF_UNIX) as late:
                late.connect(daemon.socket)
                late.sendall(b'{"jsonrpc":"2.0","method":"Task.ls","id":1}\n')
                until(lambda: "accept returned EMFILE" in daemon.log, other)
                kept = ours.complete(ours.start("external").id)
                assert ours.get(kept.id).state == "completed"
                try:
                    failed = ours.wait(
                        ours.start("copy", {"source": str(folder / "a"), "target": str(folder / "b")}).id
                    )
                except Refused as error:
                    assert "Too many open files" in error.text  # noqa: PT017  # it may be refused or fail
                else:
                    assert (failed.state, failed.error and failed.error.code) == ("failed", "EMFILE")
                assert not (folder / "b").exists()

                resource.prlimit(pid(daemon), resource.RLIMIT_NOFILE, limits)
                late.settimeout(PATIENCE)
                assert kept.id.encode() in late.recv(65536)
            assert ours.copy(str(folder / "a"), str(folder / "b")).state in ("queued", "running", "completed")
            assert daemon.log.count("accept returned EMFILE") == 1
        as_promised(daemon, {kept.id: "completed"})


@needs_root
def test_who_comes_where_nothing_is_left_to_look_callers_up_with_is_told_so(folder: Path) -> None:
    folder.chmod(0o755)
    with serving(folder, None, socket_mode="0666") as daemon, daemon.connect() as ours:
        ours.ids()
        limits = resource.prlimit(pid(daemon), resource.RLIMIT_NOFILE)
        taken = {int(name) for name in os.listdir(f"/proc/{pid(daemon)}/fd")}
        free = min({*range(len(taken) + 1)} - taken)
        resource.prlimit(pid(daemon), resource.RLIMIT_NOFILE, (free + 1, limits[1]))
        with connected_as_nobody(daemon.socket) as other:
            other.settimeout(PATIENCE)
            refusal = json.loads(other.recv(4096))
            assert refusal["error"]["message"] == "Not_served"
            assert refusal["error"]["data"] == ["[Errno 24] Too many open files: '/'"]
            assert other.recv(1) == b""

        resource.prlimit(pid(daemon), resource.RLIMIT_NOFILE, limits)
        with connected_as_nobody(daemon.socket) as other:
            other.settimeout(PATIENCE)
            other.sendall(b'{"jsonrpc":"2.0","method":"Task.ls","id":1}\n')
            assert json.loads(other.recv(4096))["result"] == []
        ours.ids()


# The disk.


def fill(folder: Path) -> Path:
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            with pytest.raises(OSError, match="No space"):
                while True:
                    file.write(b"x" * size)
    return ballast


def start_until_refused(ours: client.Daemon, promised: dict[str, str]) -> str:
    """Tasks until there is no room for one more; the refusal."""
    for _ in range(5000):
        try:
            promised[ours.start("external", label="x" * 4000).id] = "running"
        except Refused as error:
            return f"{error.error}: {error.text} {' '.join(error.details)}"
    raise AssertionError("it is never full")


def unwritable(daemon: DaemonProcess, ours: client.Daemon, promised: dict[str, str]) -> None:
    """What holds while the store cannot write: nothing is promised, everything is answered."""
    id = next(id for id, state in promised.items() if state == "running")
    assert "Store_unavailable" in refused(lambda: ours.start("external", label="x" * 4000))
    assert "Store_unavailable" in refused(lambda: ours.complete(id, "x" * 60_000))
    assert ours.get(id).state == "running"
    assert set(promised) <= set(ours.ids())
    assert daemon.log.count('logger=taskd.store message="the store cannot write') == 1


@needs_root
def test_on_a_full_disk_nothing_is_promised_all_is_answered_and_room_is_enough_to_go_on(
    folder: Path, disk: Path
) -> None:
    with serving(folder, disk / "state") as daemon:
        with daemon.connect() as ours, asked_meanwhile(daemon):
            promised: dict[str, str] = {ours.complete(ours.start("external").id).id: "completed"}
            promised[ours.start("external").id] = "running"
            ending = under_way(ours, folder)
            ballast = fill(disk)
            assert "Store_unavailable" in start_until_refused(ours, promised)
            (
                folder / "go"
            ).touch()  # it ends now, which cannot be written: it is undone, and that cannot be written either
            assert until_undone(ours, ending) == "undoing"
            unwritable(daemon, ours, promised)

            ballast.unlink()
            promised[ours.start("external", label="x" * 4000).id] = "running"
            told = ours.wait(ending.id, timeout_s=PATIENCE)
            assert (told.state, told.error and told.error.code) == ("failed", "STORE_UNAVAILABLE")
            promised[ending.id] = "failed"
        as_promised(daemon, promised)


@needs_root
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_started_on_a_full_disk_it_answers_all_promises_nothing_and_goes_on_when_there_is_room(
    folder: Path, kind: str
) -> None:
    with filesystem(kind, folder) as disk, serving(folder, disk / "state") as daemon:
        spare = disk / "state" / "spare"
        with daemon.connect() as ours:
            promised: dict[str, str] = {ours.complete(ours.start("external").id).id: "completed"}
            promised[ours.start("external").id] = "running"
        assert spare.stat().st_size == SIZE
        for end in (daemon.stop, daemon.kill, daemon.kill):
            end()
            ballast = fill(disk)
            daemon.start()
            with daemon.connect() as ours:
                assert {task.id: task.state for task in ours.list()} == promised
                assert "Store_unavailable" in start_until_refused(ours, promised)
                assert set(promised) == set(ours.ids())
        assert 0 < spare.stat().st_size < SIZE

        ballast.unlink()
        with daemon.connect() as ours:
            promised[ours.start("external", label="x" * 4000).id] = "running"
        assert spare.stat().st_size == SIZE
        as_promised(daemon, promised)


@needs_root
def test_whoever_asks_whether_the_store_can_write_is_told_and_leaves_what_is_spare_to_a_start(
    folder: Path, disk: Path
) -> None:
    """Immutable is the log only: what is spare could be had."""
    with serving(folder, disk / "state") as daemon, daemon.connect() as ours:
        fill(disk)
        log = disk / "state" / "taskd.sqlite-wal"
        output("chattr", "+i", log)
        try:
            assert "store not writable" in str(ours.call("Plugin.diagnostics"))
        finally:
            output("chattr", "-i", log)
        assert (disk / "state" / "spare").stat().st_size == SIZE


@needs_root
def test_a_state_folder_that_nobody_may_write_is_said_and_lived_with_until_it_is_writable_again(
    folder: Path, disk: Path
) -> None:
    """Immutable: that is asked at each write, also through a file that is open."""
    state = disk / "state"
    with serving(folder, state) as daemon:
        with daemon.connect() as ours, asked_meanwhile(daemon):
            promised: dict[str, str] = {ours.complete(ours.start("external").id).id: "completed"}
            promised[ours.start("external").id] = "running"
            ending = under_way(ours, folder)
            output("chattr", "-R", "+i", state)
            try:
                (folder / "go").touch()
                assert until_undone(ours, ending) == "undoing"
                unwritable(daemon, ours, promised)
            finally:
                output("chattr", "-R", "-i", state)
            promised[ours.start("external").id] = "running"
            told = ours.wait(ending.id, timeout_s=PATIENCE)
            assert (told.state, told.error and told.error.code) == ("failed", "STORE_UNAVAILABLE")
            promised[ending.id] = "failed"
        as_promised(daemon, promised)


@needs_root
def test_a_disk_that_turns_read_only_under_us_has_all_that_was_promised_once_it_is_mended(
    folder: Path, disk: Path
) -> None:
    """As ext4 does it on an error; the kernel lets nobody write there again before it is mounted anew."""
    device = output("findmnt", "--noheadings", "--output", "SOURCE", disk)
    trigger = Path("/sys/fs/ext4", os.path.basename(device), "trigger_fs_error")
    if not trigger.exists():
        pytest.skip("this kernel has no trigger_fs_error")
    with serving(folder, disk / "state") as daemon:
        with daemon.connect() as ours, asked_meanwhile(daemon):
            promised: dict[str, str] = {ours.complete(ours.start("external").id).id: "completed"}
            promised[ours.start("external").id] = "running"
            trigger.write_text("1")
            unwritable(daemon, ours, promised)
        daemon.kill()
        output("umount", disk)
        subprocess.run(["fsck.ext4", "-y", folder / "disk.img"], check=False, capture_output=True)
        output("mount", "-o", "loop", folder / "disk.img", disk)
        daemon.start()
        as_promised(daemon, promised)


# The clock.


FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)


@pytest.fixture
def clock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """``clock(seconds)``: from now on the daemon's wall clock is so far from the machine's."""
    if FAKETIME is None:
        pytest.skip("faketime is not installed")
    file = folder / "clock"

    def set_to(seconds: int) -> None:
        new = folder / "clock.new"
        new.write_text(f"{seconds:+}\n")
        new.rename(file)

    set_to(0)
    monkeypatch.setenv("LD_PRELOAD", str(FAKETIME))
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(file))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    return set_to


@contextmanager
def our_own_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.delenv("LD_PRELOAD")
        yield


HOUR = 3600


def with_token(daemon: DaemonProcess, held: str) -> bytes:
    """The first line of what a proxy gets for it."""
    body = b'{"jsonrpc":"2.0","method":"Task.ls","id":1}'
    head = (
        f"POST /jsonrpc HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {held}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with connected_as_nobody(daemon.socket) as proxy:
        proxy.settimeout(PATIENCE)
        proxy.sendall(head.encode() + body)
        return proxy.recv(4096).partition(b"\r\n")[0]


@needs_root
def test_a_token_is_good_until_its_date_whatever_the_clock_did_before(
    folder: Path, clock: Callable[[int], None]
) -> None:
    folder.chmod(0o755)
    settings = {"proxies": NOBODY.pw_name, "socket_mode": "0666"}
    with serving(folder, None, **settings) as daemon, daemon.connect() as ours:
        grant = ours.add_token("ann", ["user"], expires_s=0.5 * HOUR)
        assert grant.token is not None
        for seconds, status in ((0, b"200"), (-HOUR, b"200"), (0, b"200"), (HOUR, b"401"), (0, b"200")):
            clock(seconds)
            assert status in with_token(daemon, grant.token)


def test_a_clock_that_jumps_back_an_hour_is_said_and_moves_no_task_no_deadline_and_no_heartbeat(
    folder: Path, clock: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(folder, retention_days=str(0.5 / 24)) as daemon, daemon.connect() as ours:
        with our_own_time(monkeypatch), asked_meanwhile(daemon) as other:
            spanning = ours.start("external")
            began = time.monotonic()
            limited = ours.start("external", deadline_s=1.5)
            silent = ours.start("external", {"heartbeat_s": 1.5})
            clock(-HOUR)
            ours.update(spanning.id, done=1, total=2)
            after = [ours.start("external") for _ in range(3)]
            later = ours.start("external", deadline_s=1.5)
            copied = ours.start("command", {"argv": ["true"]})

            assert failure(ours.wait(limited.id, timeout_s=PATIENCE)) == "DEADLINE_EXCEEDED"
            assert failure(ours.wait(silent.id, timeout_s=PATIENCE)) == "PRODUCER_LOST"
            assert failure(ours.wait(later.id, timeout_s=PATIENCE)) == "DEADLINE_EXCEEDED"
            assert time.monotonic() - began > 1.4
            assert ours.wait(copied.id, timeout_s=PATIENCE).state == "completed"
            done = ours.complete(spanning.id)
            until(lambda: "the clock was set back by 3600 seconds" in daemon.log, other)

            every = [spanning, limited, silent, *after, later, copied]
            assert [id for id in ours.ids() if id in {task.id for task in every}] == [task.id for task in every]
            for task in (ours.get(each.id) for each in every):
                assert task.created_at <= (task.started_at or task.created_at)
                assert task.finished_at is None or task.finished_at >= (task.started_at or task.created_at)
            revisions = [ours.get(task.id).revision for task in (*after, done)]
            assert revisions == sorted(revisions)
            clock(0)
            until(lambda: "the clock was set forward by 3600 seconds" in daemon.log, other)

        # What ended before the jump, or in it, is neither forgotten early nor kept for ever.
        clock(-HOUR)
        kept = {done.id: "completed", limited.id: "failed", copied.id: "completed"}
        as_promised(daemon, kept)
        clock(0)
        as_promised(daemon, {done.id: "completed", limited.id: "failed"})
        clock(HOUR)
        daemon.kill()
        daemon.start()
        with daemon.connect() as anew:
            until_gone = time.monotonic() + PATIENCE
            while set(kept) & set(anew.ids()):
                assert time.monotonic() < until_gone
        assert daemon.stop() == 0
