"""Plots as SVG: lines between logarithmic axes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 320, 60, 20, 40, 40
COLOURS = ("#1f77b4", "#d62728", "#2ca02c")


class Series(NamedTuple):
    """One line: its name and its points, all above 0."""

    name: str
    points: list[tuple[float, float]]


def chart(x_title: str, y_title: str, series: Sequence[Series]) -> str:
    """An SVG document."""
    points = [point for line in series for point in line.points]
    first, last = log10(min(x for x, _ in points)), log10(max(x for x, _ in points))
    bottom, top = floor(log10(min(y for _, y in points))), ceil(log10(max(y for _, y in points)))

    def place(x: float, y: float) -> tuple[float, float]:
        right = (log10(x) - first) / ((last - first) or 1)
        up = (log10(y) - bottom) / ((top - bottom) or 1)
        return LEFT + right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    ]
    for exponent in range(bottom, top + 1):
        value = 10.0**exponent
        _, y = place(10**first, value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for number in sorted({x for x, _ in points}):
        x, _ = place(number, 10.0**bottom)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{number:,g}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_title)}</text>')
    parts.append(f'<text x="6" y="14">{escape(y_title)}</text>')
    for index, line in enumerate(series):
        colour = COLOURS[index % len(COLOURS)]
        path = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in line.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{LEFT + 10}" y="{TOP - 8 + 16 * index}" fill="{colour}">{escape(line.name)}</text>')
    return "\n".join([*parts, "</svg>", ""])
