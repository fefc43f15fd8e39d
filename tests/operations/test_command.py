"""``command``: real programs, run by the real runner over the store in memory.

Nothing here waits for time to pass: a program says in its log, or by a process that ends, how far it is. What
a test starts is dead when its service is left; what leaves the session on purpose is killed by its pid.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from taskd import codec
from taskd.errors import BadParams, CommandFailed, CommandNotFound, FolderMissing, Refusal, Unproven
from taskd.model import JSON, LogLine, Task, now
from taskd.operations import command, launch
from taskd.operations.program import CHUNK, PATH, Lines, _follow
from taskd.operations.session import Session
from taskd.registry import Live
from taskd.runner.log import numbered
from taskd.service import Service
from taskd.states import State
from taskd.store.memory import MemoryStore
from tests.bench import ROOT, ended, running
from tests.operations.conftest import descriptors

KILL = command.OPERATION.verbs["kill"]
RUN_UNDO = command.OPERATION.verbs["run_undo"]

# Ignores SIGTERM, as does what it starts, in its own process group and in another one; says their pids.
STUBBORN = """
trap '' TERM
sleep 1000 & echo $!
set -m
sleep 1001 & echo $!
echo $$
echo ready
wait
"""


@asynccontextmanager
async def serving(folder: Path, store: MemoryStore | None = None) -> AsyncIterator[Service]:
    operations = {"command": command.OPERATION}
    async with running(store or MemoryStore(), operations, str(folder / "workspace")) as service:
        yield service


def sh(script: str, **params: JSON) -> Mapping[str, JSON]:
    return {"argv": ["bash", "-c", script], **params}


async def start(service: Service, params: Mapping[str, JSON]) -> str:
    return (await service.start(ROOT, "command", dict(params))).id


async def perform(service: Service, params: Mapping[str, JSON]) -> Task:
    return await ended(service, await start(service, params))


async def log(service: Service, id: str) -> list[str]:
    return [line.line for line in await service.log(ROOT, id, 0, 100_000)]


async def said(service: Service, id: str, line: str) -> list[str]:
    """The log, as soon as it has that line."""
    with trio.fail_after(30):
        while True:
            revision = (await service.get(ROOT, id)).revision
            lines = await log(service, id)
            if line in lines:
                return lines
            task = await service.wait(ROOT, id, after_revision=revision)
            assert not task.state.ended, task


def code(task: Task) -> str:
    assert task.error is not None
    return task.error.code


def alive(pid: int) -> bool:
    """It runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def dies(pid: int) -> None:
    """Wait until a process, not necessarily a child, has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with trio.fail_after(30):
            await trio.lowlevel.wait_readable(fd)
    finally:
        os.close(fd)


def reap(pid: int) -> None:
    os.waitpid(pid, 0)


def children() -> set[int]:
    """The children of this process, zombies too."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == os.getpid():
            found.add(int(path.parent.name))
    return found


# What the program gets.


async def test_the_environment_is_clean_and_what_is_passed_goes_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", "secret")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    async with serving(tmp_path) as service:
        plain = await perform(service, {"argv": ["env"]})
        env = {"LANG": "de_DE", "WITH SPACE": "a=b\nc", "TASKD_TASK": "another"}
        passed = await perform(service, {"argv": ["env"], "env": env})
        plain_log, passed_log = await log(service, plain.id), await log(service, passed.id)

    assert sorted(plain_log) == ["LANG=C.UTF-8", f"PATH={PATH}", f"TASKD_TASK={plain.id}"]
    expected = ["LANG=de_DE", f"PATH={PATH}", f"TASKD_TASK={passed.id}", "WITH SPACE=a=b", "c"]
    assert sorted(passed_log) == expected


