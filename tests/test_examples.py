"""The examples run as they stand, against a real daemon, and print what is expected of them.

``test_example_operation``, ``test_example_watch``, ``test_example_sessions`` and ``test_example_collector``
have those that need more.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from taskd.client import Daemon
from tests.process import PATIENCE, DaemonProcess
from tests.storage_script import BackendError, Plugin, taken

EXAMPLES = Path(__file__).parent.parent / "examples"

needs_shell = pytest.mark.skipif(
    bool(missing := [name for name in ("nc", "jq", "curl") if shutil.which(name) is None]),
    reason=f"not here: {missing}",
)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """It runs one task at a time."""
    daemon = DaemonProcess(tmp_path_factory.mktemp("d"), settings={"running_tasks": "1"})
    daemon.start()
    yield daemon
    daemon.end()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with two images, and one for copies."""
    (tmp_path / "one.img").write_bytes(b"one" * 1_000_000)
    (tmp_path / "two.img").write_bytes(b"two" * 1_000_000)
    (tmp_path / "copies").mkdir()
    return tmp_path


@pytest.fixture
def busy(daemon: DaemonProcess) -> Iterator[Daemon]:
    """The daemon has something else to do: whatever is started waits in the line."""
    with daemon.connect() as other:
        task = other.start("command", {"argv": ["sleep", "600"]})
        while task.state != "running":
            task = other.wait(task.id, PATIENCE, task.revision)
        yield other
        other.cancel(task.id)
        other.wait(task.id)


