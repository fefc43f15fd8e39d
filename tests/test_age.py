"""Some seconds of load and age, another ten on each day (``tests/proof/age.py``)."""

from __future__ import annotations

from tests.proof import rotating, wrongs
from tests.proof.age import PROOFS


def test_what_is_told_stays_true_while_the_daemon_dies_at_random_moments() -> None:
    (proof,) = PROOFS

    assert wrongs(proof, rotating(every=360)) == []