async def test_it_starts_with_four_descriptors_and_no_signal_ignored_or_blocked(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        async with serving(tmp_path) as service:
            files = await perform(service, {"argv": ["ls", "/proc/self/fd"]})
            signals = await perform(service, {"argv": ["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"]})
            fds, masks = await log(service, files.id), await log(service, signals.id)
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    assert fds == ["0", "1", "2", "3", "4"]  # 4 is the folder that ls reads
    assert [line.split()[1] for line in masks] == ["0" * 16, "0" * 16]


async def test_its_folder_is_the_root_or_the_one_asked_for(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        root = await perform(service, {"argv": ["pwd"]})
        asked = await perform(service, {"argv": ["pwd"], "cwd": str(tmp_path)})

        assert await log(service, root.id) == ["/"]
        assert await log(service, asked.id) == [str(tmp_path)]


async def test_it_leads_a_session_of_its_own(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        task = await perform(service, sh("cut -d' ' -f1,5,6 /proc/$$/stat"))
        (line,) = await log(service, task.id)

    assert len(set(line.split())) == 1


@pytest.mark.parametrize("text", ["", "one\ntwo", "ü" * 300_000], ids=["empty", "short", "long"])
async def test_its_standard_input_is_the_text_and_then_ends(tmp_path: Path, text: str) -> None:
    async with serving(tmp_path) as service:
        task = await perform(service, {"argv": ["wc", "-c"], "stdin": text})

        assert await log(service, task.id) == [str(len(text.encode()))]


async def test_a_program_that_does_not_read_its_input_completes(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        task = await perform(service, {"argv": ["true"], "stdin": "x" * 1_000_000})

    assert task.state is State.COMPLETED


# What it says.


async def test_its_output_and_errors_are_the_log_in_the_order_written(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        task = await perform(service, sh("echo one; echo two >&2; echo; printf 'no end'"))

        assert await log(service, task.id) == ["one", "two", "", "no end"]


async def test_whatever_it_writes_the_log_is_harmless_text(tmp_path: Path) -> None:
    script = r"printf '\xff\xc3(\0\033[2J\x7f\xc2\x9b\ttab\r\n10%%\r20%%\n\xe2\x80'"
    async with serving(tmp_path) as service:
        task = await perform(service, sh(script))

        expected = ["\ufffd\ufffd(\\x00\\x1b[2J\\x7f\\x9b\ttab", "10%", "20%", "\ufffd"]
        assert await log(service, task.id) == expected


@given(text=st.text(st.sampled_from("aü€\n\r\t"), max_size=30), data=st.data())
def test_however_the_bytes_are_cut_the_lines_are_the_same(text: str, data: st.DataObject) -> None:
    content, cut = text.encode(), Lines()
    lines = []
    while content:
        size = data.draw(st.integers(1, len(content)))
        lines += cut.take(content[:size])
        content = content[size:]
    lines += cut.take(b"")

    expected = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert lines == (expected if expected[-1] else expected[:-1])


def test_a_line_that_does_not_end_is_kept_in_bounded_memory() -> None:
    lines = Lines()

    taken = [line for _ in range(100) for line in lines.take(b"x" * (CHUNK // 3))]

    assert taken
    assert max(map(len, taken)) < 2 * CHUNK
    assert sum(map(len, [*taken, *lines.take(b"")])) == 100 * (CHUNK // 3)


@attrs.define(eq=False)
class Recorder(MemoryStore):
    """Knows the largest batch of log lines that it was given, in characters."""

    largest: int = 0

    async def append_log(self, id: str, lines: list[LogLine], *, keep: int) -> None:  # type: ignore[override]  # narrower: a list
        self.largest = max(self.largest, sum(len(line.line) + 1 for line in lines))
        await MemoryStore.append_log(self, id, lines, keep=keep)


async def test_however_short_the_lines_are_others_have_their_turn_between_a_thousand() -> None:
    """Nobody waits here but for that: a sink may have nothing to wait for."""
    turns, handed = [0], list[tuple[int, int]]()

    async def others() -> None:
        while True:
            await trio.lowlevel.checkpoint()
            turns[0] += 1

    async def sink(*lines: str) -> None:
        handed.append((turns[0], len(lines)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        reader, writer = os.pipe()
        os.write(writer, b"\n" * CHUNK)
        os.close(writer)
        await _follow(reader, trio.Event(), sink)
        os.close(reader)
        nursery.cancel_scope.cancel()

    assert sum(count for _, count in handed) == CHUNK
    assert max(count for _, count in handed) <= 1000
    # In which order those go whose turn it is, is trio's affair.
    assert max(Counter(turn for turn, _ in handed).values()) <= 2


@given(count=st.integers(0, 12), begun=st.integers(0, 3), keep=st.integers(1, 12))
def test_of_more_lines_than_are_kept_the_newest_are_numbered_as_if_all_were(
    count: int, begun: int, keep: int
) -> None:
    live = Live(Task("1", "command", {}, "root", "taskd:", "here", now()), log_end=begun)

    new = numbered(live, map(str, range(begun, begun + count)), keep)

    assert [(line.n, line.line) for line in new] == [(n, str(n)) for n in range(begun, begun + count)][-keep:]
    assert live.log_end == begun + count


async def test_a_chatty_program_is_read_in_bounded_chunks_and_nothing_is_lost(tmp_path: Path) -> None:
    store = Recorder()
    async with serving(tmp_path, store) as service:
        task = await perform(service, {"argv": ["seq", "100000"]})
        lines = await service.log(ROOT, task.id, 0, 100_000)

    assert task.state is State.COMPLETED
    assert (lines[-1].n, lines[-1].line) == (99_999, "100000")
    assert all(line.n + 1 == int(line.line) for line in lines)
    assert store.largest <= CHUNK + 10


async def test_progress_on_descriptor_3_is_the_progress_of_the_task(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    async with serving(tmp_path) as service:
        id = await start(service, sh("echo progress 0.42 >&3; read < go", cwd=str(tmp_path)))
        task = await service.get(ROOT, id)
        with trio.fail_after(30):
            while task.progress.fraction == 0:
                task = await service.wait(ROOT, id, after_revision=task.revision)
        (tmp_path / "go").write_text("on\n")
        end = await ended(service, id)

    assert task.progress.fraction == 0.42
    assert end.progress.fraction == 1.0


async def test_what_is_no_progress_on_descriptor_3_is_shown_but_not_without_end(tmp_path: Path) -> None:
    strange = ["progress", "progress nan", "progress 1.5", "progress -1", "progress half", "x" * 10_000]
    script = "cat >&3; seq 1000 >&3; echo progress 0.5 >&3; exit 1"
    async with serving(tmp_path) as service:
        task = await perform(service, sh(script, stdin="\n".join(strange) + "\n"))
        lines = await log(service, task.id)

    assert task.progress.fraction == 0.5
    expected = [line[:200] for line in (*strange, "1", "2", "3", "4")]
    assert lines == [f"not understood on descriptor 3: {line}" for line in expected]


# How it ends.


async def test_exit_status_0_is_the_commit(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        task = await perform(service, {"argv": ["true"], "undo_argv": ["touch", str(tmp_path / "undone")]})

    assert (task.state, task.result) == (State.COMPLETED, {"exit_status": 0})
    assert task.label == "true"
    assert not (tmp_path / "undone").exists()


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ("exit 3", "exit status 3"),
        ("kill -SEGV $$", "signal SIGSEGV"),
        ("kill -40 $$", "signal 40"),
    ],
)
async def test_every_other_end_is_a_failure_that_says_how(tmp_path: Path, script: str, how: str) -> None:
    async with serving(tmp_path) as service:
        task = await perform(service, sh(f"echo before; {script}"))
        lines = await log(service, task.id)

    assert task.state is State.FAILED
    assert task.error is not None
    assert (task.error.code, task.error.data) == ("COMMAND_FAILED", ("bash", how))
    assert lines == ["before"]


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"argv": []}, "params.argv"),
        ({"argv": [""]}, "params.argv[0]"),
        ({"argv": ["bin/true"]}, "params.argv[0]"),
        ({"argv": ["true", "a\0b"]}, "params.argv[1]"),
        ({"argv": ["true"], "undo_argv": []}, "params.undo_argv"),
        ({"argv": ["true"], "undo_argv": ["true", "\0"]}, "params.undo_argv[1]"),
        ({"argv": ["true"], "env": {"A=B": "c"}}, "params.env['A=B']"),
        ({"argv": ["true"], "env": {"": "c"}}, "params.env['']"),
        ({"argv": ["true"], "env": {"A": "\0"}}, "params.env['A']"),
        ({"argv": ["true"], "cwd": "tmp"}, "params.cwd"),
        ({"argv": ["true"], "cwd": "/tmp\0"}, "params.cwd"),
        ({"argv": ["true"], "grace_s": -1}, "params.grace_s"),
        ({"argv": ["true"], "grace_s": 1e6}, "params.grace_s"),
    ],
)
def test_bad_params_are_refused_by_their_path(params: JSON, path: str) -> None:
    with pytest.raises(BadParams) as caught:
        command.check(codec.structure(params, command.CommandParams))

    assert caught.value.path == path


@pytest.mark.parametrize(
    ("params", "error"),
    [
        ({"argv": ["no-such-program"]}, CommandNotFound("no-such-program")),
        ({"argv": ["/no/such/program"]}, CommandNotFound("/no/such/program")),
        ({"argv": ["/etc"]}, CommandNotFound("/etc")),
        ({"argv": ["true"], "undo_argv": ["no-such-undo"]}, CommandNotFound("no-such-undo")),
        ({"argv": ["true"], "cwd": "/no/such"}, FolderMissing("/no/such")),
        ({"argv": ["true"], "cwd": "/etc/passwd"}, FolderMissing("/etc/passwd")),
    ],
)
def test_what_is_not_there_is_refused_before_a_task_is_made(params: JSON, error: Refusal) -> None:
    with pytest.raises(type(error)) as caught:
        command.check(codec.structure(params, command.CommandParams))

    assert caught.value.data == error.data


async def test_what_the_kernel_will_not_run_is_said_by_its_name(tmp_path: Path) -> None:
    def script(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
        return str(tmp_path / name)

    async with serving(tmp_path) as service:
        lost = await perform(service, {"argv": [script("lost", "#!/no/such/interpreter\n")]})
        junk = await perform(service, {"argv": [script("junk", "\1\2\3")]})
        long = await perform(service, {"argv": ["true", "x" * 200_000]})

    assert [code(task) for task in (lost, junk, long)] == ["COMMAND_NOT_FOUND", "ENOEXEC", "E2BIG"]


async def test_a_folder_that_is_gone_when_the_program_starts_is_missing(tmp_path: Path) -> None:
    """``check`` cannot see it: the folder goes between its look and the child's."""
    (tmp_path / "gone").mkdir()

    @attrs.define(eq=False)
    class Remover(MemoryStore):
        async def write(self, task: Task, *, expect: State, log: Sequence[LogLine] = (), keep: int = 0) -> None:
            if task.journal and (tmp_path / "gone").exists():
                (tmp_path / "gone").rmdir()
            await MemoryStore.write(self, task, expect=expect, log=log, keep=keep)

    async with serving(tmp_path, Remover()) as service:
        task = await perform(service, {"argv": ["true"], "cwd": str(tmp_path / "gone")})

    assert code(task) == "FOLDER_MISSING"


# Before it acts.


@attrs.define(eq=False)
class Gate(MemoryStore):
    """A store that keeps the pid of the program waiting for its disk."""

    pid: int = 0
    reached: trio.Event = attrs.field(factory=trio.Event)
    opened: trio.Event = attrs.field(factory=trio.Event)

    async def write(self, task: Task, *, expect: State, log: Sequence[LogLine] = (), keep: int = 0) -> None:
        kills = [step for step in task.journal if step.verb == "kill"]
        if kills and not self.reached.is_set():
            pid = kills[0].args["pid"]
            assert isinstance(pid, int)
            self.pid = pid
            self.reached.set()
            await self.opened.wait()
        await MemoryStore.write(self, task, expect=expect, log=log, keep=keep)


def waits(pid: int) -> bool:
    """The launcher has loaded all it needs, and sleeps."""
    try:
        loaded = "_ctypes" in Path(f"/proc/{pid}/maps").read_text()
        return loaded and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_it_does_not_act_before_its_pid_is_on_disk(tmp_path: Path) -> None:
    store, made = Gate(), tmp_path / "made"
    async with serving(tmp_path, store) as service:
        id = await start(service, {"argv": ["touch", str(made)]})
        await store.reached.wait()
        with trio.fail_after(30):
            while alive(store.pid) and not waits(store.pid):
                await trio.lowlevel.checkpoint()
        acted_before = made.exists()
        store.opened.set()
        task = await ended(service, id)

    assert not acted_before
    assert made.exists()
    assert task.state is State.COMPLETED


@contextmanager
def launcher(parent: int, made: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The child's side alone, ordered to touch ``made``, and the pipe that it waits at."""
    touch = b"/usr/bin/touch\0/\0" + b"2\0touch\0" + os.fsencode(made)
    go_read, go = os.pipe()
    with open(os.devnull, "wb") as null, open(os.memfd_create("order"), "w+b") as order:
        order.write(touch)
        order.flush()
        fds = (go_read, null.fileno(), order.fileno(), null.fileno())
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", launch.__file__, str(parent), *map(str, fds)], pass_fds=set(fds)
        )
    os.close(go_read)
    try:
        yield child, go
    finally:
        child.kill()
        child.wait()


def test_a_launcher_whose_daemon_dies_before_the_go_ahead_does_nothing(tmp_path: Path) -> None:
    with launcher(os.getpid(), tmp_path / "made") as (child, go):
        os.close(go)
        child.wait(30)

    assert not (tmp_path / "made").exists()


def test_a_launcher_that_lost_its_parent_before_it_could_notice_does_nothing(tmp_path: Path) -> None:
    with launcher(1, tmp_path / "made") as (child, go):
        os.write(go, b"!")
        child.wait(30)
        os.close(go)

    assert not (tmp_path / "made").exists()


def test_a_launcher_with_the_go_ahead_of_its_parent_acts(tmp_path: Path) -> None:
    """Without this one the two above would prove nothing."""
    with launcher(os.getpid(), tmp_path / "made") as (child, go):
        os.write(go, b"!")
        child.wait(30)
        os.close(go)

    assert (tmp_path / "made").exists()


# Cancel.


async def test_cancelled_it_is_asked_to_end_and_may_say_goodbye(tmp_path: Path) -> None:
    script = "trap 'seq 20000; echo bye; exit 0' TERM; echo ready; sleep 1000 & wait"
    async with serving(tmp_path) as service:
        id = await start(service, sh(script, grace_s=60))
        await said(service, id, "ready")
        await service.cancel(ROOT, id)
        task = await ended(service, id)
        lines = await log(service, id)

    assert task.state is State.CANCELLED
    assert lines[-2:] == ["20000", "bye"]


async def test_who_ignores_the_asking_is_killed_after_the_grace_with_all_that_it_started(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as service:
        id = await start(service, sh(STUBBORN, grace_s=0.2))
        pids = [int(line) for line in await said(service, id, "ready") if line.isdigit()]
        assert all(map(alive, pids))
        asked = trio.current_time()
        await service.cancel(ROOT, id)
        task = await ended(service, id)
        took = trio.current_time() - asked

    assert task.state is State.CANCELLED
    assert len(pids) == 3
    assert not any(map(alive, pids))
    assert took >= 0.2


async def test_what_it_leaves_behind_is_dead_before_the_commit(tmp_path: Path) -> None:
    """It holds the output open, too: the task does not wait for that."""

    @attrs.define(eq=False)
    class Witness(MemoryStore):
        at_commit: list[bool] = attrs.field(factory=list)

        async def write(self, task: Task, *, expect: State, log: Sequence[LogLine] = (), keep: int = 0) -> None:
            if task.state is State.COMPLETED:
                self.at_commit += [alive(int(line.line)) for line in await self.log(task.id, 0, 1)]
            await MemoryStore.write(self, task, expect=expect, log=log, keep=keep)

    store = Witness()
    async with serving(tmp_path, store) as service:
        task = await perform(service, sh("trap '' TERM; sleep 1000 & echo $!"))

    assert task.state is State.COMPLETED
    assert store.at_commit == [False]


async def test_who_leaves_the_session_stays_and_holds_nothing_up(tmp_path: Path) -> None:
    """A daemon that writes to the inherited output for ever; that it lives is the wish of who started it."""
    script = "setsid sh -c 'echo $$ > pid; echo up; exec yes' & while [ ! -s pid ]; do :; done; cat pid"
    async with serving(tmp_path) as service:
        task = await perform(service, sh(script, cwd=str(tmp_path)))
        pid = int((tmp_path / "pid").read_text())
        # With nobody to read its output, it ends by itself soon after the task.
        await dies(pid)

    assert task.state is State.COMPLETED


# Undo.


async def test_the_undo_runs_after_a_failure_when_all_is_dead(tmp_path: Path) -> None:
    undo = "while read pid; do grep State /proc/$pid/status; done < pids > states; env | grep TASKD > env; true"
    script = "trap '' TERM; sleep 1000 & echo $! > pids; echo $$ >> pids; exit 3"
    async with serving(tmp_path) as service:
        params = sh(script, undo_argv=["bash", "-c", undo], cwd=str(tmp_path))
        task = await perform(service, params)

    assert (task.state, code(task), task.residue) == (State.FAILED, "COMMAND_FAILED", ())
    # "State: Z (zombie)", and in the moment in which it is reaped "X (dead)".
    assert all(line.split()[1] in ("Z", "X") for line in (tmp_path / "states").read_text().splitlines())
    expected = [f"TASKD_TASK={task.id}", "TASKD_UNDO=1"]
    assert sorted((tmp_path / "env").read_text().split()) == expected


async def test_the_undo_runs_after_a_cancel(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        params = sh("touch made; echo ready; sleep 1000", undo_argv=["rm", "-f", "made"], cwd=str(tmp_path))
        id = await start(service, params)
        await said(service, id, "ready")
        assert (tmp_path / "made").exists()
        await service.cancel(ROOT, id)
        task = await ended(service, id)

    assert task.state is State.CANCELLED
    assert not (tmp_path / "made").exists()


async def test_an_undo_that_fails_is_residue_until_it_succeeds(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        params = sh("exit 3", undo_argv=["test", "-e", "possible"], cwd=str(tmp_path))
        task = await perform(service, params)
        (tmp_path / "possible").touch()
        recovered = await service.recover(ROOT, task.id)

    assert (task.state, code(task)) == (State.FAILED, "UNDO_FAILED")
    assert [(left.verb, left.reason) for left in task.residue] == [("run_undo", "test ended with exit status 1")]
    assert recovered.residue == ()


async def test_an_undo_that_does_not_end_is_killed_when_its_time_is_up(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    """The clock goes on by itself, so that the kill has its pauses; the undo's time passes when it runs."""
    mock_clock.rate = 1
    os.mkfifo(tmp_path / "pids")
    argv = ["bash", "-c", f"trap '' TERM; sleep 1000 & echo $$ $! > {tmp_path}/pids; wait"]

    async def undo() -> None:
        with pytest.raises(CommandFailed, match=r"SIGKILL, because it was not done within 3600 seconds"):
            await RUN_UNDO(argv=argv, env={}, cwd=None, task="t", timeout_s=3600.0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(undo)
        pids = (await trio.to_thread.run_sync((tmp_path / "pids").read_text)).split()
        assert all(alive(int(pid)) for pid in pids)
        mock_clock.jump(3600)

    assert len(pids) == 2
    assert not any(alive(int(pid)) for pid in pids)


async def test_a_stop_kills_a_running_undo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    argv = ["bash", "-c", f"trap '' TERM; echo $$ > {tmp_path}/pid; sleep 1000"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: RUN_UNDO(argv=argv, env={}, cwd=None, task="t", timeout_s=1000.0))
        pid = int(await trio.to_thread.run_sync((tmp_path / "pid").read_text))
        nursery.cancel_scope.cancel()

    assert not alive(pid)


# Stop, crash and recovery.


async def test_no_child_outlives_a_stop_and_the_next_start_undoes(tmp_path: Path) -> None:
    store = MemoryStore()
    async with serving(tmp_path, store) as service:
        params = sh(STUBBORN, grace_s=0.1, undo_argv=["touch", str(tmp_path / "undone")])
        id = await start(service, params)
        pids = [int(line) for line in await said(service, id, "ready") if line.isdigit()]
    assert not any(map(alive, pids))
    assert not (tmp_path / "undone").exists()

    async with serving(tmp_path, store) as service:
        task = await ended(service, id)

    assert (task.state, code(task)) == (State.FAILED, "INTERRUPTED")
    assert (tmp_path / "undone").exists()


def live_until_killed(folder: str) -> None:
    """A daemon for the test below: runs a program that does not end, and leaves its store in a file."""

    async def main() -> None:
        store = MemoryStore()
        async with serving(Path(folder), store) as service:
            id = await start(service, sh(STUBBORN, undo_argv=["touch", f"{folder}/undone"]))
            await said(service, id, "ready")
            Path(folder, "store").write_bytes(pickle.dumps(store.photograph()))
            print("ready", flush=True)
            await trio.sleep_forever()

    trio.run(main)


def killed(folder: Path) -> MemoryStore:
    """What such a daemon, killed with SIGKILL, leaves in its store."""
    source = f"from {__name__} import live_until_killed; live_until_killed({str(folder)!r})"
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, cwd=root) as daemon:
        assert daemon.stdout is not None
        ready = daemon.stdout.readline()
        daemon.kill()
    assert ready == b"ready\n"
    store = pickle.loads((folder / "store").read_bytes())
    assert isinstance(store, MemoryStore)
    return store


async def test_after_kill_9_the_program_is_dead_and_recovery_kills_the_rest_before_it_undoes(
    tmp_path: Path,
) -> None:
    store = killed(tmp_path)
    (found,) = await store.open_tasks()
    near, far, leader = (int(line.line) for line in await store.log(found.id, 0, 3))
    try:
        await dies(leader)
        assert alive(near)
        assert alive(far)

        async with serving(tmp_path, store) as service:
            dead_at_start = not alive(near) and not alive(far)
            task = await ended(service, found.id)
    finally:
        for pid in filter(alive, (near, far)):
            os.kill(pid, signal.SIGKILL)

    assert dead_at_start
    assert (task.state, code(task)) == (State.FAILED, "INTERRUPTED")
    assert (tmp_path / "undone").exists()


@contextmanager
def stranger(script: str, **env: str) -> Iterator[int]:
    """A session that is none of ours, led by bash; the pid of its leader."""
    read, write = os.pipe()
    process = subprocess.Popen(
        ["bash", "-c", script], start_new_session=True, env={"PATH": PATH, **env}, stdout=write
    )
    os.close(write)
    with open(read) as ready:
        assert ready.readline() == "ready\n"
    try:
        yield process.pid
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


async def test_kill_spares_whoever_got_the_number_of_a_dead_program() -> None:
    with stranger("echo ready; exec sleep 1000", TASKD_TASK="t") as pid:
        session = Session.of(pid, "t")

        await KILL(**attrs.asdict(attrs.evolve(session, start_time=session.start_time - 1)))
        await KILL(**attrs.asdict(attrs.evolve(session, boot_id="another")))
        spared = alive(pid)
        await KILL(**attrs.asdict(session))

        assert spared
        assert not alive(pid)


@contextmanager
def orphan(folder: Path, prefix: str = "", **env: str) -> Iterator[tuple[int, Session]]:
    """A process, started by way of ``prefix``, whose session has lost its leader; and that session."""
    script = f"{prefix} sleep 1000 > /dev/null & echo $! > {folder}/pid; echo ready; exit 0"
    with stranger(script, **env) as pid:
        session = Session.of(pid, "t")
        reap(pid)
        yield int((folder / "pid").read_text()), session


@pytest.mark.parametrize(("mark", "spared"), [("t", False), ("another", True)])
async def test_kill_without_a_leader_ends_only_a_session_that_carries_the_task(
    tmp_path: Path, mark: str, spared: bool
) -> None:
    """Where the kernel has no autogroups, or the step was journaled by a taskd that asked for none."""
    with orphan(tmp_path, TASKD_TASK=mark) as (pid, session):
        await KILL(**attrs.asdict(attrs.evolve(session, autogroup="")))

        assert alive(pid) is spared


@pytest.mark.parametrize(("autogroup", "spared"), [(None, False), ("/autogroup-0", True)])
async def test_kill_without_a_leader_knows_a_session_by_its_autogroup(
    tmp_path: Path, autogroup: str | None, spared: bool
) -> None:
    with orphan(tmp_path, "env -i") as (pid, session):
        if not session.autogroup:
            pytest.skip("this kernel has no autogroups")
        await KILL(**attrs.asdict(attrs.evolve(session, autogroup=autogroup or session.autogroup)))

        assert alive(pid) is spared


async def test_kill_neither_ends_nor_calls_gone_what_may_be_the_tasks(tmp_path: Path) -> None:
    with orphan(tmp_path, "env -i") as (pid, session):
        with pytest.raises(Unproven, match=f"/proc/{pid} is left alone"):
            await KILL(**attrs.asdict(attrs.evolve(session, autogroup="")))

        assert alive(pid)


async def test_beside_what_may_be_the_tasks_no_undo_runs_until_it_has_ended(tmp_path: Path) -> None:
    store, undone = MemoryStore(), tmp_path / "undone"
    async with serving(tmp_path, store) as service:
        id = await start(service, sh("echo ready; sleep 1000", grace_s=0, undo_argv=["touch", str(undone)]))
        await said(service, id, "ready")
    (found,) = await store.open_tasks()
    with orphan(tmp_path, "env -i") as (pid, session):
        args = attrs.asdict(attrs.evolve(session, autogroup=""))
        journal = tuple(attrs.evolve(step, args=args) if step.verb == "kill" else step for step in found.journal)
        await store.write(attrs.evolve(found, journal=journal), expect=found.state)

        async with serving(tmp_path, store) as service:
            task = await ended(service, id)
            assert (code(task), [left.verb for left in task.residue]) == ("UNDO_FAILED", ["kill", "run_undo"])
            assert not undone.exists()

            os.kill(pid, signal.SIGKILL)
            await dies(pid)
            recovered = await service.recover(ROOT, id)

    assert recovered.residue == ()
    assert undone.exists()


async def test_kill_twice_is_kill_once() -> None:
    with stranger("sleep 1000 & echo ready; wait") as pid:
        session = Session.of(pid, "t")

        await KILL(**attrs.asdict(session))
        await KILL(**attrs.asdict(session))

        assert not alive(pid)


async def test_however_it_ends_no_zombie_and_no_descriptor_is_left(tmp_path: Path) -> None:
    async with serving(tmp_path) as service:
        await perform(service, {"argv": ["true"]})  # opens what is opened once
        fds, before = descriptors(), children()
        for params in (
            {"argv": ["true"]},
            sh("exit 1", undo_argv=["true"]),
            sh("sleep 1000 & exit 0"),
            {"argv": ["true", "x" * 200_000], "stdin": "some"},
        ):
            await perform(service, params)
        for n in range(3):
            id = await start(service, sh("echo ready; sleep 1000", grace_s=n / 10))
            await said(service, id, "ready")
            await service.cancel(ROOT, id)
            await ended(service, id)

        assert children() <= before
        assert descriptors() <= fds
