"""``python -m tests.proof [--only PATTERN] [--every N] [--keep]``: run the proofs and print their table.

``--only``: those in whose name this is found, a regular expression. ``--every``: a sample of one in N. ``--keep``:
the figures go into ``figures.json``, from which ``python -m tests.readme`` makes README.rst's table. The exit
status is 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import sys
import time
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import attrs

from tests.proof import Proof, Sample, Verdict

# Each has PROOFS.
MODULES: Final = ("syscalls", "faults", "full", "power", "model", "histories", "fuzz", "age")

FIGURES: Final = Path(__file__).with_name("figures.json")

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
    return [proof for proof in every if re.search(only, str(proof))]


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


def keep(row: Row, sample: Sample) -> None:
    """Put it into the figures, from which README.rst has its table; in the place of one of before."""
    kept = figures()
    kept[str(row.proof)] = {
        "injected": row.proof.injected,
        "scenario": row.proof.scenario,
        "every": sample.every,
        "date": datetime.date.today().isoformat(),
        "faults": row.faults,
        **{verdict.value: row.verdicts[verdict] for verdict in Verdict},
    }
    FIGURES.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")


def figures() -> dict[str, dict[str, Any]]:
    """Those that were kept, by the name of the proof."""
    kept = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    assert isinstance(kept, dict)
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.proof", description="Run the proofs, print their table."
    )
    parser.add_argument("--only", default="", help="those in whose name this is found")
    parser.add_argument("--every", type=int, default=1, help="a sample of one point in so many")
    parser.add_argument("--keep", action="store_true", help="put the figures into README.rst's table")
    args = parser.parse_args()
    sample = Sample(args.every)
    rows = []
    for proof in proofs(args.only):
        rows.append(count(proof, sample))
        if args.keep:
            keep(rows[-1], sample)
    table = [COLUMNS, *(row.cells() for row in rows)]
    widths = [max(len(cells[at]) for cells in table) for at in range(len(COLUMNS))]
    for cells in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    return 1 if any(row.verdicts[Verdict.WRONG] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
