"""Fuzzing: ``python -m tests.proof.fuzz [--runs N] [--only NAME] [--keep]``.

Each target of ``targets`` runs in a process of its own under atheris (libFuzzer), from the corpus that is kept:
``corpus/NAME``, a line of hex for each input. With ``--keep`` what was found new is added, minimized. N executions
are shared out by the targets' parts. What a target raises on is printed, the input in hex; the exit status is 1.
The seed is printed as well, which is the day's; with ``TASKD_PROOF_SEED`` in the environment it is that.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

from tests.proof import RANDOM, SEED, Outcome, Proof, Sample, Verdict, seed

CORPUS: Final = Path(__file__).parent / "corpus"

RUNS: Final = 10_000_000

# Seconds and MiB that one input may take: what only grows with the number of inputs is in it as well.
TIMEOUT: Final = 20
MEMORY: Final = 1024

# The most bytes of all inputs of one target that are kept.
LARGEST: Final = 9_000


@attrs.frozen
class Run:
    """What came of one target: ``wrong`` is what it raised, and on what. ``seed`` is what libFuzzer began with."""

    name: str
    runs: int
    seconds: float
    seed: int
    wrong: str = ""


def kept(name: str) -> list[bytes]:
    """The corpus of a target."""
    path = CORPUS / name.replace(" ", "_")
    return [bytes.fromhex(line) for line in path.read_text().split()] if path.exists() else []


def fuzzed(name: str, runs: int, *, keep: bool = False, seconds: int = 0) -> Run:
    """Run a target so often, or for so many seconds."""
    from tests.proof.damage import RAM
    from tests.proof.targets import TARGETS, words

    target = TARGETS[name]
    # What is in memory may not be run.
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory(dir=RAM) as memory:
        folder = Path(scratch)
        corpus = _laid(folder / "corpus", [*kept(name), *target.seeds])
        (folder / "words").write_text("".join(f'"{_escaped(word)}"\n' for word in words()))
        options = [
            f"-runs={runs}",
            f"-seed={seed() or 1}",  # by 0 it takes one by chance
            f"-max_len={target.longest}",
            f"-timeout={TIMEOUT}",
            f"-rss_limit_mb={MEMORY}",
            f"-dict={folder / 'words'}",
            f"-artifact_prefix={folder}/found-",
            "-print_final_stats=1",
            *([f"-max_total_time={seconds}"] if seconds else []),
        ]
        began = time.monotonic()
        done = _atheris(name, [*options, str(corpus)], folder, memory)
        took = time.monotonic() - began
        runs_done = _number("number_of_executed_units", done.stderr)
        found = sorted(folder.glob("found-*"))
        wrong = ""
        if found:
            wrong = f"{name} on {found[0].read_bytes().hex()}: {_why(done)}"
        elif done.returncode != 0:
            wrong = f"{name} ended with {done.returncode}: {_why(done)}"
        if keep and not wrong:
            _keep(name, _merged(name, corpus, folder, memory))
        return Run(name, runs_done, took, _number("INFO: Seed", done.stderr), wrong)


def _number(name: str, said: str) -> int:
    found = re.search(rf"{name}: (\d+)", said)
    return int(found[1]) if found else 0


def _laid(folder: Path, inputs: Sequence[bytes]) -> Path:
    folder.mkdir()
    for n, each in enumerate(inputs):
        (folder / str(n)).write_bytes(each)
    return folder


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace('"', '\\"')


def _atheris(name: str, arguments: Sequence[str], folder: Path, memory: str) -> subprocess.CompletedProcess[str]:
    # A program of its own: libFuzzer starts itself anew when it merges.
    program = folder / "run"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m tests.proof.fuzz --target '{name}' \"$0\" \"$@\"\n")
    program.chmod(0o700)
    environment = os.environ | {"TMPDIR": memory}
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, errors="replace", env=environment, check=False
    )


def _why(done: subprocess.CompletedProcess[str]) -> str:
    """The end of the traceback, which is on stdout, or what libFuzzer says."""
    _, uncaught, traceback = done.stdout.partition("Uncaught Python exception")
    return "\n".join((traceback if uncaught else done.stderr).strip().splitlines()[-12:])


def _merged(name: str, corpus: Path, folder: Path, memory: str) -> Path:
    """The least of the inputs that reach the same."""
    least = folder / "least"
    least.mkdir()
    _atheris(name, ["-merge=1", str(least), str(corpus)], folder, memory)
    return least


def _keep(name: str, least: Path) -> None:
    """Small ones first, as many as may be kept."""
    inputs = sorted((path.read_bytes() for path in least.iterdir()), key=lambda each: (len(each), each))
    lines, size = [], 0
    for each in inputs:
        size += len(each)
        if size > LARGEST:
            break
        lines.append(each.hex() + "\n")
    CORPUS.mkdir(exist_ok=True)
    (CORPUS / name.replace(" ", "_")).write_text("".join(lines))


def _run_target(name: str, arguments: Sequence[str]) -> None:
    """In the process of a target: never returns. taskd is imported here, so that atheris sees where it goes."""
    import atheris

    with atheris.instrument_imports(include=["taskd", "h11", "wsproto"]):
        from tests.proof.targets import TARGETS

    atheris.Setup([*arguments], TARGETS[name].run)
    atheris.Fuzz()


def shares(runs: int) -> Iterator[tuple[str, int]]:
    """How many executions each target has of so many."""
    from tests.proof.targets import TARGETS

    parts = sum(target.part for target in TARGETS.values())
    return ((name, -(-runs * target.part // parts)) for name, target in TARGETS.items())


def run(sample: Sample) -> Iterator[Outcome]:
    """All is so many executions as are run for the record; a target is one run."""
    for name, runs in shares(RUNS // sample.every):
        found = fuzzed(name, runs)
        print(f"{name}: {found.runs} executions in {found.seconds:.0f} s", file=sys.stderr, flush=True)
        yield Outcome(Verdict.WRONG if found.wrong else Verdict.AS_BEFORE, found.runs, found.wrong)


PROOFS: Final = (
    Proof("every framing, envelope, route, text and file that is read", "bytes by a fuzzer", run, RANDOM),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.proof.fuzz", description="Fuzz what taskd reads.")
    parser.add_argument("--runs", type=int, default=RUNS, help="executions over all targets")
    parser.add_argument("--only", help="this target has them all")
    parser.add_argument("--keep", action="store_true", help="add to the corpus what was found new")
    args = parser.parse_args()
    print(f"{SEED}={seed()}", flush=True)
    wrong = 0
    for name, runs in [(args.only, args.runs)] if args.only else shares(args.runs):
        found = fuzzed(name, runs, keep=args.keep)
        print(f"{name:14} {found.runs:>10,} executions {found.seconds:>7.0f} s  {found.wrong}", flush=True)
        wrong += bool(found.wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--target"]:
        _run_target(sys.argv[2], sys.argv[3:])
    sys.exit(main())
