"""One WSGI request with one indexed query, tenants in turn, against plain Django over as many databases.

    python benchmarks/request.py [--tenants 10 1000 10000]

Each variant runs in a process of its own. Counts (Python and C calls by the profiler, statements)
are the same at each run; processor time is the median of rounds that take turns.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TURNS, REQUESTS, ROUNDS = 80, 400, 12
PLAIN = "plain"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, nargs="+", default=[10, 1_000, 10_000])
    registered = parser.parse_args().tenants
    for visited in (1, 8):
        print(f"\n{visited} visited")
        print(f"{'registered':>10} {'calls':>8} {'ratio':>6} {'statements':>11} {'us':>8} {'ratio':>6}")
        for line in _compared(visited, [PLAIN, *map(str, registered)]):
            print(line)


def _compared(visited: int, names: list[str]) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        variants = {name: _Variant(name, visited, folder) for name in names}
        found = {name: variant.counted() for name, variant in variants.items()}
        times = [{name: variant.timed() for name, variant in variants.items()} for _ in range(ROUNDS)]
    plain = found[PLAIN]["calls"]
    for name, one in found.items():
        micros = statistics.median(turn[name] for turn in times)
        ratio = statistics.median(turn[name] / turn[PLAIN] for turn in times)
        counts = f"{one['calls']:8.1f} {one['calls'] / plain:6.3f} {one['statements']:11.1f}"
        yield f"{name:>10} {counts} {micros:8.1f} {ratio:6.3f}"


class _Variant:
    """A process that serves requests when it is told to."""

    def __init__(self, name: str, visited: int, folder: str) -> None:
        command = [sys.executable, str(HERE / "request_site.py"), name, str(visited), folder]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def counted(self) -> dict[str, Any]:
        return dict(self._ask("count"))

    def timed(self) -> float:
        """Microseconds of processor time per request."""
        return float(self._ask("time"))

    def _ask(self, what: str) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def answer(request: Any, statements: Any) -> None:
    """Serve as the other process: ``request(number)`` handles one request; ``statements()`` counts since the start."""
    for number in range(TURNS):
        request(number)
    for line in sys.stdin:
        print(json.dumps(_count(request, statements) if line.strip() == "count" else _time(request)), flush=True)


def _count(request: Any, statements: Any) -> dict[str, float]:
    before, profile = statements(), cProfile.Profile()
    profile.enable()
    for number in range(TURNS):
        request(number)
    profile.disable()
    calls = pstats.Stats(profile).total_calls  # type: ignore[attr-defined]
    return {"calls": calls / TURNS, "statements": (statements() - before) / TURNS}


def _time(request: Any) -> float:
    began = time.process_time()
    for number in range(REQUESTS):
        request(number)
    return (time.process_time() - began) / REQUESTS * 1e6


if __name__ == "__main__":
    main()