def started(daemon: DaemonProcess, work: Path, *argv: str) -> subprocess.Popen[str]:
    """``argv`` is an example's name and its arguments."""
    interpreter = sys.executable if argv[0].endswith(".py") else "sh"
    return subprocess.Popen(
        # In the background of a shell SIGINT is ignored, and whoever is started from there ignores it too.
        ["env", "--default-signal=INT", interpreter, EXAMPLES / argv[0], *argv[1:]],
        cwd=work,
        env=os.environ | {"TASKD_SOCKET": daemon.socket},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()  # where it has not ended by itself
    return process.returncode, out, err


def run(daemon: DaemonProcess, work: Path, *argv: str) -> tuple[int, str, str]:
    return ended(started(daemon, work, *argv))


def waits(daemon: Daemon, label: str) -> None:
    """Return when a task of that label waits in the line."""
    with daemon.watch() as events:
        for event in events:
            if getattr(event, "record", None) and event.record.label == label:  # type: ignore[union-attr]  # just asked
                return


def test_a_blocking_script_copies_what_is_not_there_yet(daemon: DaemonProcess, work: Path) -> None:
    assert run(daemon, work, "backup.py", "one.img", "copies") == (0, "one.img: 3000000 bytes, verified\n", "")

    code, out, err = run(daemon, work, "backup.py", "one.img", "none.img", "two.img", "copies")

    assert (code, err) == (1, "")
    assert out.splitlines() == [
        "one.img: there already",
        f"none.img: {work}/none.img does not exist",
        "two.img: 3000000 bytes, verified",
    ]
    assert (work / "copies" / "two.img").read_bytes() == (work / "two.img").read_bytes()


def test_a_ctrl_c_in_a_blocking_script_leaves_no_copy(daemon: DaemonProcess, work: Path, busy: Daemon) -> None:
    process = started(daemon, work, "backup.py", "two.img", "copies")
    waits(busy, "backup of two.img")
    process.send_signal(signal.SIGINT)

    code, out, err = ended(process)

    assert (code, out) == (-signal.SIGINT, "")
    assert err.endswith("KeyboardInterrupt\n")
    assert next(busy.list(label="backup of two.img")).state == "cancelled"
    assert os.listdir(work / "copies") == []


def test_a_trio_script_shows_progress_of_copies_side_by_side(daemon: DaemonProcess, work: Path) -> None:
    code, out, err = run(daemon, work, "progress.py", "one.img", "two.img", "copies")

    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert all(re.fullmatch(r"(one|two)\.img: [a-z]+ \d+%(, \d+ s left)?", line) for line in lines), out
    for image in ("one.img", "two.img"):
        assert [line for line in lines if line.startswith(image)][-1] == f"{image}: completed 100%"
        assert (work / "copies" / image).read_bytes() == (work / image).read_bytes()


def test_when_one_copy_of_a_trio_script_fails_the_others_are_cancelled(
    daemon: DaemonProcess, work: Path, busy: Daemon
) -> None:
    (work / "copies" / "two.img").touch()

    code, out, err = run(daemon, work, "progress.py", "one.img", "two.img", "copies")

    assert (code, err) == (1, f"{work}/copies/two.img exists; with overwrite=true it is replaced\n")
    assert "completed" not in out
    assert os.listdir(work / "copies") == ["two.img"]
    assert all(each.state == "cancelled" for each in busy.list(label="one.img", states=["queued", "cancelled"]))


@pytest.mark.parametrize(
    ("example", "usage"),
    [
        ("backup.py", "backup.py IMAGE... FOLDER"),
        ("progress.py", "progress.py IMAGE... FOLDER"),
        ("shell.sh", "shell.sh IMAGE TARGET"),
    ],
)
def test_who_calls_an_example_wrongly_is_told_how(
    daemon: DaemonProcess, work: Path, example: str, usage: str
) -> None:
    code, out, err = run(daemon, work, example)

    assert code > 0
    assert usage in err
    assert (out, "Traceback" in err) == ("", False)


@needs_shell
def test_the_shell_copies_and_shows_how_far_it_is(daemon: DaemonProcess, work: Path) -> None:
    code, out, err = run(daemon, work, "shell.sh", "one.img", "copies/one.img")

    assert (code, err) == (0, "")
    assert out.splitlines()[-2:] == ["completed 100 %", "3000000 bytes"]
    assert (work / "copies" / "one.img").read_bytes() == (work / "one.img").read_bytes()
    again = run(daemon, work, "shell.sh", "one.img", "copies/one.img")
    assert again == (1, "", f"Target_exists: {work}/copies/one.img\n")


@needs_shell
def test_a_shell_script_whose_daemon_is_not_there_says_so(tmp_path: Path, work: Path) -> None:
    """It said nothing and ended well: a backup was believed in that had never begun."""
    code, out, err = run(DaemonProcess(tmp_path), work, "shell.sh", "one.img", "copies/one.img")

    assert (code, out) == (1, "")
    assert err.endswith(f"no daemon answers on {tmp_path}/s\n")


@needs_shell
def test_a_shell_script_whose_daemon_dies_says_so(tmp_path: Path, work: Path) -> None:
    daemon = DaemonProcess(tmp_path, settings={"running_tasks": "1"})
    daemon.start()
    try:
        with daemon.connect() as other:
            other.start("command", {"argv": ["sleep", "600"]})
            process = started(daemon, work, "shell.sh", "two.img", "copies/two.img")
            waits(other, "from the shell")
        daemon.kill()
        code, _, err = ended(process)
        copies = os.listdir(work / "copies")
        daemon.start()  # it ends what the command left running
    finally:
        daemon.end()

    assert (code, err.splitlines()[-1:], copies) == (1, [f"no daemon answers on {tmp_path}/s"], [])


@needs_shell
def test_a_shell_script_whose_copy_is_cancelled_says_so(daemon: DaemonProcess, work: Path, busy: Daemon) -> None:
    process = started(daemon, work, "shell.sh", "two.img", "copies/cancelled.img")
    waits(busy, "from the shell")
    busy.cancel(next(busy.list(label="from the shell", states=["queued"])).id)

    code, out, err = ended(process)

    assert (code, out.splitlines()[-1:], err) == (1, ["cancelled 0 %"], "cancelled\n")


@needs_shell
def test_counting_to_three_is_seen_by_the_user(daemon: DaemonProcess, work: Path) -> None:
    code, out, err = run(daemon, work, "counting.sh")

    assert (code, err) == (0, "")
    assert out.splitlines() == [
        *["We are counting to 3: counting, complete: false"] * 3,
        "We are counting to 3: counting, complete: true",
    ]
    with daemon.connect() as user:
        [task] = user.list(label="We are counting to 3")
        assert [line.line for line in user.log(task.id).lines] == [f"Count is now {n}\n" for n in (1, 2, 3)]
        assert (task.progress.done, task.progress.total) == (3, 3)


# The storage plugin, run as xapi-storage-script runs it.


@pytest.fixture
def plugin(daemon: DaemonProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    """The folder of scripts, made as its docstring says, and a ``python3`` that has taskd."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    folder = tmp_path / "volume" / "example"
    folder.mkdir(parents=True)
    shutil.copy(EXAMPLES / "volume.py", folder)
    text = (EXAMPLES / "volume.py").read_text()
    made = re.search(r"^    (for method in .*)$", text, re.MULTILINE)
    assert made is not None
    subprocess.run(["sh", "-c", made[1]], cwd=folder, check=True)
    return Plugin(folder, daemon.socket)


@pytest.fixture
def sr(tmp_path: Path) -> Path:
    (tmp_path / "sr").mkdir()
    (tmp_path / "sr" / "golden.raw").write_bytes(b"golden" * 100_000)
    return tmp_path / "sr"


def test_a_storage_plugin_clones_a_volume_in_taskd(plugin: Plugin, daemon: DaemonProcess, sr: Path) -> None:
    assert plugin("Plugin.query", dbg="register")["required_api_version"] == "5.0"  # type: ignore[index]  # an object

    made = plugin("Volume.clone", dbg="VM.clone R:1", sr=str(sr), key="golden.raw")

    assert isinstance(made, dict)
    assert (sr / made["key"]).read_bytes() == (sr / "golden.raw").read_bytes()
    assert made["uri"] == [f"raw+file://{sr}/{made['key']}"]
    assert plugin("Volume.stat", dbg="", sr=str(sr), key=made["key"]) == made
    with daemon.connect() as admin:
        task, *_ = admin.list(label="Volume.clone golden.raw")  # the newest first
        assert (task.state, task.debug_info) == ("completed", "VM.clone R:1")
    assert plugin("Volume.destroy", dbg="", sr=str(sr), key="golden.raw") is None
    assert plugin("SR.ls", dbg="", sr=str(sr)) == [made]


def test_what_a_storage_plugin_cannot_do_it_says_as_xapi_reads_it(plugin: Plugin, sr: Path) -> None:
    with pytest.raises(BackendError) as caught:
        plugin("Volume.clone", dbg="", sr=str(sr), key="none.raw")

    assert (caught.value.code, caught.value.params) == (
        "SR_BACKEND_FAILURE",
        ["SourceMissing", f"{sr}/none.raw does not exist"],
    )


def test_a_storage_script_that_is_told_to_end_leaves_no_volume(plugin: Plugin, sr: Path, busy: Daemon) -> None:
    process = cloning(plugin, sr, [plugin.find("Volume.clone"), "--json"])
    waits(busy, "Volume.clone golden.raw")
    process.terminate()

    status, out, _ = ended(process)

    with pytest.raises(BackendError) as caught:
        taken(status, out)
    assert caught.value.params == ["Ended", "by SIGTERM"]
    assert os.listdir(sr) == ["golden.raw"]


# Runs the script that is named; a SIGTERM comes while it reads the first time in a reply.
TOLD_WHILE_IT_READS = """
import os, runpy, signal, sys
from taskd import codec

read = codec.parse_time

def told(text):
    codec.parse_time = read
    os.kill(os.getpid(), signal.SIGTERM)
    return read(text)

codec.parse_time = told
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def test_a_storage_script_that_is_told_to_end_while_it_reads_a_reply_leaves_no_volume(
    plugin: Plugin, sr: Path, busy: Daemon
) -> None:
    """It was taken for a fault of the reply, and the script waited on."""
    script = [sys.executable, "-c", TOLD_WHILE_IT_READS, str(plugin.find("Volume.clone"))]

    status, out, _ = ended(cloning(plugin, sr, script))

    with pytest.raises(BackendError) as caught:
        taken(status, out)
    assert caught.value.params == ["Ended", "by SIGTERM"]
    assert os.listdir(sr) == ["golden.raw"]


def cloning(plugin: Plugin, sr: Path, script: Sequence[str | Path]) -> subprocess.Popen[str]:
    """A clone of the golden volume has been asked of it."""
    process = subprocess.Popen(
        script,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TASKD_SOCKET": plugin.socket},
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"dbg": "", "sr": str(sr), "key": "golden.raw"}))
    process.stdin.close()
    process.stdin = None
    return process


# What is there, and what is said of it.


def test_every_example_is_told_of_in_their_readme() -> None:
    told = set(re.findall(r"``(\w[\w./-]*)``", (EXAMPLES / "README.rst").read_text()))
    there = {path.name + "/" * path.is_dir() for path in EXAMPLES.iterdir()} - {"README.rst"}
    there |= {f"sessions/{path.name}" for path in (EXAMPLES / "sessions").iterdir()}

    assert there <= told
    for name in told:
        if "/" in name or name.endswith((".py", ".sh", ".txt")):
            assert (EXAMPLES / name).exists(), name
