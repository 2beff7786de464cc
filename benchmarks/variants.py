"""Variants of one site, each in a process of its own that serves requests when it is told to; both sides of the pipe.

Counts come from a profiler and are the same at each run; processor time is compared between
turns that follow each other, because the machine is shared.
"""

from __future__ import annotations

import cProfile
import json
import os
import pstats
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TURNS, ROUNDS = 80, 3 if os.environ.get("BENCH_QUICK") else 12
LONGEST, REQUESTS = 0.2, 400  # seconds of one round, and its most requests


@dataclass(frozen=True)
class Cost:
    """Of one request: Python and C calls, statements, microseconds of processor time; their ratios to the first.

    ``visited``: how often Django looks whether a connection is to be closed; ``built``: wrappers that are made.
    """

    calls: float
    statements: float
    visited: float
    built: float
    micros: float
    calls_ratio: float
    micros_ratio: float


class Variant:
    """The harness's side: a process that runs ``script`` and answers."""

    def __init__(self, script: str, *arguments: object, name: str = "", python: str = sys.executable) -> None:
        self.name = name or str(arguments[0])
        command = [python, str(HERE / script), *map(str, arguments)]
        self._process = subprocess.Popen(
            command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def counted(self) -> dict[str, float]:
        """Calls, statements, connections visited and wrappers built by one request."""
        return dict(self._ask("count"))

    def timed(self, requests: int) -> float:
        """Microseconds of processor time of one request."""
        return float(self._ask(f"time {requests}"))

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=60)

    def _ask(self, what: str) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args} failed:\n{self._process.communicate()[1][-3000:]}")
        return json.loads(line)


def compare(variants: Iterable[Variant]) -> dict[str, Cost]:
    """Cost by name; the first is what the others are compared with."""
    living = list(variants)
    counts = {variant.name: variant.counted() for variant in living}
    requests = {}
    for variant in living:
        requests[variant.name] = max(5, min(REQUESTS, int(LONGEST * 1e6 / variant.timed(5))))
    times = [{variant.name: variant.timed(requests[variant.name]) for variant in living} for _ in range(ROUNDS)]
    for variant in living:
        variant.close()
    return {variant.name: _cost(variant.name, living[0].name, counts, times) for variant in living}


def _cost(name: str, first: str, counts: Mapping[str, Any], times: list[dict[str, float]]) -> Cost:
    return Cost(
        calls=counts[name]["calls"],
        statements=counts[name]["statements"],
        visited=counts[name]["visited"],
        built=counts[name]["built"],
        micros=statistics.median(turn[name] for turn in times),
        calls_ratio=counts[name]["calls"] / counts[first]["calls"],
        micros_ratio=statistics.median(turn[name] / turn[first] for turn in times),
    )


def answer(request: Callable[[int], None], statements: Callable[[], int], timing: Callable[[], None] = int) -> None:
    """The site's side: ``request(number)`` handles one request, ``timing()`` is called before a round."""
    for number in range(TURNS):
        request(number)
    for line in sys.stdin:
        what, _, requests = line.strip().partition(" ")
        if what == "count":
            found: Any = _count(request, statements)
        else:
            timing()
            found = _time(request, int(requests))
        print(json.dumps(found), flush=True)


def _count(request: Callable[[int], None], statements: Callable[[], int]) -> dict[str, float]:
    before, profile = statements(), cProfile.Profile()
    profile.enable()
    for number in range(TURNS):
        request(number)
    profile.disable()
    found: Any = pstats.Stats(profile)
    counts = {"calls": found.total_calls, "statements": statements() - before}
    counts["visited"] = _calls_of(found, "close_if_unusable_or_obsolete")
    counts["built"] = _calls_of(found, "__init__")
    return {name: count / TURNS for name, count in counts.items()}


def _calls_of(found: Any, name: str) -> int:
    """Of a method of Django's ``BaseDatabaseWrapper``."""
    return sum(
        calls
        for (file, _, function), (_, calls, *_) in found.stats.items()
        if function == name and file.endswith(os.path.join("db", "backends", "base", "base.py"))
    )


def _time(request: Callable[[int], None], requests: int) -> float:
    began = time.process_time()
    for number in range(requests):
        request(number)
    return (time.process_time() - began) / requests * 1e6
