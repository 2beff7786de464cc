"""The graph of the README: what a request costs with ever more tenants, against plain Django; SVG without a library."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

WIDTH, HEIGHT = 760, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 190, 40, 50
COLOURS = {
    "tenant_router": "#0f766e",
    "plain": "#6b7280",
    "aliases": "#b91c1c",
    "django-tenants": "#1d4ed8",
    "django-pgschemas": "#7c3aed",
    "django-tenants-router": "#c2410c",
    "django-multitenant": "#a16207",
}
NAMES = {"plain": "plain Django", "aliases": "Django, all in DATABASES"}
_QUESTION = re.compile(r"request, ([0-9,]+) tenants")


def request_cost(rows: Iterable[Mapping[str, Any]]) -> str:
    """An SVG document of the rows of ``peers.py``."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        found = _QUESTION.fullmatch(row["question"])
        name, _, what = row["what"].partition(": ")
        if found and what == "processor time":
            lines.setdefault(name, []).append((int(found[1].replace(",", "")), row["value"]))
    registered = sorted({count for points in lines.values() for count, _ in points})
    highest = max(value for points in lines.values() for _, value in points)
    scale = _Scale(registered, highest)
    parts = [
        *_frame(scale),
        *(part for name in lines for part in _line(name, lines[name], scale)),
        *_labels(lines, scale),
    ]
    return "\n".join([_HEAD, *parts, "</svg>", ""])


class _Scale:
    """Both axes are logarithmic."""

    def __init__(self, registered: list[int], highest: float) -> None:
        self.registered = registered
        self._across = math.log10(registered[0]), max(math.log10(registered[-1]), math.log10(registered[0]) + 0.1)
        self._up = math.log10(0.8), math.log10(highest * 1.15)
        self.ticks = [tick for tick in (1, 1.5, 2, 3, 5, 10, 20, 50) if tick <= highest * 1.15]

    def x(self, count: float) -> float:
        low, high = self._across
        return LEFT + (math.log10(count) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, ratio: float) -> float:
        low, high = self._up
        return HEIGHT - BOTTOM - (math.log10(ratio) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)


_HEAD = (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
    'font-family="system-ui, sans-serif" font-size="12" aria-labelledby="title">\n'
    '<title id="title">Processor time of a request against plain Django, by registered tenants</title>\n'
    f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
)


def _frame(scale: _Scale) -> Iterable[str]:
    yield f'<text x="{LEFT}" y="20" fill="#111827" font-size="14">Processor time of a request, plain Django = 1</text>'
    for tick in scale.ticks:
        y = scale.y(tick)
        yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e7eb"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end" fill="#374151">{tick:g}</text>'
    for count in scale.registered:
        x = scale.x(count)
        yield f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle" fill="#374151">{count:,}</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text x="{middle:.0f}" y="{HEIGHT - 10}" text-anchor="middle" fill="#374151">registered tenants</text>'


def _line(name: str, points: list[tuple[int, float]], scale: _Scale) -> Iterable[str]:
    colour, wide = COLOURS.get(name, "#000000"), 3 if name == "tenant_router" else 1.5
    where = [(scale.x(count), scale.y(value)) for count, value in sorted(points)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in where)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{wide}"/>'
    for x, y in where:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{wide + 1}" fill="{colour}"/>'


def _labels(lines: Mapping[str, list[tuple[int, float]]], scale: _Scale) -> Iterable[str]:
    """One beside the end of each line, moved apart where they would lie on each other."""
    ends = sorted((scale.y(max(points)[1]), name, max(points)) for name, points in lines.items())
    lowest = 0.0
    for y, name, (count, value) in ends:
        at = max(y + 4, lowest + 15)
        lowest = at
        shown = f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
        text = escape(f"{NAMES.get(name, name)} {shown}")
        x = max(scale.x(count), scale.x(scale.registered[-1])) + 12
        yield f'<text x="{x:.1f}" y="{at:.1f}" fill="{COLOURS.get(name, "#000000")}">{text}</text>'
