"""What the tests take of their samples follows from one seed, which every run of them says."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.breakage import ROOT
from tests.process import PATIENCE
from tests.proof import SEED

SAMPLED = (
    "tests/proof/test_faults.py",
    "tests/proof/test_power.py",
    "tests/proof/test_syscalls.py",
    "tests/test_fuzz.py",
    "tests/test_histories.py",
    "tests/test_mutants.py",
)


def ran(seed: int, *arguments: str) -> list[str]:
    """The lines that pytest prints, with that seed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        env=os.environ | {SEED: str(seed)},
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=True,
    )
    return done.stdout.splitlines()


def test_a_run_says_its_seed_once_however_quiet_it_is_and_however_many_share_it() -> None:
    said = ran(4711, "-qq", "-n", "2", "tests/test_fuzz.py", "-k", "are_few")

    assert [line for line in said if SEED in line] == [f"{SEED}=4711"]


def chosen(seed: int) -> dict[str, list[str]]:
    """The tests of each file."""
    lines = ran(seed, "--co", "-q", *SAMPLED)
    return {file: [line for line in lines if line.startswith(f"{file}::")] for file in SAMPLED}


def test_the_same_seed_takes_the_same_of_each_sample_and_another_seed_something_else() -> None:
    first, other = chosen(4711), chosen(4712)

    assert first == chosen(4711)
    assert [file for file in SAMPLED if not first[file] or first[file] == other[file]] == []
