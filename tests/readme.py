"""Writes README.rst's tables from what they are about, and ``tests/proof/table.rst``, the plot of how cost grows
and ``systemd/taskd.toml``: ``python -m tests.readme``.

A table stands between ``.. begin NAME`` and ``.. end NAME``. ``test_readme`` fails when one of them, the proof's
page or the plot is out of date, and ``test_units`` when the settings file is.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from taskd import access, dialects, errors, operations, places
from taskd.cli import exits
from taskd.codec import dumps, schema
from taskd.config import Config
from taskd.errors import TaskdError
from taskd.metrics import Metrics
from tests.benchmarks import bounds
from tests.benchmarks import table as benchmarks
from tests.benchmarks.measure import Curve, per_second
from tests.benchmarks.plot import svg
from tests.proof import Proof, Verdict
from tests.proof.__main__ import FIGURES, figures
from tests.proof.rows import proofs

README = Path(__file__).parent.parent / "README.rst"
SETTINGS = README.parent / "systemd" / "taskd.toml"
PLOT = README.parent / "tests" / "benchmarks" / "growth.svg"
PROOF = FIGURES.with_name("table.rst")

# What differs from one user to the next, as it is for root.
ROOTS = {"socket": places.SOCKET, "state": places.STATE}


def table(*rows: Sequence[str]) -> str:
    """A list-table; the first row is its head."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        for mark, cell in zip(["   * - ", *["     - "] * (len(row) - 1)], row, strict=True):
            lines.append((mark + cell).rstrip())
    return "\n".join(lines)


def code(value: object) -> str:
    return f"``{value}``"


def methods() -> str:
    def row(method: dialects.Method) -> Sequence[str]:
        form = schema(method.params)
        properties, required = form["properties"], form["required"]
        assert isinstance(properties, dict)
        assert isinstance(required, list)
        names = [code(name) if name in required else f"[{code(name)}]" for name in properties]
        return code(method.name), " ".join(names) or "none", method.summary

    return table(("method", "params, [optional]", "what it does"), *map(row, dialects.table().values()))


def params() -> str:
    rows: list[Sequence[str]] = [("operation", "param", "default", "what it is")]
    for operation in (operations.load()[name] for name in ("copy", "command", "external")):
        for field in attrs.fields(operation.params):
            default = "required"
            if isinstance(field.default, attrs.Factory):  # type: ignore[arg-type]  # attrs types it as a function
                default = code("{}")
            elif field.default is not attrs.NOTHING:
                default = code(dumps(field.default).decode())
            rows.append((code(operation.name), code(field.name), default, field.metadata["doc"]))
    return table(*rows)


def errors_raised() -> Iterable[type[TaskdError]]:
    found = [each for _, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, TaskdError)]
    return sorted((each for each in found if each.sentence), key=lambda each: (each.number != 1, each.name))


def error_table() -> str:
    ours = {
        "Conflict", "Config_error", "No_daemon", "Refused", "Not_completed", "Illegal_move", "Store_unusable",
    }  # fmt: skip
    rows = [
        (code(each.name), str(each.number), code(" ".join(f.name for f in attrs.fields(each))), each.sentence)
        for each in errors_raised()
        if each.name not in ours and "name" in vars(each)
    ]
    return table(("name", "number", "data", "sentence"), *rows)


def settings() -> str:
    rows: list[Sequence[str]] = [("setting", "default", "unit", "what it is", "a new value counts")]
    for field in attrs.fields(Config):
        default = "see above" if field.name in ROOTS else code(dumps(field.default).decode())
        counts = "after a reload" if field.metadata["reload"] else "after a restart"
        rows.append((code(field.name), default, field.metadata["unit"], field.metadata["doc"], counts))
    return table(*rows)


