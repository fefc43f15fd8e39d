"""A daemon that is killed in any system call leaves its tasks whole or never made: a sample of the proof."""

from __future__ import annotations

import pytest

from tests.operations.conftest import needs_root
from tests.proof import Proof, rotating, wrongs
from tests.proof.syscalls import PROOFS

# The pairs of a call and a call of its recovery are many more than the calls.
EVERY = {"killed at a system call": 40, "killed again, at a call of its recovery": 2500}


@needs_root
@pytest.mark.parametrize("proof", PROOFS, ids=str)
def test_killed_in_a_system_call_a_task_is_whole_or_was_never_made(proof: Proof) -> None:
    sample = rotating(EVERY[proof.injected])
    print(sample)

    assert wrongs(proof, sample) == []
