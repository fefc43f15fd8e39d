"""README's table of speed and the benchmarks are one: each row has its benchmark, and each benchmark still runs.

How fast anything is, is not asked here.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from xml.etree import ElementTree

import attrs
import pytest

from tests import readme
from tests.benchmarks import bounds, clients, growth, peers, profiled, steps
from tests.benchmarks.measure import TINY, Curve, Extent, Found, Missing, Outcomes, Skipped, in_turn, ratio
from tests.benchmarks.plot import COLOURS, svg
from tests.benchmarks.table import ROWS, figures

MEASURES = list(dict.fromkeys(row.measure for row in ROWS))


@pytest.fixture(scope="module", autouse=True)
def one_daemon() -> Iterator[None]:
    with steps.package(), peers.sharing():  # one of them asks for the operation of a package
        yield


def test_each_row_of_the_readme_has_its_benchmark_and_each_benchmark_its_row() -> None:
    table = re.search(r"\.\. begin speed\n(.*)\.\. end speed\n", readme.README.read_text(), re.DOTALL)
    assert table is not None

    told = re.findall(r"^   \* - ``(.+)``$", table[1], re.MULTILINE)

    assert told == [row.name for row in ROWS]
    assert len(set(told)) == len(told)
    assert set(figures()["rows"]) <= set(told)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.__name__)
def test_every_benchmark_runs_and_says_what_its_rows_ask(measure: Callable[[Extent], Outcomes]) -> None:
    outcomes = measure(TINY)

    assert set(outcomes) == {row.name for row in ROWS if row.measure == measure}
    for outcome in outcomes.values():
        match outcome:
            case Found() as found:
                assert found.low <= found.value <= found.high
            case Skipped(why):
                assert why


@pytest.mark.parametrize("only", bounds.MEASURES)
def test_what_bounds_a_row_is_measured_beside_the_same_peer(only: str) -> None:
    goals = {row.name: row.goal for row in ROWS}
    try:
        for row, bound in bounds.measured([only], TINY):
            assert min(bound.peer, bound.bare, bound.ours) > 0
            assert "reach" in bound.sentence(row, goals[bounds.BESIDE.get(row, row)])
    except Missing as missing:
        pytest.skip(str(missing))


def test_each_profile_is_of_calls_that_are_answered() -> None:
    with peers.taskd() as daemon:
        assert all(look.calls(daemon.socket, TINY) > 0 for look in bounds.LOOKS.values())


def test_where_the_time_goes_is_told_by_thread_and_by_function() -> None:
    ((name, profile),) = bounds.profiled(["stat-qemu"], TINY)

    assert name in bounds.LOOKS
    assert profile.in_all > 0
    assert min(attrs.astuple(profile.spent)) >= 0
    assert profile.functions
    assert 0 < sum(profile.functions.values()) <= 1


def test_each_row_that_is_missed_has_a_profile_that_says_why() -> None:
    kept = figures()["rows"]
    missed = {
        row.name for row in ROWS if "value" in kept.get(row.name, ()) and not row.goal.met(kept[row.name]["value"])
    }

    assert missed
    assert missed <= {row for look in bounds.LOOKS.values() for row in look.rows}
    assert set(bounds.kept()["rows"]) <= set(bounds.DOES)
    assert set(bounds.kept()["profiles"]) <= set(bounds.LOOKS)


def test_a_function_is_told_by_its_module() -> None:
    assert profiled.named(attrs.__file__, "asdict") == "attrs.asdict"
    assert profiled.named("~", "<method 'poll' of 'select.epoll' objects>") == "select.epoll.poll"
    assert profiled.named("~", "<built-in method posix.write>") == "posix.write"
    assert profiled.named("<attrs generated init taskd.model.Task>", "__init__") == "taskd.model.Task.__init__"


def test_a_figure_is_the_median_of_the_rounds_and_not_the_ratio_of_two_medians() -> None:
    found = ratio([10.0, 40.0, 90.0], [10.0, 10.0, 30.0], str)

    assert (found.value, found.low, found.high) == (3.0, 1.0, 4.0)


def test_the_sides_take_turns_and_no_side_is_always_the_first() -> None:
    turns: list[str] = []

    def side(name: str) -> Callable[[], float]:
        def measure() -> float:
            turns.append(name)
            return float(len(turns))

        return measure

    said = in_turn(3, {"one": side("one"), "other": side("other")})

    assert turns == ["one", "other", "other", "one", "one", "other"]
    assert said == {"one": [1.0, 4.0, 5.0], "other": [2.0, 3.0, 6.0]}


def test_the_steepest_step_is_so_in_the_median_of_the_rounds_and_is_told_with_what_they_were() -> None:
    """Flat is 0, linear is 1; one slow look makes no step."""
    flat = {10: [5.0, 5.0, 5.0], 100: [5.0, 5.0, 5000.0], 1000: [5.0, 5.0, 5.0]}
    linear = {10: [5.0, 5.0, 5.0], 100: [5.0, 50.0, 5.0], 1000: [50.0, 50.0, 500.0]}

    found = growth.grown("tasks", {("flat", "µs"): flat, ("linear", "µs"): linear})

    assert (found.value, found.low, found.high) == pytest.approx((1.0, 0.0, 2.0))
    assert found.ours == "linear, 100 to 1,000"
    assert [curve.points[-1] for curve in found.curves] == [(1000, 5.0), (1000, 50.0)]


def test_what_is_to_be_flat_is_told_where_it_is_dearest_beside_the_fewest() -> None:
    found = growth.dearest({10: [5.0, 5.0, 4.0], 100: [10.0, 5.0, 5.0], 1000: [5.0, 50.0, 4.0]})

    assert (found.value, found.low, found.high) == pytest.approx((1.25, 1.0, 2.0))
    assert (found.ours, found.beside) == ("5 µs at 100", "5 µs at 10")


def test_each_round_looks_at_every_size_of_what_grows() -> None:
    turns: list[int] = []

    def look(size: int) -> float:
        turns.append(size)
        return float(size)

    said = growth.in_rounds(attrs.evolve(TINY, rounds=3), [10, 100], {("size", ""): look})

    assert turns == [10, 100, 100, 10, 10, 100]
    assert said == {("size", ""): {10: [10.0] * 3, 100: [100.0] * 3}}


def test_a_server_that_hangs_up_ends_the_look_at_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.shutdown(socket.SHUT_WR)

        with pytest.raises(ConnectionError):
            clients.one_at_a_time(ours, [b"asked\n"], 0.0)


def test_a_plot_is_an_image_with_every_point_of_every_curve() -> None:
    tasks = [Curve(f"{number} <1>", "µs", "tasks", ((1, 5.0), (10, 50.0 + number))) for number in range(5)]
    connections = Curve("memory", "MiB", "connections", ((1, 7.0), (10, 7.0)))

    drawn = ElementTree.fromstring(svg([*tasks, connections]))

    lines = drawn.findall("{*}polyline")
    assert len(lines) == 6
    assert len({each.get("stroke") for each in lines[:5]}) == 5
    assert len(drawn.findall("{*}circle")) == 12
    assert {f"{number} <1>, µs" for number in range(5)} <= {each.text for each in drawn.findall("{*}text")}


def test_a_curve_for_which_there_is_no_colour_is_not_left_out() -> None:
    curves = [Curve(str(number), "µs", "tasks", ((1, 5.0), (10, 50.0))) for number in range(len(COLOURS) + 1)]

    with pytest.raises(ValueError, match="shorter"):
        svg(curves)
