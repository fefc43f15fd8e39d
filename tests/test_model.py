"""Programs of all native verbs, with stops and crashes, do what the law says; more of them in ``tests.proof``."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings

from tests.proof.model import PROGRAMS, Step, execute

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(deadline=None, max_examples=50, suppress_health_check=SLOW)
@given(program=PROGRAMS)
def test_whatever_is_called_and_whenever_it_crashes_all_is_as_the_law_says(program: Sequence[Step]) -> None:
    execute("memory", program)


@settings(deadline=None, max_examples=20, suppress_health_check=SLOW)
@given(program=PROGRAMS)
def test_so_it_is_over_a_database(program: Sequence[Step]) -> None:
    execute("sqlite", program)
