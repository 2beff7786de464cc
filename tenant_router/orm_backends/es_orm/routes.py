"""The allow-list of requests that a tenant's client may make: what is not in ``route_table.py`` is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from tenant_router.orm_backends.es_orm import route_table

PARAMETERS = frozenset(route_table.PARAMETERS.split())


@dataclass(frozen=True)
class Route:
    """One line of the table."""

    methods: frozenset[str]
    path: str
    body: str
    answer: str

    @cached_property
    def segments(self) -> tuple[str, ...]:
        """The parts of the path; optional ones end in ``?``."""
        text = re.sub(r"\[/?\{(\w+)\}/?\]", r"/{\1}?/", self.path)
        return tuple(part for part in text.split("/") if part)


def _read() -> Iterator[Route]:
    for line in route_table.ROUTES.strip().splitlines():
        methods, path, body, answer = line.split()
        yield Route(frozenset(methods.split(",")), path, body, answer)


ROUTES = tuple(_read())

Shape = tuple[Route, tuple[str, ...], int | None]


def _shapes() -> dict[tuple[str, int], list[Shape]]:
    found: dict[tuple[str, int], list[Shape]] = {}
    for route in ROUTES:
        optional = next((place for place, part in enumerate(route.segments) if part.endswith("?")), None)
        parts = tuple(part.rstrip("?") for part in route.segments)
        for method in route.methods:
            found.setdefault((method, len(parts)), []).append((route, parts, None))
            if optional is not None:
                found.setdefault((method, len(parts) - 1), []).append((route, parts, optional))
    return found


_SHAPES = _shapes()


def find(method: str, segments: tuple[str, ...]) -> tuple[Route, list[tuple[str, str | None]]] | None:
    """The line for a request; and for each part of its path what stands there (``None``: it was left out)."""
    for route, parts, absent in _SHAPES.get((method, len(segments)), ()):
        given: tuple[str | None, ...] = segments
        if absent is not None:
            given = (*segments[:absent], None, *segments[absent:])
        if all(map(_fits, parts, given)):
            return route, list(zip(parts, given, strict=True))
    return None


def _fits(part: str, segment: str | None) -> bool:
    if segment is None or part == "{free}":
        return True
    if not part.startswith("{"):
        return part == segment
    # Elasticsearch prefers its own words, all of which begin with "_", where a name could stand as well.
    return not segment.startswith("_") or segment == "_all"
