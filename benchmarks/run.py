"""All benchmarks: prints a table, writes it with versions and facts of the machine to ``benchmarks/results.json``.

    python benchmarks/run.py            # make bench: under 15 minutes
    python benchmarks/run.py --quick    # make bench-quick: under a minute; fails when a count misses its goal
    python benchmarks/run.py --again boot.py loading.py  # these alone, in place of what the written results say of them
    python benchmarks/run.py --publish  # brings docs/benchmarks.md and the graph up to the written results

Times are never a reason to fail: the machine may be busy. Counts are the same everywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from graph import request_cost
from report import COUNT, Row

HERE = Path(__file__).resolve().parent
RESULTS, PAGE, GRAPH = (
    HERE / "results.json",
    HERE.parent / "docs" / "benchmarks.md",
    HERE.parent / "docs" / "request.svg",
)
QUICK = ("lookups.py", "binding.py", "request.py", "tasks.py")
SERVERS = (
    "config_store.py",
    "loading.py",
    "boot.py",
    "memory.py",
    "propagation.py",
    "served.py",
    "peers.py",
    "crowd.py",
    "fleet.py",
)
ALL = (*QUICK, "guards.py", *SERVERS)
PACKAGES = ("tenant_router", "Django", "psycopg", "redis", "celery", "gunicorn", "uvicorn")
BEGIN, END = "<!-- written by make bench -->", "<!-- end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the few that need no server; counts decide")
    parser.add_argument("--again", nargs="+", metavar="FILE", help="measure these alone; the other results stay")
    parser.add_argument("--publish", action="store_true", help="only write the page and the graph")
    options = parser.parse_args()
    if options.publish:
        publish(json.loads(RESULTS.read_text()))
        return
    began = time.monotonic()
    rows = measure(options.again or (QUICK if options.quick else ALL), quick=options.quick)
    print(f"\n{len(rows)} answers in {time.monotonic() - began:.0f} s")
    if options.quick:
        sys.exit(complaint([row for row in rows if row.kind == COUNT and not row.met]))
    results = described(rows)
    if options.again:
        results = renewed(json.loads(RESULTS.read_text()), results)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(f"written to {RESULTS}")


def measure(scripts: Sequence[str], *, quick: bool) -> list[Row]:
    """Run each in a process of its own; what one of them prints is shown at once."""
    with tempfile.TemporaryDirectory() as folder:
        collected = Path(folder) / "rows"
        collected.touch()
        variables = {**os.environ, "BENCH_ROWS": str(collected), "BENCH_QUICK": "1" if quick else ""}
        for script in scripts:
            done = subprocess.run([sys.executable, str(HERE / script)], env=variables)
            if done.returncode:
                sys.exit(f"{script} failed")
        return [Row(**json.loads(line)) for line in collected.read_text().splitlines()]


def complaint(missed: list[Row]) -> str | int:
    """What ``sys.exit`` is given."""
    return "\n".join(["these counts miss their goals:", *map(str, missed)]) if missed else 0


def described(rows: list[Row]) -> dict[str, Any]:
    """The rows, and where and with what they were measured."""
    peers = {made.parent.name: _version_in(made.parent) for made in sorted((HERE.parent / ".bench").glob("*/.made"))}
    return {
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": {"processors": os.cpu_count(), "system": platform.system(), "machine": platform.machine()},
        "versions": {"Python": platform.python_version(), **{name: _version(name) for name in PACKAGES}, **peers},
        "rows": [row.__dict__ | {"met": row.met} for row in rows],
    }


def renewed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """The results ``before``, but for the questions that ``after`` answers; the rows of those say when."""
    if not after["versions"].items() <= before["versions"].items():
        sys.exit("the written results are of other versions: measure all of it (make bench)")
    order = list(dict.fromkeys(row["question"] for row in [*before["rows"], *after["rows"]]))
    answered = {row["question"] for row in after["rows"]}
    rows = [row for row in before["rows"] if row["question"] not in answered]
    rows += [{**row, "at": after["at"]} for row in after["rows"]]
    return {**before, "rows": sorted(rows, key=lambda row: order.index(row["question"]))}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _version_in(folder: Path) -> str:
    command = [
        folder / "bin" / "python",
        "-c",
        f"from importlib.metadata import version; print(version('{folder.name}'))",
    ]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def publish(results: dict[str, Any]) -> None:
    """Write the table into the page, and the graph beside it."""
    GRAPH.write_text(request_cost(results["rows"]))
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{_tables(results)}\n{END}{after}")


def _tables(results: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    machine = "{processors} processors, {system} {machine}".format(**results["machine"])
    lines = [f"Measured {_times(results)} on {machine}: {versions}.", ""]
    lines += ["| question | what | value | goal | |", "|---|---|---|---|---|"]
    for each in results["rows"]:
        row = Row(**{name: value for name, value in each.items() if name not in ("met", "at")})
        verdict = "" if not row.goal else "met" if row.met else "**missed**"
        lines.append(f"| {row.question} | {row.what} | {row.value:,g} {row.unit} | {row.goal} | {verdict} |")
    return "\n".join(lines) + "\n"


def _times(results: dict[str, Any]) -> str:
    """When the whole was measured, and when the questions were that were measured again."""
    later: dict[str, dict[str, None]] = {}
    for row in results["rows"]:
        if "at" in row:
            later.setdefault(row["at"], {})[row["question"]] = None
    again = "; ".join(f"{', '.join(questions)}: {at}" for at, questions in sorted(later.items()))
    return f"{results['at']} ({again})" if again else results["at"]


if __name__ == "__main__":
    main()
