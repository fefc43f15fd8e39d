"""The table of ``tests.mutants`` is about the code as it is. To see each noticed takes minutes: run it apart."""

from __future__ import annotations

from pathlib import Path

import pytest

import taskd
from tests.mutants import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_what_a_mutant_breaks_is_there_to_be_broken(mutant: Mutant) -> None:
    path = Path(taskd.__file__).parent / mutant.file

    assert path.read_text().count(mutant.passage) == 1
    assert mutant.passage != mutant.instead
