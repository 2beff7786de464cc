"""Rows of the benchmarks' table: printed where they are measured, and collected by ``run.py``."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass

COUNT, TIME, MEMORY = "count", "time", "memory"  # a count is the same at each run; the others depend on the machine


@dataclass(frozen=True)
class Row:
    """One answer: ``value`` in ``unit``, and the largest or smallest value that the project wants (``<= 1.1``)."""

    question: str
    what: str
    value: float
    unit: str
    kind: str
    goal: str = ""

    @property
    def met(self) -> bool:
        """Whether the goal is reached; true where there is none."""
        if not self.goal:
            return True
        sign, _, limit = self.goal.partition(" ")
        return self.value <= float(limit) if sign == "<=" else self.value >= float(limit)

    def __str__(self) -> str:
        goal = f"{self.goal:>9} {'' if self.met else 'missed'}" if self.goal else ""
        return f"{self.question:24} {self.what:52} {self.value:12,.3f} {self.unit:10} {goal}".rstrip()


def row(question: str, what: str, value: float, unit: str = "x", kind: str = TIME, goal: str = "") -> None:
    """Print one answer, and hand it to ``run.py`` if that is who asks. ``unit`` x is a ratio to what is plain."""
    made = Row(question, what, round(value, 4), unit, kind, goal)
    print(made, flush=True)
    if "BENCH_ROWS" in os.environ:
        with open(os.environ["BENCH_ROWS"], "a") as file:
            file.write(json.dumps(asdict(made)) + "\n")