def settings_file() -> str:
    """``systemd/taskd.toml``."""
    lines = [
        "# Settings of taskd: all there are, at their defaults. To change one, take away the # before it, then",
        "# `systemctl reload taskd.service` or, where it wants a restart, `systemctl restart taskd.service`. A",
        "# file with a fault changes nothing; the journal says what it is, `taskd --check-config` beforehand.",
    ]
    for field in attrs.fields(Config):
        counts = "" if field.metadata["reload"] else " Wants a restart."
        sentence = f"{field.metadata['doc']}. Unit: {field.metadata['unit']}.{counts}"
        value = json.dumps(ROOTS.get(field.name, field.default))
        lines += [
            "",
            *textwrap.wrap(sentence[0].upper() + sentence[1:], 110, initial_indent="# ", subsequent_indent="# "),
        ]
        lines += [f"# {field.name} = {value}"]
    return "\n".join(lines) + "\n"


def exit_codes() -> str:
    rows = sorted((each.value, meaning) for each, meaning in exits.MEANING.items())
    return table(("code", "meaning"), *[(str(value), meaning) for value, meaning in rows])


def roles(some: Collection[str]) -> str:
    """A dash is nobody, which is said only where there is no such relation."""
    return "everyone" if some == access.EVERYONE else ", ".join(sorted(some)) or "—"


def rules() -> str:
    rows = [
        (verb, *(roles(getattr(rule, field.name)) for field in attrs.fields(access.Rule)))
        for verb, rule in access.RULES.items()
    ]
    return table(("verb", "its owner", "its producer", "anybody else"), *rows)


def calls() -> str:
    return table(("method", "roles"), *[(code(name), roles(some)) for name, some in access.CALLS.items()])


def metrics() -> str:
    rows: list[Sequence[str]] = [("metric", "type", "labels", "what it is")]
    for family in Metrics().families():
        labels = " ".join(map(code, family.labels)) or "none"
        rows.append((code(family.name), family.type, labels, family.doc))
    return table(*rows)


def speed() -> str:
    rows = [
        (code(row.name), row.what, row.beside or "—", str(row.goal), benchmarks.reached(row))
        for row in benchmarks.ROWS
    ]
    return table(("row", "what", "beside", "to reach", "reached"), *rows)


def plot() -> str:
    """``growth.svg``: every curve that is kept."""
    rows = benchmarks.figures()["rows"]
    return svg([Curve(**each) for row in benchmarks.ROWS if row.name in rows for each in rows[row.name]["curves"]])


def measured() -> str:
    return when_and_where(benchmarks.figures())


def when_and_where(said: Mapping[str, object]) -> str:
    return f"Measured on {said['date']}: {said['machine']}; load {said['load']}."


def bound() -> str:
    """What bounds the rows that are missed: each side's rate, and its ratio to the peer's."""
    said = bounds.kept()
    rows = [
        (
            code(name),
            row["goal"],
            per_second(row["peer"]),
            f"{per_second(row['bare'])}: {row['bare_by_peer']['value']:.3g} ×",
            f"{per_second(row['ours'])}: {row['ours_by_peer']['value']:.3g} ×",
            row["bound"],
        )
        for name, row in said["rows"].items()
    ]
    head = ("row", "to reach", "the peer", "the barest", "taskd", "what bounds it")
    many = benchmarks.figures()["rows"]["start-64-disk"]["ours"]
    return f"{table(head, *rows)}\n\n{when_and_where(said)} In the table above, 64 clients start {many}."


def profiles() -> str:
    """Where the time of their calls goes."""
    rows: list[Sequence[str]] = [
        ("calls", "because of", "in all", "event loop", "other threads", "the event loop's functions")
    ]
    kept = bounds.kept()["profiles"]
    for name, look in bounds.LOOKS.items():
        cells = ["not measured", "", "", ""]
        if name in kept:
            spent = {who: f"{microseconds:.0f}" for who, microseconds in kept[name]["spent"].items()}
            cells = [
                f"{kept[name]['in_all']:.0f} µs",
                f"{spent['loop']} + {spent['loop_kernel']} µs",
                f"{spent['others']} + {spent['others_kernel']} µs",
                ", ".join(f"{code(each)} {share * 100:.1f} %" for each, share in kept[name]["functions"].items()),
            ]
        rows.append((name, ", ".join(map(code, look.rows)), *cells))
    return table(*rows)


