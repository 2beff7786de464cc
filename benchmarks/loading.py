"""``load_tenant_config`` of 10,000 tenants, and once more without a change; both over what the command needs for one.

python benchmarks/loading.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack
from pathlib import Path

import report
from sites import HERE, OURS, environment, running

from tests.servers import RedisServer

TENANTS, ROUNDS, SERVICE = 10_000, 5, "bench"
DATABASE = {"ENGINE": "django.db.backends.postgresql", "NAME": "template", "HOST": "10.0.0.1", "USER": "bench"}


def load(file: Path, variables: dict[str, str]) -> float:
    """Seconds of the whole command."""
    command = [sys.executable, "-m", "django", "load_tenant_config", "--yes", "--file", str(file)]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=HERE, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return time.perf_counter() - began


def written(folder: Path, count: int) -> Path:
    """A configuration file with so many tenants."""
    databases = [{"default": {"NAME": f"tenant_{number}", "PASSWORD": uuid.uuid4().hex}} for number in range(count)]
    tenants = {
        f"tenant-{number}.example.com": {SERVICE: {"orm_config": {"django_orm": database}}}
        for number, database in enumerate(databases)
    }
    file = folder / f"{count}.json"
    file.write_text(json.dumps({"mapping_metadata": {}, "tenant_config": tenants}))
    return file


def main() -> None:
    with ExitStack() as stack:
        redis = stack.enter_context(running(RedisServer))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        many, one = written(folder, TENANTS), written(folder, 1)
        found: dict[str, list[float]] = {"first": [], "unchanged": []}
        variables = environment(OURS, [DATABASE], redis, SERVICE) | {"DJANGO_SETTINGS_MODULE": "served_settings"}
        for _ in range(ROUNDS):
            redis.client().flushall()
            bare = load(one, variables)
            redis.client().flushall()
            found["first"].append(load(many, variables) - bare)
            found["unchanged"].append(load(many, variables) - bare)
    report.row("loading", f"{TENANTS:,} tenants, over start-up", statistics.median(found["first"]), "s", goal="<= 1")
    report.row("loading", "unchanged, over start-up", statistics.median(found["unchanged"]), "s", goal="<= 0.6")


if __name__ == "__main__":
    main()
