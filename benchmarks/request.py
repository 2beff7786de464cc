"""One WSGI request with one indexed query, tenants in turn, against plain Django over as many databases.

    python benchmarks/request.py [--tenants 10 1000 10000]

On SQLite, so it needs nothing, and what is added to a request weighs more than beside a server's
database; ``peers.py`` asks the same of PostgreSQL.
"""

from __future__ import annotations

import argparse
import tempfile

from variants import Variant, compare

PLAIN = "plain"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, nargs="+", default=[10, 1_000, 10_000])
    registered = parser.parse_args().tenants
    for visited in (1, 8):
        print(f"\n{visited} visited")
        print(f"{'registered':>10} {'calls':>8} {'ratio':>6} {'statements':>11} {'us':>8} {'ratio':>6}")
        with tempfile.TemporaryDirectory() as folder:
            names = [PLAIN, *map(str, registered)]
            found = compare([Variant("request_site.py", name, visited, folder) for name in names])
        for name, cost in found.items():
            counts = f"{cost.calls:8.1f} {cost.calls_ratio:6.3f} {cost.statements:11.1f}"
            print(f"{name:>10} {counts} {cost.micros:8.1f} {cost.micros_ratio:6.3f}")


if __name__ == "__main__":
    main()
