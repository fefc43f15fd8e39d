"""``python -m tests.proof [--only TEXT] [--every N] [--rst FILE]``: run the proofs and print their table.

``--only``: those whose name has this text. ``--every``: a sample of one in N. The exit status is 1 if anything
was wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Final

import attrs

from tests.proof import Proof, Sample, Verdict

# Each has PROOFS.
MODULES: Final[tuple[str, ...]] = (*("syscalls", "faults", "full", "power", "model", "histories", "fuzz", "age"),)

COLUMNS: Final = ("scenario", "faults injected", "runs", *(verdict.value for verdict in Verdict))


@attrs.define
class Row:
    """The outcomes of a proof, counted."""

    proof: Proof
    faults: int = 0
    verdicts: Counter[Verdict] = attrs.field(factory=Counter)

    def cells(self) -> tuple[str, ...]:
        injected = f"{self.proof.injected} ({self.faults:,})"
        counts = (self.verdicts.total(), *(self.verdicts[verdict] for verdict in Verdict))
        return self.proof.scenario, injected, *(f"{count:,}" for count in counts)


def proofs(only: str = "") -> list[Proof]:
    """All that the modules have, in their order."""
    every = [proof for name in MODULES for proof in import_module(f"tests.proof.{name}").PROOFS]
    return [proof for proof in every if only in str(proof)]


def count(proof: Proof, sample: Sample) -> Row:
    """Run it; what is wrong is said as it comes."""
    row, began = Row(proof), time.monotonic()
    for outcome in proof.run(sample):
        row.verdicts[outcome.verdict] += 1
        row.faults += outcome.faults
        if outcome.verdict is Verdict.WRONG:
            print(f"WRONG: {proof}: {outcome.what}", file=sys.stderr, flush=True)
    print(f"{proof}: {row.verdicts.total()} runs in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return row


def rst(rows: list[Row]) -> str:
    """The table as README.rst has it."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for cells in (COLUMNS, *(row.cells() for row in rows)):
        lines += [f"   {'* -' if at == 0 else '  -'} {cell}" for at, cell in enumerate(cells)]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.proof", description="Run the proofs, print their table."
    )
    parser.add_argument("--only", default="", help="those whose name has this text")
    parser.add_argument("--every", type=int, default=1, help="a sample of one point in so many")
    parser.add_argument("--rst", type=Path, help="write the table as README.rst has it")
    args = parser.parse_args()
    rows = [count(proof, Sample(args.every)) for proof in proofs(args.only)]
    table = [COLUMNS, *(row.cells() for row in rows)]
    widths = [max(len(cells[at]) for cells in table) for at in range(len(COLUMNS))]
    for cells in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    if args.rst:
        args.rst.write_text(rst(rows))
    return 1 if any(row.verdicts[Verdict.WRONG] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
