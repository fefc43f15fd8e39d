"""The table of ``tests.mutants`` is about the code as it is, and two of its rows, others each day, are killed. All
of them take minutes: ``python -m tests.mutants``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import taskd
from tests import mutants
from tests.mutants import MUTANTS, Mutant, tried
from tests.proof import rotating

SAMPLE = rotating(len(MUTANTS) // 2)
SOME = [mutant for n, mutant in enumerate(MUTANTS[: 2 * SAMPLE.every]) if SAMPLE.takes(n)]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_what_a_mutant_breaks_is_there_to_be_broken(mutant: Mutant) -> None:
    path = Path(taskd.__file__).parent / mutant.file

    assert path.read_text().count(mutant.passage) == 1
    assert mutant.passage != mutant.instead


def test_no_two_mutants_have_one_name() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", SOME, ids=lambda mutant: mutant.name)
def test_a_law_that_is_broken_fails_a_test(mutant: Mutant) -> None:
    assert tried(mutant).killer is not None


# Nobody can see this one.
HARMLESS = Mutant("nothing is broken", "states.py", "\n\n\n", "\n\n\n\n", ("tests/test_states.py",))


def test_what_breaks_no_law_survives() -> None:
    assert tried(HARMLESS).killer is None


def test_tests_that_take_too_long_of_the_right_program_as_well_kill_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mutants, "LONGEST", 0.1)

    with pytest.raises(LookupError, match=r"the right program fails as well: hangs: tests/test_states\.py"):
        tried(HARMLESS)
