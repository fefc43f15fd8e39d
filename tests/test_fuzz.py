"""The kept inputs of every fuzzer are tried, and for some seconds new ones (``tests/proof/fuzz.py``)."""

from __future__ import annotations

import pytest

from tests.proof import fuzz, seed
from tests.proof.targets import TARGETS

# How many targets are tried with new inputs, others on each day, and for how many seconds each.
TRIED = 3
SECONDS = 2


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_was_kept_is_read_as_it_must_be(name: str) -> None:
    inputs = [*TARGETS[name].seeds, *fuzz.kept(name)]
    assert inputs

    for each in inputs:
        TARGETS[name].run(each)


CHOSEN = [[*TARGETS][(seed() * TRIED + step) % len(TARGETS)] for step in range(TRIED)]


@pytest.mark.parametrize("name", CHOSEN)
def test_nothing_new_is_found_in_some_seconds(name: str) -> None:
    pytest.importorskip("atheris", reason="there is no wheel of it for this machine")
    found = fuzz.fuzzed(name, -1, seconds=SECONDS)

    assert found.wrong == ""
    assert found.runs > len(TARGETS[name].seeds)
    assert found.seed == (seed() or 1)


def test_what_takes_more_memory_than_it_may_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("atheris", reason="there is no wheel of it for this machine")
    monkeypatch.setattr(fuzz, "MEMORY", 1)

    assert "out-of-memory" in fuzz.fuzzed("json stream", -1, seconds=60).wrong


def test_the_kept_inputs_are_few() -> None:
    files = [*fuzz.CORPUS.iterdir()]

    assert {file.name for file in files} == {name.replace(" ", "_") for name in TARGETS}
    assert sum(file.stat().st_size for file in files) < 300 * 1024
