"""``python -m tests.benchmarks.bounds [--only NAME]... [--json FILE]``: what bounds the missed rows, and profiles.

Each is measured once more with a third side: the barest program that could do the job (``bare``), by the same
client, in turn in one run. A goal that this does not reach is out of reach of trio and SQLite on that machine;
what is between this and ours is taskd's own work. Where that goes, a profile of the row's calls says.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs
import click

from tests.benchmarks import answering, clients, durable, peers, steps, stored
from tests.benchmarks.__main__ import load, machine
from tests.benchmarks.measure import FULL, Extent, Found, Missing, Side, in_turn, per_second, ratio
from tests.benchmarks.profiled import Calls, Profile, profile
from tests.benchmarks.table import ROWS, Goal

# What was said by each side in each round: ``peer``, ``bare``, ``ours``.
Said: TypeAlias = Mapping[str, Sequence[float]]

# Beside the row's own: the bare server on 64 connections beside itself on one, where its requests come together.
ITSELF: Final = "stat-64-bare"

# Milliseconds that a sync takes longer on the disks of ``many_on``: from a fast one to one that turns.
SLOWER: Final = (1, 2, 5)

# The rows that are not in the table, and the one there whose goal they have.
BESIDE: Final = {ITSELF: "stat-64-sum", **{f"start-64-{ms}ms": "start-64-disk" for ms in SLOWER}}

# What the bare program does for one.
DOES: Final = {
    "stat-qemu": "a read and a write by trio",
    "stat-64-sum": "a read and a write by trio, where on one connection many requests share them",
    ITSELF: "the same, beside the bare server on one connection",
    "stat-http": "a read and a write by trio",
    **{f"start-64-{ms}ms": "the same, where each sync takes so much longer" for ms in SLOWER},
    "life-qemu": "three durable writes, one after the other, each by a thread",
    "start-64-disk": "an INSERT by the writer's thread, beside the loop that answers, on one Python lock",
    "step-dbos": "four durable writes, one after the other, each by a thread",
    "step-huey": "four durable writes, one after the other, each by a thread",
}


@attrs.frozen
class Bound:
    """One row: the medians of each side a second, and the ratios, round by round."""

    peer: float
    bare: float
    ours: float
    bare_by_peer: Found
    ours_by_peer: Found
    ours_by_bare: Found

    @classmethod
    def of(cls, said: Said) -> Bound:
        peer, bare, ours = (said[side] for side in ("peer", "bare", "ours"))
        return cls(
            statistics.median(peer),
            statistics.median(bare),
            statistics.median(ours),
            ratio(bare, peer, per_second),
            ratio(ours, peer, per_second),
            ratio(ours, bare, per_second),
        )

    def sentence(self, row: str, goal: Goal) -> str:
        """What bounds the row."""
        if goal.met(self.ours_by_peer.value):
            return "reached"
        if goal.met(self.bare_by_peer.value):
            return f"the barest reaches it ({DOES[row]}): what is missing is taskd's own work"
        return f"the barest does not reach it: {DOES[row]}"


@contextmanager
def bare(what: str, under: Sequence[str] = ()) -> Iterator[str]:
    """The socket of a bare server."""
    with peers.folder() as own:
        path = str(own / "s")
        with peers.served(path, *under, sys.executable, "-m", "tests.benchmarks.bare", path, what):
            yield path


def one_at_a_time(path: str, line: bytes, extent: Extent) -> float:
    with clients.connected(path) as sock:
        return clients.rate(clients.one_at_a_time(sock, [line], extent.seconds))


def in_flight(path: str, line: bytes, extent: Extent) -> float:
    with clients.connected(path) as sock:
        return clients.in_flight(sock, line, answering.WINDOW, extent.seconds)


def crowd(path: str, line: bytes, extent: Extent) -> float:
    with ExitStack() as stack:
        socks = [stack.enter_context(clients.connected(path)) for _ in range(durable.MANY)]
        return clients.crowd(socks, [line], extent.seconds).rate


def over_http(path: str, whole: bytes, extent: Extent) -> float:
    with clients.connected(path) as sock:
        return clients.over_http(sock, whole, extent.seconds)


def life(path: str, extent: Extent) -> float:
    def once() -> None:
        id = clients.ask(sock, "Task.start", operation="external")["id"]
        clients.ask(sock, "Task.complete", id=id)
        clients.ask(sock, "Task.destroy", id=id)

    with clients.connected(path) as sock:
        return clients.repeated(once, extent.seconds)


def alone(extent: Extent) -> Mapping[str, Said]:
    with answering.one_task() as (path, line), bare("lines") as floor, peers.storage_daemon() as qemu:
        sides: dict[str, Side] = {
            "peer": lambda: clients.rate(clients.one_at_a_time(qemu.sock, [qemu.QUERY], extent.seconds)),
            "bare": partial(one_at_a_time, floor, line, extent),
            "ours": partial(one_at_a_time, path, line, extent),
        }
        return {"stat-qemu": in_turn(extent.rounds, sides)}


def together(extent: Extent) -> Mapping[str, Said]:
    with answering.one_task() as (path, line), bare("lines") as floor:
        sides: dict[str, Side] = {
            "peer": partial(in_flight, path, line, extent),
            "itself": partial(in_flight, floor, line, extent),
            "bare": partial(crowd, floor, line, extent),
            "ours": partial(crowd, path, line, extent),
        }
        said = in_turn(extent.rounds, sides)
        return {"stat-64-sum": said, ITSELF: {**said, "peer": said["itself"]}}


def http(extent: Extent) -> Mapping[str, Said]:
    asked = clients.posted("/RPC2", answering.PROCESS_INFO, "text/xml")
    with (
        answering.one_task() as (path, line),
        bare("http") as floor,
        peers.supervisor() as other,
    ):
        whole = clients.posted("/jsonrpc", line, "application/json")
        sides: dict[str, Side] = {
            "peer": partial(over_http, other, asked, extent),
            "bare": partial(over_http, floor, whole, extent),
            "ours": partial(over_http, path, whole, extent),
        }
        return {"stat-http": in_turn(extent.rounds, sides)}


def one_life(extent: Extent) -> Mapping[str, Said]:
    numbers = count()

    def job() -> None:
        name = f"j{next(numbers)}"
        qemu.create(name)
        qemu.dismiss(name)

    with peers.taskd() as daemon, bare("store") as floor, peers.storage_daemon() as qemu:
        sides: dict[str, Side] = {
            "peer": lambda: clients.repeated(job, extent.seconds),
            "bare": partial(life, floor, extent),
            "ours": partial(life, daemon.socket, extent),
        }
        return {"life-qemu": in_turn(extent.rounds, sides)}


def many(extent: Extent) -> Mapping[str, Said]:
    """On this disk, and with what a sync takes longer on slower ones, which is made the same for all sides."""
    on_slower = {f"start-64-{ms}ms": many_on(extent, ms) for ms in SLOWER}
    return {"start-64-disk": many_on(extent), **on_slower}


def many_on(extent: Extent, slower: int = 0) -> Said:
    syncs = "fsync,fdatasync"
    delays = ("--seccomp-bpf", "-e", f"trace={syncs}", "-e", f"inject={syncs}:delay_enter={slower}ms")
    under = (peers.tool("strace", "strace"), "-D", "-f", "-qqq", "-o", "/dev/null", *delays) if slower else ()
    with (
        peers.taskd(settings=durable.PLENTY, under=under) as daemon,
        bare("store", under) as floor,
        durable.synced(daemon.folder) as sync,
    ):

        def one() -> None:
            time.sleep(slower / 1000)
            sync()

        sides: dict[str, Side] = {
            "peer": lambda: clients.repeated(one if slower else sync, extent.seconds),
            "bare": partial(crowd, floor, durable.START, extent),
            "ours": partial(crowd, daemon.socket, durable.START, extent),
        }
        return in_turn(extent.rounds, sides)


def one_step(extent: Extent) -> Mapping[str, Said]:
    with (
        steps.package(),
        peers.taskd() as daemon,
        clients.connected(daemon.socket) as sock,
        bare("store") as floor,
        steps.queue("dbos") as dbos,
        steps.queue("huey") as huey,
    ):
        sides: dict[str, Side] = {
            "dbos": lambda: dbos(extent.steps),
            "huey": lambda: huey(extent.steps),
            "bare": partial(one_at_a_time, floor, clients.request("Task.run"), extent),
            "ours": lambda: clients.repeated(partial(steps.life, sock), extent.seconds),
        }
        said = in_turn(extent.rounds, sides)
        return {f"step-{name}": {**said, "peer": said[name]} for name in ("dbos", "huey")}


# In the order of the table; what measures several rows is there once.
MEASURES: Final[Mapping[str, Callable[[Extent], Mapping[str, Said]]]] = {
    "stat-qemu": alone,
    "stat-64-sum": together,
    "stat-http": http,
    "life-qemu": one_life,
    "start-64-disk": many,
    "step-": one_step,
}


def one_status(ask: Callable[[str, bytes, Extent], float]) -> Calls:
    """Asks for the status of one task."""

    def calls(path: str, extent: Extent) -> float:
        with clients.connected(path) as sock:
            id = clients.ask(sock, "Task.start", operation="external")["id"]
        return ask(path, clients.request("Task.stat", id=id, dbg=""), extent)

    return calls


def status_over_http(path: str, line: bytes, extent: Extent) -> float:
    return over_http(path, clients.posted("/jsonrpc", line, "application/json"), extent)


def start_by_many(path: str, extent: Extent) -> float:
    return crowd(path, durable.START, extent)


def with_a_step(path: str, extent: Extent) -> float:
    with clients.connected(path) as sock:
        return clients.repeated(partial(steps.life, sock), extent.seconds)


def list_all(path: str, extent: Extent) -> float:
    return one_at_a_time(path, clients.request("Task.ls", dbg=""), extent)


@attrs.frozen
class Look:
    """What is profiled for ``rows``: ``calls``, of a daemon with no tasks or with all of the ``stored`` ones."""

    rows: Sequence[str]
    calls: Calls
    stored: bool = False


LOOKS: Final[Mapping[str, Look]] = {
    "``Task.stat``": Look(["stat-qemu"], one_status(one_at_a_time)),
    "``Task.stat``, 64 connections": Look(["stat-64-sum"], one_status(crowd)),
    "``Task.stat`` over HTTP": Look(["stat-http"], one_status(status_over_http)),
    "start, complete, destroy": Look(["life-qemu"], life),
    "``Task.start``, 64 clients": Look(["start-64-disk"], start_by_many),
    "a task with one step": Look(["step-dbos", "step-huey"], with_a_step),
    "``Task.ls`` of 1,000,000": Look(["grows-tasks"], list_all, stored=True),
}

# Seconds of a look: the kernel counts in hundredths.
PROFILED: Final = attrs.evolve(FULL, seconds=2.0)


def profiled(only: Sequence[str], extent: Extent) -> Iterator[tuple[str, Profile]]:
    for name, look in LOOKS.items():
        if not only or any(row.startswith(tuple(only)) for row in look.rows):
            with steps.package(), stored.state(extent.stored if look.stored else 0) as folder:
                yield name, profile(folder, look.calls, extent)


def measured(only: Sequence[str], extent: Extent) -> Iterator[tuple[str, Bound]]:
    """Row by row. Raises Missing."""
    for name, measure in MEASURES.items():
        if not only or name.startswith(tuple(only)) or any(each.startswith(name) for each in only):
            for row, said in measure(extent).items():
                yield row, Bound.of(said)


# What was measured last on a machine that did nothing else, as ``--json`` writes it; README.rst has these figures.
KEPT: Final = Path(__file__).parent / "bounds.json"


def kept() -> dict[str, Any]:
    """``date``, ``machine``, ``load``, ``rows`` by name, and ``profiles`` by what is called."""
    read: dict[str, Any] = json.loads(KEPT.read_text())
    return read


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", metavar="NAME", multiple=True, help="Measure the rows whose names begin so.")
@click.option("--json", "file", metavar="FILE", type=Path, help="Write what was measured to FILE.")
def main(only: tuple[str, ...], file: Path | None) -> None:
    """Measure what bounds the rows that are missed: the peer, the barest program that does the job, and taskd; and
    where taskd's time goes.
    """
    head = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "machine": machine(), "load": load()}
    click.echo(f"{machine()}; load {load()}")
    goals = {row.name: row.goal for row in ROWS}
    goals |= {row: goals[other] for row, other in BESIDE.items()}
    sides = f"{'row':<14} {'goal':>7} {'peer':>9} {'bare':>9} {'ours':>9}"
    click.echo(f"{sides}  bare÷peer  ours÷peer  ours÷bare  what bounds it")
    rows: dict[str, object] = {}
    profiles: dict[str, object] = {}
    try:
        for row, bound in measured(only, FULL):
            sides = " ".join(f"{per_second(side):>9}" for side in (bound.peer, bound.bare, bound.ours))
            ratios = "  ".join(
                f"{each.value:>9.3g}" for each in (bound.bare_by_peer, bound.ours_by_peer, bound.ours_by_bare)
            )
            sentence = bound.sentence(row, goals[row])
            click.echo(f"{row:<14} {goals[row]!s:>7} {sides}  {ratios}  {sentence}")
            rows[row] = {**attrs.asdict(bound), "goal": str(goals[row]), "bound": sentence}
    except Missing as missing:
        raise click.ClickException(str(missing)) from None
    click.echo("\nmicroseconds of a call: from one answer to the next, and of the processor")
    click.echo(
        f"{'':<30} {'in all':>8} {'loop':>8} {'kernel':>8} {'others':>8} {'kernel':>8}  the loop's functions"
    )
    for name, each in profiled(only, PROFILED):
        said = " ".join(f"{value:>8.0f}" for value in (each.in_all, *attrs.astuple(each.spent)))
        click.echo(f"{name:<30} {said}  {in_words(each.functions)}")
        profiles[name] = attrs.asdict(each)
    if file is not None:
        found = {**head, "rows": rows, "profiles": profiles}
        file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def in_words(functions: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in functions.items())


if __name__ == "__main__":
    main()
