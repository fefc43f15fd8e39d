"""Every limit, met by somebody hostile, while a well-behaved client has all its answers (law L10).

The cases are those of ``tests.hostile``. That the other client had every answer, the right one and within
``well_behaved.PATIENCE`` seconds, is asserted there; how long it had to wait, ``tests.benchmarks.unmoved`` tells.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import CASES, IDLE, Case, room_for_idle, run

# MiB that a daemon may take for any of them.
MOST = 1000.0


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that everybody gets into, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="taskd-test-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_hostile_client_is_met_at_its_limit_and_another_has_all_its_answers(case: Case, folder: Path) -> None:
    if case.needs_another_user and os.geteuid() != 0:
        pytest.skip("only root can be two users")
    outcome = run(case, folder)

    assert outcome.found.answers >= 100
    assert outcome.most < MOST
    if case.name == "idle" and (room := room_for_idle()) < IDLE:
        pytest.skip(f"passed with {room} connections: the hard limit of open files allows no {IDLE}")
