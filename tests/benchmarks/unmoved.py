"""How long others wait because of hostile clients: ``python -m tests.benchmarks.unmoved [CASE...]``.

Each case of ``tests.hostile`` against a daemon of its own. Prints the worst and the median answer of a
well-behaved client, in milliseconds, and the daemon's resident memory before the case and at its most, in MiB.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.hostile import CASES, run


def main(*names: str) -> None:
    print(f"{'case':<12} {'answers':>7} {'median ms':>9} {'worst ms':>8} {'MiB before':>10} {'at most':>7}  load")
    for case in CASES:
        if names and case.name not in names:
            continue
        with tempfile.TemporaryDirectory(prefix="taskd-") as name:
            os.chmod(name, 0o755)
            it = run(case, Path(name))
        print(
            f"{case.name:<12} {it.found.answers:>7} {it.found.median * 1000:>9.1f} {it.found.worst * 1000:>8.0f}"
            f" {it.before:>10.0f} {it.most:>7.0f}  {case.load} ({it.took:.1f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
