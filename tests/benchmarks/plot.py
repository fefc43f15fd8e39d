"""Curves as SVG: one panel for all that are by the same, both axes logarithmic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Final
from xml.sax.saxutils import escape

from tests.benchmarks.measure import Curve

# Pixels.
WIDTH: Final = 320
HEIGHT: Final = 240
LEFT: Final = 60
TOP: Final = 24
GAP: Final = 100

# As many curves as there may be in a panel.
COLOURS: Final = ("#0b6e99", "#c4532d", "#4d8b31", "#7b4fa3", "#111111")


def svg(curves: Sequence[Curve]) -> str:
    """Raises ValueError: more curves are by the same than there are colours."""
    panels = [list(group) for _, group in groupby(curves, key=lambda curve: curve.by)]
    body = "".join(panel(group, LEFT + number * (WIDTH + GAP)) for number, group in enumerate(panels))
    width, height = LEFT + len(panels) * (WIDTH + GAP), TOP + HEIGHT + 120
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        f' font-size="11">\n<rect width="{width}" height="{height}" fill="white"/>\n{body}</svg>\n'
    )


def panel(curves: Sequence[Curve], left: int) -> str:
    xs = decades([x for curve in curves for x, _ in curve.points])
    ys = decades([y for curve in curves for _, y in curve.points])

    def across(x: float) -> float:
        return left + (math.log10(x) - xs[0]) / (xs[-1] - xs[0]) * WIDTH

    def down(y: float) -> float:
        return TOP + HEIGHT - (math.log10(y) - ys[0]) / (ys[-1] - ys[0]) * HEIGHT

    said = []
    for power in xs:
        x = across(10.0**power)
        said.append(line(x, TOP, x, TOP + HEIGHT) + text(x, TOP + HEIGHT + 16, f"10{raised(power)}", "middle"))
    for power in ys:
        y = down(10.0**power)
        said.append(line(left, y, left + WIDTH, y) + text(left - 6, y + 4, f"10{raised(power)}", "end"))
    said.append(text(left + WIDTH / 2, TOP + HEIGHT + 34, curves[0].by, "middle"))
    for number, (curve, colour) in enumerate(zip(curves, COLOURS[: len(curves)], strict=True)):
        points = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in curve.points)
        said.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>\n')
        said += [
            f'<circle cx="{across(x):.1f}" cy="{down(y):.1f}" r="3" fill="{colour}"/>\n' for x, y in curve.points
        ]
        said.append(text(left, TOP + HEIGHT + 52 + 15 * number, f"{curve.name}, {curve.unit}", "start", colour))
    return "".join(said)


def decades(values: Sequence[float]) -> range:
    """The powers of ten that hold them all, at least two."""
    low = math.floor(math.log10(min(values)))
    return range(low, max(math.ceil(math.log10(max(values))), low + 1) + 1)


def raised(power: int) -> str:
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#dddddd"/>\n'


def text(x: float, y: float, words: str, anchor: str, colour: str = "#222222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>\n'
