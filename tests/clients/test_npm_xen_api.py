"""npm's ``xen-api``, as it is, through a forwarder from TCP: connect, watch tasks, barrier, call, cancel.

It is installed at test time from npm's registry, once for each cache of pytest's. The one thing that is wrapped,
to count, is the function with which it fetches everything again when the number of tasks does not fit.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.process import DaemonProcess

SCRIPT = Path(__file__).with_name("watch_tasks.mjs")

# Seconds for the registry to give, and for the whole script to run.
INSTALL, RUN = 180, 120


@pytest.fixture(scope="session")
def module(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's file."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node and npm are not here")
    cache: pytest.Cache | None = getattr(request.config, "cache", None)
    folder = tmp_path_factory.mktemp("npm") if cache is None else cache.mkdir("xen-api-4")
    file = folder / "node_modules" / "xen-api" / "index.mjs"
    if not file.exists():
        command = [
            npm,
            "install",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--prefix",
            str(folder),
            "xen-api@4",
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm's registry gave nothing within {INSTALL} seconds")
        if done.returncode != 0:
            pytest.skip(f"npm cannot install xen-api: {done.stderr.strip().splitlines()[-1:]}")
    return file


@pytest.fixture
def seen(daemon: DaemonProcess, port: int, module: Path) -> Mapping[str, object]:
    """What the script saw."""
    source = daemon.folder / "source"
    source.write_bytes(b"new" * 100_000)
    command = ["node", str(SCRIPT), module.as_uri(), str(port), str(source), str(daemon.folder / "target")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN, check=False)
    assert done.returncode == 0, done.stderr + daemon.log
    assert done.stderr == "", done.stderr  # it warns there when it has to work round us
    parsed: Mapping[str, object] = json.loads(done.stdout)
    return parsed


def test_npms_client_watches_tasks_cancels_them_and_sees_each_end(
    seen: Mapping[str, object], daemon: DaemonProcess
) -> None:
    cancelled = {"rejected": "Cancel", "params": "task canceled"}

    assert seen["success"] == {"resolved": "OpaqueRef:made"}
    assert seen["plain result"] == {"resolved": "made & done"}
    assert seen["no result"] == {"resolved": ""}
    assert seen["failure"] == {"rejected": "SR_FULL", "params": ["4096"]}
    assert seen["failure without a reason"] == {
        "rejected": "TASK_FAILED",
        "params": ["its producer gave no reason"],
    }
    assert seen["cancelled"] == cancelled
    assert seen["destroyed with its end"] == {"resolved": "kept"}
    assert seen["asked"] == ["pending", ["cancel"]]
    assert seen["slow allows"] == ["cancel"]
    assert seen["slow"] == cancelled
    assert seen["unknown method"] == {"rejected": "MESSAGE_METHOD_UNKNOWN", "params": ["task.nothing"]}
    assert seen["types"] == ["host", "pool", "task"]

    copied = seen["copy"]
    assert isinstance(copied, Mapping)
    assert copied["resolved"]["bytes"] == "300000"
    assert (daemon.folder / "target").read_bytes() == (daemon.folder / "source").read_bytes()
    assert not (daemon.folder / "target2").exists()


def test_what_npms_client_keeps_is_what_there_is(seen: Mapping[str, object]) -> None:
    """It counts its tasks after each answer, and fetches all of them anew when it has another number than we."""
    assert seen["slow is gone"] is True
    assert seen["tasks"] == seen["all records"]
    assert seen["refetched"] == [["pool", "task"]]  # once, at the start
