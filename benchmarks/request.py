"""One WSGI request with one indexed query, tenants in turn, against plain Django over as many databases.

    python benchmarks/request.py [--tenants 10 1000]

On SQLite, so it needs nothing, and what is added to a request weighs more than beside a server's
database; ``peers.py`` asks the same of PostgreSQL.
"""

from __future__ import annotations

import argparse
import tempfile

import report
from variants import Variant, compare

PLAIN = "plain"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, nargs="+", default=[10, 1_000])
    registered = parser.parse_args().tenants
    for visited in (1, 8):
        with tempfile.TemporaryDirectory() as folder:
            names = [PLAIN, *map(str, registered)]
            found = compare([Variant("request_site.py", name, visited, folder) for name in names])
        question = f"request on SQLite, {visited} in turn"
        for name in map(str, registered):
            what, cost = f"{int(name):,} tenants", found[name]
            report.row(question, f"{what}: calls", cost.calls_ratio, kind=report.COUNT, goal="<= 1.12")
            report.row(question, f"{what}: processor time", cost.micros_ratio)
            report.row(question, f"{what}: statements", cost.statements, "", report.COUNT, "<= 1")
            visited = f"<= {found[PLAIN].visited:g}"
            report.row(question, f"{what}: connections visited", cost.visited, "", report.COUNT, visited)
            report.row(question, f"{what}: wrappers built", cost.built, "", report.COUNT, "<= 0")
            grown = cost.calls / found[str(registered[0])].calls
            report.row(question, f"{what}: calls, against {registered[0]:,}", grown, "x", report.COUNT, "<= 1")


if __name__ == "__main__":
    main()
