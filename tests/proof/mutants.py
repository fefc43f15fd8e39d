"""The mutants of the law (``tests.mutants``) as a row of the proof: a test notices each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from tests.breakage import noticed
from tests.mutants import MUTANTS, Mutant, tried
from tests.proof import Outcome, Proof, Sample


def run(sample: Sample) -> Iterator[Outcome]:
    """Each is one run."""
    return (noticed(each.name, partial(_killer, each)) for n, each in enumerate(MUTANTS, 1) if sample.takes(n))


def _killer(mutant: Mutant) -> str | None:
    return tried(mutant).killer


PROOFS: Final = (Proof("the tests that hold it", "a mutant of the law", run),)
