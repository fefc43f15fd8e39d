"""A daemon that is killed in any system call leaves its tasks whole or never made: a sample of the proof."""

from __future__ import annotations

from typing import Final

import pytest

from tests.operations.conftest import needs_root
from tests.proof import Proof, Verdict, rotating, wrongs
from tests.proof.gate import Call, Kill, needs_gate, passing
from tests.proof.scenarios import CANCELLED_IN_PLACE, COPY_NEW
from tests.proof.stage import sharing, stage
from tests.proof.syscalls import PROOFS

# 2 and 41 have no divisor in common, so that every point of every proof has its day.
SOME: Final = rotating(2)
TODAY: Final = [proof for n, proof in enumerate(PROOFS) if SOME.takes(n)]


@needs_root
@needs_gate
def test_a_gate_sees_what_all_threads_do_and_a_kill_is_in_the_very_call() -> None:
    with stage(COPY_NEW) as run:
        calls = run.play(passing).calls
        assert {"pwrite64", "openat", "copy_file_range", "fsync", "renameat2"} <= {call.name for call in calls}
        assert {"state/taskd.sqlite-wal", "data/.taskd-ID.part", "socket"} <= {call.file for call in calls}

    with stage(COPY_NEW) as run:
        gated = run.play(lambda call: Kill() if call.name == "renameat2" else None)
        assert gated.killed
        assert gated.calls[-1].name == "renameat2"
        assert "target" not in run.place.photo()


@needs_root
@needs_gate
def test_on_xfs_the_gate_is_asked_before_blocks_are_shared_and_no_bytes_are_moved() -> None:
    with stage(COPY_NEW, sharing) as run:
        calls = run.play(passing).calls
        into = [call.name for call in calls if call.file.endswith(".part")]
        assert "ioctl" in into
        assert not {"copy_file_range", "pwrite64"} & {*into}


@needs_root
@needs_gate
def test_killed_when_half_of_the_pre_image_is_put_back_all_of_it_is_put_back_by_the_next_start() -> None:
    writes: list[int] = []

    def second(call: Call) -> Kill | None:
        if (call.name, call.file) == ("pwrite64", "data/target"):
            writes.append(call.n)
        return Kill() if len(writes) == 2 else None

    with stage(CANCELLED_IN_PLACE) as run:
        assert run.play(second).killed
        assert run.place.photo() != run.before

        outcome = run.outcome(run.recover()[1])
        assert (outcome.verdict, outcome.what) == (Verdict.AS_BEFORE, "")


@needs_root
@needs_gate
@pytest.mark.parametrize("proof", TODAY, ids=str)
def test_killed_in_a_system_call_a_task_is_whole_or_was_never_made(proof: Proof) -> None:
    taken = rotating(41 * 41 if "again" in proof.injected else 41)  # pairs of points, or points

    assert wrongs(proof, taken) == []
