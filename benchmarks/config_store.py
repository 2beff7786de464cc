"""The config store: a commit against a bare round trip, and a cold process with 100,000 tenants.

python benchmarks/config_store.py [--tenants 100000]

A store is on the other side of a socket, so wall time is what counts here.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
import tracemalloc
import uuid
from collections.abc import Callable
from contextlib import closing

import report
from sites import commands, running
from tenants import register

from tenant_router.config_store import codec
from tenant_router.config_store.backends.redis import RedisStore
from tenant_router.config_store.base import Op
from tenant_router.config_store.serializers.json import JSONSerializer
from tenant_router.managers.registry import TenantContextManager
from tenant_router.reactive.building import Builder
from tenant_router.reactive.fleet import Reporter
from tenant_router.reactive.pipeline import Pipeline
from tenant_router.reactive.reflector import Reflector
from tenant_router.reactive.synchroniser import Timing
from tests.servers import RedisServer

ROUNDS, CALLS = 15, 200
RECORD = {
    "orm_config": {
        "django_orm": {
            "default": {"NAME": "tenant_db", "HOST": "10.0.0.1", "USER": "tenant_user", "PASSWORD": "x" * 24}
        }
    }
}


class Anything:
    """A manager that takes every record as it is."""

    def prepare(self, tenant_id: str, config: object, previous: object) -> object:
        return config

    def retire(self, previous: object, current: object) -> None:
        """Nothing is held."""


def commits(store: RedisStore, server: RedisServer) -> None:
    body = codec.encode("bench.test", RECORD, JSONSerializer())
    client = server.client()
    trips = {
        "PING": client.ping,
        "commit": lambda: store.commit([Op("bench.test", "A", body)], request_id=uuid.uuid4().hex),
    }
    found: dict[str, list[float]] = {name: [] for name in trips}
    trips["commit"]()
    for _ in range(ROUNDS):
        for name, function in trips.items():
            found[name].append(_timed(function) / CALLS)
    ratio = statistics.median(found["commit"]) / statistics.median(found["PING"])
    report.row("config store", "a commit, against a PING", ratio, goal="<= 3")


def _timed(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(CALLS):
        function()
    return time.perf_counter() - began


def propagation(store: RedisStore, reader: Reflector) -> None:
    body = codec.encode("bench.test", RECORD, JSONSerializer())
    reader.start()
    times = []
    for _ in range(100):
        time.sleep(0.06)  # beyond the pace at which a burst is read
        began = time.perf_counter()
        revision = store.commit([Op("bench.test", "A", body)], request_id=uuid.uuid4().hex)
        while reader.pipeline.revision_of("bench.test") < revision:
            time.sleep(0.0002)
        times.append(time.perf_counter() - began)
    reader.stop()
    report.row("config store", "a commit until another thread has it", statistics.median(times) * 1e3, "ms")


def cold(store: RedisStore, server: RedisServer, tenants: int) -> None:
    register(store, JSONSerializer(), {f"tenant-{number}.example.com": RECORD for number in range(tenants)})
    before_calls = commands(server)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    traced = reader_of(store)
    traced.synchronise()
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    began = time.perf_counter()
    reader_of(store).synchronise()
    seconds = time.perf_counter() - began
    calls = commands(server) - before_calls
    what = f"{tenants:,} tenants read by a cold, lazy process"
    report.row("config store", what, seconds, "s", goal="<= 5")
    report.row("config store", f"{what}: commands", calls / 2, "", report.COUNT)
    report.row("config store", f"{what}: index", kept / 2**20, "MiB", report.MEMORY, "<= 30")


def reader_of(store: RedisStore) -> Reflector:
    anything = Anything()
    registry = TenantContextManager()
    builder = Builder({"django_orm": anything}, anything, JSONSerializer(), lambda record: [])
    pipeline = Pipeline(registry, builder, 5_000)
    reporter = Reporter(store, lambda: None, 45)  # type: ignore[arg-type,return-value]
    reporter._silenced = True
    return Reflector(store, pipeline, Timing(), reporter, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, default=100_000)
    options = parser.parse_args()
    with running(RedisServer) as server:
        location = {"URL": f"unix://{server.socket}"}
        with closing(RedisStore("bench", location)) as store:
            commits(store, server)
            with closing(RedisStore("bench", location)) as other:
                first = reader_of(other)
                first.synchronise()
                propagation(store, first)
        with closing(RedisStore("many", location)) as many:
            cold(many, server, options.tenants)


if __name__ == "__main__":
    main()
