"""``python -m tests.benchmarks [--only NAME]... [--json FILE] [--plot FILE.svg]``: measure, and print the table.

``--only`` takes the name of a row, or the beginning of some. How cost grows is measured for a plot, or by name.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import attrs
import click

from tests.benchmarks.measure import FULL, Extent, Found, Outcome, Outcomes, Skipped
from tests.benchmarks.plot import svg
from tests.benchmarks.table import ROWS, Row


def chosen(only: Sequence[str], *, plot: bool) -> Sequence[Row]:
    """Raises click.BadParameter."""
    for name in only:
        if not any(row.name.startswith(name) for row in ROWS):
            raise click.BadParameter(
                f"no row begins with {name}; there are: {', '.join(row.name for row in ROWS)}"
            )
    named = {row.name for row in ROWS if row.name.startswith(tuple(only) or "")}
    return [row for row in ROWS if row.name in named and (not row.plotted or plot or only)]


def machine() -> str:
    """What it ran on, in words."""
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kernel, python = platform.release(), platform.python_version()
    return f"{os.cpu_count()} × {model}, {size:.0f} GiB, Linux {kernel}, Python {python}"


def load() -> str:
    return " ".join(f"{each:.2f}" for each in os.getloadavg())


def measured(rows: Iterable[Row], extent: Extent, told: Callable[[Row, Outcome], None]) -> Mapping[str, Outcome]:
    """The outcome of each row; what measures several is called once."""
    found: dict[str, Outcome] = {}
    done: dict[Callable[[Extent], Outcomes], Outcomes] = {}
    for row in rows:
        if row.measure not in done:
            done[row.measure] = row.measure(extent)
        found[row.name] = done[row.measure][row.name]
        told(row, found[row.name])
    return found


def spread(found: Found) -> str:
    return f"{found.low:.3g} … {found.high:.3g}"


def print_row(row: Row, outcome: Outcome) -> None:
    match outcome:
        case Skipped(why):
            click.echo(f"{row.name:<17} {'':>8} {row.goal!s:>9}  skipped: {why}")
        case Found() as found:
            value = f"{found.value:.3g} {row.goal.unit}".strip()
            mark = "" if row.goal.met(found.value) else "MISSED"
            beside = f"{found.ours} beside {found.beside}" if found.beside else found.ours
            click.echo(f"{row.name:<17} {value:>8} {row.goal!s:>9}  {mark:<6} {spread(found):<18} {beside}")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", metavar="NAME", multiple=True, help="Measure the rows whose names begin so.")
@click.option(
    "--json",
    "file",
    metavar="FILE",
    type=Path,
    help="Write what was measured to FILE, beside what it has of other rows.",
)
@click.option("--plot", metavar="FILE", type=Path, help="Draw how cost grows, as SVG, into FILE.")
def main(only: tuple[str, ...], file: Path | None, plot: Path | None) -> None:
    """Measure taskd beside the floor and its peers, and print what was measured beside what is to be reached."""
    began = time.time()
    rows = chosen(only, plot=plot is not None)
    click.echo(f"{machine()}; load {load()}")
    click.echo(f"{'row':<17} {'median':>8} {'goal':>9}  {'':<6} {'lowest … highest':<18} ours beside the other's")
    said = json.loads(file.read_text())["rows"] if file is not None and file.exists() else {}
    head = {"date": time.strftime("%Y-%m-%d", time.gmtime(began)), "machine": machine(), "load": load()}

    def told(row: Row, outcome: Outcome) -> None:
        print_row(row, outcome)
        said[row.name] = {**attrs.asdict(outcome), "goal": str(row.goal)}
        if file is not None:
            file.write_text(json.dumps({**head, "rows": said}, indent=1) + "\n")

    found = measured(rows, FULL, told)
    click.echo(f"{time.time() - began:.0f} s; load {load()}")
    if plot is not None:
        plot.write_text(
            svg([curve for each in found.values() if isinstance(each, Found) for curve in each.curves])
        )


if __name__ == "__main__":
    main()
