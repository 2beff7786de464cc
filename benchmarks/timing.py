"""Times two ways to do the same thing within one run: interleaved, medians, a ratio."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

ROUNDS = 10 if os.environ.get("BENCH_QUICK") else 40


@dataclass(frozen=True)
class Comparison:
    """Medians of processor time in seconds per call, of what is measured and of what it is measured against."""

    ours: float
    plain: float

    @property
    def ratio(self) -> float:
        """How many times as long ours takes."""
        return self.ours / self.plain


def compare(
    ours: Callable[[], object],
    plain: Callable[[], object],
    *,
    calls: int,
    rounds: int = ROUNDS,
    around: object = None,
) -> Comparison:
    """Run both by turns, ``rounds`` times ``calls`` calls each.

    ``around`` has ``before_ours`` and ``before_plain``, called outside of what is timed.
    """
    found: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(rounds):
        for name, function in (("ours", ours), ("plain", plain)):
            if around is not None:
                getattr(around, f"before_{name}")()
            began = time.process_time()
            for _ in range(calls):
                function()
            found[name].append((time.process_time() - began) / calls)
    return Comparison(statistics.median(found["ours"]), statistics.median(found["plain"]))
