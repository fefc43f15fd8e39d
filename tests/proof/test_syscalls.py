"""A daemon that is killed in any system call leaves its tasks whole or never made: a sample of the proof."""

from __future__ import annotations

from typing import Final

import pytest

from tests.operations.conftest import needs_root
from tests.proof import Proof, rotating, wrongs
from tests.proof.syscalls import PROOFS

# 2 and 41 have no divisor in common, so that every point of every proof has its day.
SOME: Final = rotating(2)
TODAY: Final = [proof for n, proof in enumerate(PROOFS) if SOME.takes(n)]


@needs_root
@pytest.mark.parametrize("proof", TODAY, ids=str)
def test_killed_in_a_system_call_a_task_is_whole_or_was_never_made(proof: Proof) -> None:
    taken = rotating(41 * 41 if "again" in proof.injected else 41)  # pairs of points, or points
    print(taken)

    assert wrongs(proof, taken) == []
