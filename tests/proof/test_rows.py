"""The rows of the proof's table: whatever a proof does, its row comes, and so do the others."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.breakage import noticed
from tests.operations.conftest import needs_root
from tests.proof import Outcome, Proof, Sample, Verdict
from tests.proof.__main__ import figures
from tests.proof.gate import needs_gate
from tests.proof.rows import MODULES, count, counts, proofs


def test_a_proof_that_cannot_go_on_is_wrong_and_what_it_ran_is_counted() -> None:
    def run(sample: Sample) -> Iterator[Outcome]:
        yield Outcome(Verdict.WHOLE)
        raise OSError("no disk")

    row = count(Proof("a scenario", "a fault", run), Sample())

    assert row.verdicts == {Verdict.WHOLE: 1, Verdict.WRONG: 1}


def test_the_figures_are_of_proofs_that_there_are() -> None:
    assert figures().keys() <= {str(proof) for proof in proofs()}


def test_whoever_has_proofs_is_in_the_table() -> None:
    files = Path(__file__).parent.glob("*.py")

    assert {file.stem for file in files if re.search("^PROOFS", file.read_text(), re.MULTILINE)} == {*MODULES}


def gone() -> str:
    raise LookupError("the passage is gone")


@pytest.mark.parametrize(
    ("notice", "verdict", "what"),
    [
        (lambda: "a test", Verdict.CAUGHT, ""),
        (lambda: None, Verdict.WRONG, "nobody notices: a law"),
        (gone, Verdict.WRONG, "a law: LookupError('the passage is gone')"),
    ],
)
def test_a_law_that_is_broken_and_nobody_notices_is_wrong(
    notice: Callable[[], str | None], verdict: Verdict, what: str
) -> None:
    assert noticed("a law", notice) == Outcome(verdict, what=what)


@needs_root
@needs_gate
def test_proofs_that_run_side_by_side_have_a_row_each() -> None:
    chosen = proofs("^(killed at|EAGAIN from) a system call: an empty start")

    rows = {row.proof: row for row in counts(chosen, Sample(20), jobs=2)}

    assert rows.keys() == {*chosen}
    assert all(row.verdicts.total() and not row.verdicts[Verdict.WRONG] for row in rows.values())
