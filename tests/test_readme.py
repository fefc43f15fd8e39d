"""README.rst is true: its sessions run as they stand, its tables are the code's, it renders without a warning."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import readme
from tests.process import PATIENCE, DaemonProcess
from tests.terminal import pieces

TEXT = readme.README.read_text()

BIN = Path(sys.executable).parent

missing = [name for name in ("bash", "nc", "jq", "curl") if shutil.which(name) is None]


def block(after: int) -> str:
    """The body of the code block that follows this place."""
    match = re.compile(r"\.\. code-block:: \w+\n\n((?:    .*\n|\n)+)").search(TEXT, after)
    assert match is not None
    return re.sub(r"^    ", "", match[1], flags=re.MULTILINE).strip("\n") + "\n"


def sessions() -> list[str]:
    return [block(match.end()) for match in re.finditer(r"^\.\. session$", TEXT, re.MULTILINE)]


def masked(output: str) -> str:
    """What differs from one run to the next, made the same."""
    for pattern, mask in (
        (r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
        (r"^[0-9a-f]{8}  ", "ID        "),
        (r'"ctime":\d+\.\d+', '"ctime":T'),
        (r'"Pending",0\.\d+', '"Pending",F'),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d", "DATE"),
        (r"in \d+\.\d s( \([^)]*\))?", "in S"),
    ):
        output = re.sub(pattern, mask, output, flags=re.MULTILINE)
    return output


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(tmp_path)
    daemon.start()
    yield daemon
    daemon.end()


@pytest.mark.skipif(bool(missing), reason=f"not here: {missing}")
def test_the_sessions_run_as_they_stand(daemon: DaemonProcess, tmp_path: Path) -> None:
    """One shell runs the commands of all sessions, one after the other; what each prints is compared."""
    work = tmp_path / "work"
    work.mkdir()
    text = "".join(sessions()).replace("/tmp/demo", str(work))
    asked = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE)
    assert len(asked) > 10
    end = "-- end of the answer --"
    script = "".join(f"{command}\necho '{end}'\n" for command, _ in asked)
    shell = subprocess.run(
        ["bash", "-c", f"exec 2>&1\n{script}"],
        cwd=work,
        capture_output=True,
        text=True,
        timeout=5 * PATIENCE,
        env=os.environ
        | {"TASKD_SOCKET": daemon.socket, "PATH": f"{BIN}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"},
        check=False,
    )
    answers = shell.stdout.split(end + "\n")
    assert answers.pop() == ""
    for (command, expected), answer in zip(asked, answers, strict=True):
        assert (command, masked(answer)) == (command, masked(expected))


def test_the_python_session_runs_as_it_stands(daemon: DaemonProcess, tmp_path: Path) -> None:
    place = TEXT.index(".. session python")
    code, expected = block(place), block(TEXT.index(".. code-block:: text", place))
    (tmp_path / "disk.img").write_bytes(b"".join(b"%d\n" % number for number in range(1, 100_001)))
    code = code.replace("/tmp/demo/taskd.sock", daemon.socket).replace("/tmp/demo", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
    )

    assert (done.stdout, done.stderr) == (expected, "")


def test_the_tables_are_the_codes() -> None:
    assert readme.current(TEXT) == TEXT, "run: python -m tests.readme"
    assert readme.PROOF.read_text() == readme.proof_page(), "run: python -m tests.readme"


def test_the_plot_has_every_curve_that_was_measured() -> None:
    assert readme.PLOT.read_text() == readme.plot(), "run: python -m tests.readme"


PAGES = [readme.README, readme.PROOF, *sorted((readme.README.parent / "examples").rglob("*.rst"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(readme.README.parent)))
def test_a_page_renders_without_a_warning(page: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "docutils", "--report=1", "--halt=5", str(page), os.devnull],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_the_files_that_it_names_are_there() -> None:
    for name in re.findall(r"``((?:examples|tests|taskd)/[\w/.]+)``", TEXT):
        assert (readme.README.parent / name).exists(), name


@pytest.mark.skipif(
    shutil.which("mke2fs", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None, reason="no mke2fs"
)
def test_the_recording_is_what_the_quickstart_shows_on_a_terminal(tmp_path: Path) -> None:
    """Each of its lines was seen, in their order, bars as they were for a moment."""
    for name in ("LICENSE", "README.rst", "setup.cfg", "examples"):
        (tmp_path / name).symlink_to(readme.README.parent / name)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(BIN)
    (tmp_path / ".venv" / "installed").touch()  # so examples/install.sh has nothing to do
    env = os.environ | {"TERM": "xterm-256color", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}

    with tempfile.TemporaryDirectory(prefix="taskd-") as short:  # a socket's path may not be long
        command = ["sh", str(tmp_path / "examples/quickstart.sh")]
        shown = "".join(pieces(command, env | {"TMPDIR": short}, 80, limit_s=4 * PATIENCE))

    seen = iter(quick(line) for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", shown)))
    recorded = block(TEXT.index(".. recording")).splitlines()
    assert recorded.pop(0) == "$ sh examples/quickstart.sh"
    for line in filter(None, recorded):
        assert quick(line) in seen, f"{line}\n--- is not where it should be in:\n{shown}"


def quick(line: str) -> str:
    """A line of the quickstart without what is another one each time."""
    line = re.sub(r"[━╸╺ ]+\d+ %  [\d.]+ MiB of 64\.0 MiB  [\d.]+ MiB/s  [\d.]+ s left", " BAR", line)
    return masked(re.sub(r"process \d+|\d+ %  ", "N ", line)).rstrip()