# What is kept of each proof, and what is shown.
COUNTED: Final = ("faults", *(verdict.value for verdict in Verdict))
COUNTS: Final = ("faults", "runs", *COUNTED[1:])
NOT_RUN: Final = {"date": "—", **dict.fromkeys(COUNTED, 0)}


def proven() -> Mapping[str, Sequence[tuple[Proof, Mapping[str, Any]]]]:
    """All proofs, each with its figures, by what is done to the daemon in them."""
    kept, found = figures(), defaultdict[str, list[tuple[Proof, Mapping[str, Any]]]](list)
    for each in proofs():
        found[each.injected].append((each, kept.get(str(each), NOT_RUN)))
    return found


def points(proof: Proof, row: Mapping[str, Any]) -> str:
    """Which of its points were taken."""
    if row is NOT_RUN:
        return "not run"
    return proof.points if row["every"] == 1 else f"1 in {row['every']}"


def counts(rows: Iterable[Mapping[str, Any]]) -> Sequence[str]:
    """``COUNTS`` of these figures together."""
    faults, *verdicts = map(sum, zip(*([row[name] for name in COUNTED] for row in rows), strict=True))
    return [f"{count:,}" for count in (faults, sum(verdicts), *verdicts)]


def proof() -> str:
    """What the proofs found, one row for each thing that is done to the daemon, all scenarios together."""
    rows: list[Sequence[str]] = [("what is done", "points", "met in", *COUNTS)]
    for injected, some in proven().items():
        taken = ", ".join(sorted({points(*each) for each in some}))
        met = f"{sum(row['faults'] > 0 for _, row in some)} of {len(some)}"
        rows.append((injected, taken, met, *counts(row for _, row in some)))
    dates = sorted({row["date"] for some in proven().values() for _, row in some if row is not NOT_RUN})
    return (
        table(*rows) + f"\n\nFound on {', '.join(dates)}; a virtual machine with 2 cores, Debian 12, Python 3.11."
    )


def proof_page() -> str:
    """``tests/proof/table.rst``: the same, each scenario by itself."""
    text = "The proof, scenario by scenario\n===============================\n\n"
    text += (
        "What ``sh tests/proof.sh`` found, made by ``python -m tests.readme``; README.rst tells how to read it.\n"
    )
    for injected, some in proven().items():
        rows = [(proof.scenario, points(proof, row), *counts([row]), row["date"]) for proof, row in some]
        text += (
            f"\n\n{injected}\n{'-' * len(injected)}\n\n{table(('scenario', 'points', *COUNTS, 'date'), *rows)}\n"
        )
    return text


TABLES: dict[str, Callable[[], str]] = {
    "methods": methods,
    "params": params,
    "errors": error_table,
    "settings": settings,
    "exit codes": exit_codes,
    "rules": rules,
    "calls": calls,
    "metrics": metrics,
    "speed": speed,
    "machine": measured,
    "bounds": bound,
    "profiles": profiles,
    "proof": proof,
}


def current(text: str) -> str:
    """``text`` with every table as the code has it."""
    for name, make in TABLES.items():
        place = re.compile(rf"(\.\. begin {name}\n\n).*?(\.\. end {name}\n)", re.DOTALL)
        match = place.search(text)
        assert match is not None, f"README.rst has no place for the table of {name}"
        text = f"{text[: match.start()]}{match[1]}{make()}\n\n{match[2]}{text[match.end() :]}"
    return text


if __name__ == "__main__":
    README.write_text(current(README.read_text()))
    PROOF.write_text(proof_page())
    SETTINGS.write_text(settings_file())
    PLOT.write_text(plot())
