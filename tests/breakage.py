"""Copies of the package that are broken on purpose, and programs that run in them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.proof import Outcome, Verdict

ROOT: Final = Path(__file__).parents[1]

# Seconds in which a program that is told to end cleans up: its daemons, its mounts.
GRACE: Final = 20


@contextmanager
def copied() -> Iterator[Path]:
    """All that tests need, in a folder that is gone with the context."""
    with tempfile.TemporaryDirectory(prefix="taskd-broken-") as folder:
        for name in ("taskd", "tests", "examples", "systemd"):
            shutil.copytree(ROOT / name, Path(folder, name), ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "setup.cfg", "README.rst"):
            shutil.copy(ROOT / name, folder)
        yield Path(folder)


def run(folder: Path, *arguments: str, limit_s: float) -> subprocess.CompletedProcess[str]:
    """``python -m`` with these arguments, in a copy. Nothing of it is alive afterwards, also where its time is up,
    or where we are interrupted.

    Raises:
        subprocess.TimeoutExpired: it did not end within ``limit_s`` seconds.
    """
    command = [sys.executable, "-m", *arguments]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "1000"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, complained = process.communicate(timeout=limit_s)
        except BaseException:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=GRACE)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, said, complained)


def noticed(name: str, notice: Callable[[], str | None]) -> Outcome:
    """For the table of the proof: whether somebody notices that the law was broken."""
    try:
        who = notice()
    except Exception as error:
        return Outcome(Verdict.WRONG, what=f"{name}: {error!r}")
    return Outcome(Verdict.CAUGHT) if who is not None else Outcome(Verdict.WRONG, what=f"nobody notices: {name}")
