"""``python -m tests.proof [--only PATTERN] [--every N] [--jobs N] [--keep]``: run proofs and print their table.

``--only``: those in whose name this is found, a regular expression. ``--every``: a sample of one in N. ``--jobs``:
so many at once, each in a process of its own; many wait for a fault to go away, so more than there are CPUs pay.
``--keep``: the figures go into ``figures.json``, from which ``python -m tests.readme`` makes README.rst's table
and ``table.rst``. The exit status is 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path
from typing import Any, Final

from tests.proof import SEED, Sample, Verdict, seed
from tests.proof.rows import Row, counts, proofs

FIGURES: Final = Path(__file__).with_name("figures.json")

COLUMNS: Final = ("scenario", "faults injected", "runs", *(verdict.value for verdict in Verdict))


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
    """Those that were kept, by the name of the proof; of a verdict that there was not yet, none."""
    kept = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    assert isinstance(kept, dict)
    none = {verdict.value: 0 for verdict in Verdict}
    return {name: none | row for name, row in kept.items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.proof", description="Run the proofs, print their table."
    )
    parser.add_argument("--only", default="", help="those in whose name this is found")
    parser.add_argument("--every", type=int, default=1, help="a sample of one point in so many")
    parser.add_argument("--jobs", type=int, default=1, help="so many proofs at once")
    parser.add_argument("--keep", action="store_true", help="put the figures into README.rst's table")
    args = parser.parse_args()
    print(f"{SEED}={seed()}", file=sys.stderr, flush=True)
    sample = Sample(args.every)
    chosen, rows = proofs(args.only), dict[str, Row]()
    for row in counts(chosen, sample, args.jobs):
        rows[str(row.proof)] = row
        if args.keep:
            keep(row, sample)
    table = [COLUMNS, *(rows[str(proof)].cells() for proof in chosen)]
    widths = [max(len(cells[at]) for cells in table) for at in range(len(COLUMNS))]
    for cells in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    return 1 if any(row.verdicts[Verdict.WRONG] for row in rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
