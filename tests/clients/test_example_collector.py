"""``examples/collector.py``: the storage garbage collector's way of reporting, and what it adds, works."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.process import PATIENCE, DaemonProcess

SCRIPT = Path(__file__).parents[2] / "examples" / "collector.py"


@pytest.fixture(scope="module")
def collector() -> ModuleType:
    spec = importlib.util.spec_from_file_location("collector", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("1.garbage", "2.garbage", "3.garbage", "kept"):
        (tmp_path / name).touch()
    return tmp_path


def garbage(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.garbage"))


def test_it_runs_as_its_docstring_says(daemon: DaemonProcess, folder: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--socket", daemon.socket, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    ref, status = done.stdout.split()
    assert status == "success"
    assert [path.name for path in folder.iterdir()] == ["kept"]
    with daemon.connect() as native:
        task = native.get(ref.removeprefix("OpaqueRef:"))
        assert (task.label, task.state, task.progress.fraction) == ("Garbage Collection", "completed", 1.0)


def test_its_producer_learns_of_a_cancel_and_stops(
    daemon: DaemonProcess, folder: Path, collector: ModuleType
) -> None:
    session, admin = collector.connect(daemon.socket), collector.connect(daemon.socket)

    def discard(path: str) -> None:
        """Somebody cancels while the second file is removed."""
        os.unlink(path)
        if path.endswith("2.garbage"):
            (ref,) = admin.xenapi.task.get_by_name_label("Garbage Collection")
            assert round(admin.xenapi.task.get_progress(ref), 3) == 0.333
            assert admin.xenapi.task.get_other_config(ref)["applies_to"] == str(folder)
            admin.xenapi.task.cancel(ref)

    ref = collector.collect(session, str(folder), discard)
    record: dict[str, Any] = admin.xenapi.task.get_record(ref)

    assert garbage(folder) == ["3.garbage"]
    assert (record["status"], record["progress"]) == ("cancelled", 1.0)
    for each in (session, admin):
        each("close")()


def test_its_failure_is_told_with_its_reason(daemon: DaemonProcess, folder: Path, collector: ModuleType) -> None:
    session = collector.connect(daemon.socket)

    def discard(path: str) -> None:
        raise PermissionError(1, "Operation not permitted", path)

    ref = collector.collect(session, str(folder), discard)
    record = session.xenapi.task.get_record(ref)
    session("close")()

    assert record["status"] == "failure"
    assert record["error_info"] == [
        "SR_BACKEND_FAILURE",
        str(folder / "1.garbage"),
        "Operation not permitted",
    ]
