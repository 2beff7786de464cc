"""From the start of Python to the first response, against a plain site that imports redis and Celery as well.

    python benchmarks/boot.py [--tenants 1000 10000 100000]

Processor time of the whole process; each is started anew, by turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import report
from sites import HERE, OURS, PLAIN, environment, on_sqlite, registered, running

from tests.servers import RedisServer

ROUNDS = 15
FIRST = """
import json, sys, time
import served_site
from one_request import ask
ask(served_site.application, 0)
print(json.dumps(time.process_time()))
sys.stdout.flush()
import os; os._exit(0)
"""
READ = """
import os, redis
client, index, cursor = redis.Redis.from_url(os.environ["BENCH_REDIS"]), {}, None
while cursor != 0:
    cursor, page = client.hscan("{tr:%s}:idx" % os.environ["BENCH_SERVICE"], cursor or 0, count=1000)
    index.update((key.decode(), value.decode()) for key, value in page.items())
"""
SETUP = """
import json, os, time
os.environ["DJANGO_SETTINGS_MODULE"] = "served_settings"
import redis, django
from celery import Celery
Celery("bench", broker="memory://").finalize()
django.setup()
print(json.dumps(time.process_time()))
"""


def seconds(script: str, variables: dict[str, str]) -> float:
    """Processor time that a fresh interpreter reports."""
    done = subprocess.run([sys.executable, "-c", script], cwd=HERE, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(json.loads(done.stdout))


def compare(script: str, plain: dict[str, str], ours: dict[str, str], also: str = "") -> tuple[float, float]:
    """Medians: the ratio, and the difference in seconds; the second does ``also`` before."""
    pairs = [(seconds(script, plain), seconds(also + script, ours)) for _ in range(ROUNDS)]
    return statistics.median(b / a for a, b in pairs), statistics.median(b - a for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tenants", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    options = parser.parse_args()
    goals = {1_000: 1.05, 10_000: 1.1, 100_000: 1.5}
    with ExitStack() as stack:
        redis = stack.enter_context(running(RedisServer))
        databases = on_sqlite(Path(stack.enter_context(tempfile.TemporaryDirectory())), 1)
        plain = environment(PLAIN, databases, redis)
        for count in options.tenants:
            service = registered(redis, databases, count)
            ours = environment(OURS, databases, redis, service)
            ratio, _ = compare(FIRST, plain, ours)
            goal = f"<= {goals[count]}" if count in goals else ""
            report.row("boot", f"first response, {count:,} tenants", ratio, goal=goal)
        reading = environment(PLAIN, databases, redis, service)
        floor, _ = compare(FIRST, plain, reading, also=READ)
        report.row("boot", f"floor: plain, and redis-py reads {count:,} index entries", floor)
        _, more = compare(SETUP, plain, ours)
        report.row("boot", "import and django.setup(), more", more * 1e3, "ms", goal="<= 20")


if __name__ == "__main__":
    main()
