"""A real daemon with its real store, killed with SIGKILL at swept moments, started again, and looked at.

A moment is the n-th change of the task that can be seen from outside; n grows until the task ends first. What
happens between two changes, at every step, is swept in ``test_all_or_nothing``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import attrs
import pytest

from taskd.states import State
from tests.cases import Photo, photograph
from tests.process import DaemonProcess

MIB = 1024 * 1024

# Slow enough to be killed in the middle, fast enough for many rounds.
RATE = 64 * MIB
SIZE = 8 * MIB

TOO_MANY = 200


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    daemon = DaemonProcess(tmp_path)
    yield daemon
    daemon.end()


def image(path: Path, seed: int) -> None:
    path.write_bytes(b"".join(bytes([seed + i]) * MIB for i in range(SIZE // MIB)))


SCENARIOS: dict[str, dict[str, object]] = {
    "new": {},
    "overwrite": {"overwrite": True, "verify": True},
    "blocks": {"overwrite": True, "blocks": {"blocksize": MIB, "ranges": [[0, 1], [3, 4]]}},
    "blocks in place": {"overwrite": True, "blocks": {"blocksize": MIB, "ranges": [[0, 1], [3, 4]]}},
}


def prepare(scenario: str, folder: Path) -> tuple[dict[str, object], Photo]:
    folder.mkdir()
    image(folder / "source", 1)
    if scenario != "new":
        image(folder / "target", 101)
    if scenario == "blocks in place":
        os.link(folder / "target", folder / "second name")
    params: dict[str, object] = {"source": str(folder / "source"), "target": str(folder / "target")}
    return params | SCENARIOS[scenario] | {"rate_limit": RATE}, photograph(folder)


def whole(scenario: str, before: Photo) -> Photo:
    """What the folder must look like when the copy is done."""
    kind, mode, source = before["source"]
    content = source
    if "blocks" in scenario:
        old = bytearray(before["target"][2])
        old[: 1 * MIB] = source[: 1 * MIB]
        old[3 * MIB : 7 * MIB] = source[3 * MIB : 7 * MIB]
        content = bytes(old)
    after = dict(before) | {"target": (kind, mode, content)}
    if "second name" in before:
        after["second name"] = after["target"]
    return after


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_any_change_a_copy_ends_whole(scenario: str, daemon: DaemonProcess, tmp_path: Path) -> None:
    states: set[str] = set()
    rate = RATE
    for n in count():
        assert n < TOO_MANY
        folder = tmp_path / f"data{n}"
        params, before = prepare(scenario, folder)
        params["rate_limit"] = rate
        daemon.start()
        with daemon.connect() as connection:
            record = connection.start("copy", params, request_id=str(n))
            for _ in range(n):
                if not record.ended:
                    record = connection.wait(record.id, after_revision=record.revision)
        daemon.kill()
        states.add(record.state)
        if "in place" not in scenario and record.state not in (State.COMMITTED, State.COMPLETED):
            seen = photograph(folder).get("target")
            assert seen in (before.get("target"), whole(scenario, before)["target"]), "half a copy can be seen"
        daemon.start()
        with daemon.connect() as connection:
            again = connection.start("copy", params, request_id=str(n))
            assert again.id == record.id
            end = connection.wait(record.id)
        assert daemon.stop() == 0
        assert (end.state, end.residue) == (State.COMPLETED, ())
        assert photograph(folder) == whole(scenario, before)
        assert os.listdir(tmp_path / "state" / "workspace") == []
        if record.state == State.COMPLETED:
            assert end.attempt == 1
            if State.RUNNING in states:
                break
            rate //= 2  # it was through before we had asked: the sweep goes on with one that is slower

    assert State.RUNNING in states
    assert State.COMPLETED in states


def test_a_cancel_that_was_answered_is_known_after_a_kill(daemon: DaemonProcess, tmp_path: Path) -> None:
    params, before = prepare("overwrite", tmp_path / "data")
    params["rate_limit"] = MIB // 64  # it goes on while we stand still, for minutes
    daemon.start()
    with daemon.connect() as connection:
        record = connection.start("copy", params)
        while record.progress.done == 0:
            record = connection.wait(record.id, after_revision=record.revision)
        connection.cancel(record.id)
    daemon.kill()
    daemon.start()
    with daemon.connect() as connection:
        end = connection.wait(record.id)

    assert end.state == State.CANCELLED
    assert photograph(tmp_path / "data") == before


SCRIPT = """
echo $$ > leader
$PREFIX sh -c 'echo $$ > grandchild; exec sleep 1000' &
while ! [ -s grandchild ]; do :; done
echo ready
exec sleep 1000
"""

UNDO = """
for name in leader grandchild; do
    state=$(sed -n 's/^State:[[:space:]]*//p' /proc/$(cat $name)/status 2>/dev/null || true)
    case $state in ''|[ZX]*) ;; *) echo $name lives > undone; exit 0;; esac  # nobody may have reaped it yet
done
echo all dead > undone
"""


@pytest.mark.parametrize("prefix", ["", "env -i"], ids=["its environment", "none"])
def test_children_of_a_command_are_dead_before_its_undo_starts(
    daemon: DaemonProcess, tmp_path: Path, prefix: str
) -> None:
    daemon.start()
    params = {
        "argv": ["/bin/sh", "-c", SCRIPT],
        "env": {"PREFIX": prefix},
        "undo_argv": ["/bin/sh", "-c", UNDO],
        "cwd": str(tmp_path),
    }
    with daemon.connect() as connection:
        record = connection.start("command", params)
        while not connection.log(record.id).lines:
            record = connection.wait(record.id, after_revision=record.revision)
    daemon.kill()
    daemon.start()
    with daemon.connect() as connection:
        end = connection.wait(record.id)

    assert end.error is not None
    assert (end.state, end.error.code) == (State.FAILED, "INTERRUPTED")
    assert (tmp_path / "undone").read_text() == "all dead\n"


def test_an_external_task_is_after_a_kill_as_it_was(daemon: DaemonProcess) -> None:
    daemon.start()
    with daemon.connect() as connection:
        record = connection.start("external", {}, label="elsewhere")
        connection.call("Task.update", id=record.id, progress={"done": 3, "total": 4}, status="at it", log=["one"])
        connection.cancel(record.id)
        before = connection.get(record.id)
    daemon.kill()
    daemon.start()
    with daemon.connect() as connection:
        after = connection.get(record.id)
        # A revision that was only shown may have been higher than the one on disk: it is found with a new one.
        assert after.revision > before.revision
        assert attrs.evolve(after, revision=0) == attrs.evolve(before, revision=0)
        assert [line.line for line in connection.log(record.id).lines] == ["one"]
        connection.call("Task.update", id=record.id, log=["two"])
        assert [line.n for line in connection.log(record.id).lines] == [0, 1]
        connection.call("Task.fail", id=record.id, error={"code": "STOPPED", "message": "as asked"})
        end = connection.get(record.id)

    assert end.state == State.CANCELLED
    assert end.revision > before.revision


def test_sequence_numbers_go_on_after_a_kill(daemon: DaemonProcess) -> None:
    daemon.start()
    with daemon.connect() as connection:
        first = connection.start("external", {})
        connection.call("Task.complete", id=first.id)
        connection.destroy(first.id)
    daemon.kill()
    daemon.start()
    with daemon.connect() as connection:
        second = connection.start("external", {})

    assert second.seq > first.seq
    assert second.id != first.id
