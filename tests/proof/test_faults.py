"""A daemon whose calls fail, or whose disk is full, tells the truth and lives on: a sample of the proof."""

from __future__ import annotations

from typing import Final

import pytest

from tests.operations.conftest import needs_root
from tests.process import PATIENCE
from tests.proof import ALL, Proof, Sample, Verdict, faults, full, rotating, wrongs
from tests.proof.gate import Call, needs_gate
from tests.proof.scenarios import BLOCK, EXTERNAL, START
from tests.proof.stage import stage

# Each waits for a fault to go away, so only some are proven on a day. No two of the numbers here have a divisor in
# common, so that every point of every proof has its day.
SOME: Final = rotating(12)
TODAY: Final = [proof for n, proof in enumerate((*faults.PROOFS, *full.PROOFS)) if SOME.takes(n)]


def sample(proof: Proof) -> Sample:
    if proof.injected.startswith("killed, then"):
        return rotating(41 * 41)  # pairs of points
    return rotating(7 if "until mended" in proof.injected or "full filesystem for" in proof.injected else 41)


@needs_root
@needs_gate
def test_where_the_system_has_no_thread_for_it_a_start_says_so() -> None:
    (proof,) = [each for each in faults.PROOFS if str(each) == f"EAGAIN from a system call: {START.name}"]

    assert wrongs(proof, ALL) == []


@needs_root
@needs_gate
def test_what_is_half_written_in_place_when_the_disk_is_full_is_put_back_on_the_full_disk() -> None:
    changed: list[bool] = []

    def look(call: Call) -> None:
        changed.append(run.place.photo() != run.before)

    with stage(full.IN_PLACE, full.data_on_it) as run:
        gated = run.start(look, armed=True)
        with gated.connect() as daemon:
            ballast = full.fill(run.folder / "small", 2 * BLOCK)
            run.scenario.act(daemon, run.place, run.said)
            (task,) = daemon.list()

        assert ballast.exists()
        assert (task.state, task.error and task.error.code, task.residue) == ("failed", "ENOSPC", ())
        assert any(changed)
        assert run.place.photo() == run.before


@needs_root
@needs_gate
def test_a_scenario_that_needs_no_room_proves_nothing_on_a_full_filesystem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It is full until all is done, however long that takes.
    monkeypatch.setattr(full, "LASTS", 2 * PATIENCE)

    (outcome,) = full.fitting(full.data_on_it, BLOCK, EXTERNAL, ALL)

    assert outcome.verdict is Verdict.WRONG


@needs_root
@needs_gate
@pytest.mark.parametrize("proof", TODAY, ids=str)
def test_a_fault_is_said_and_lived_with_and_what_it_hit_is_whole_or_was_never_made(proof: Proof) -> None:
    assert wrongs(proof, sample(proof)) == []
