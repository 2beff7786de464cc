"""What many readers do to a Redis that comes back: the figures of docs/operations.md.

python benchmarks/readers.py [--readers 1000] [--processes 8]

The readers are threads of a few processes, each with connections of its own, as processes of a service have.
Redis's processor time is what counts here: how soon all are back depends on the machine that they share, too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from ctypes import c_int
from typing import Any

from sites import running

from tenant_router.config_store import codec
from tenant_router.config_store.backends.redis import RedisStore
from tenant_router.config_store.base import Op
from tenant_router.config_store.serializers.json import JSONSerializer
from tests.servers import RedisServer

TENANTS, SERVICE = 1_000, "fleet"
TIMEOUT = 300.0  # seconds
RECORD = {"orm_config": {"django_orm": {"default": {"NAME": "tenant_db", "HOST": "10.0.0.1", "PASSWORD": "x" * 24}}}}


def read(socket: str, readers: int, ready: Any, reads: Any, number: int) -> None:
    """One process: its readers, and how many of them are up to date and have read the index how often."""
    import logging

    from config_store import reader_of

    from tenant_router.reactive.fleet import Member, Reporter

    logging.disable(logging.CRITICAL)
    found = []
    for _ in range(readers):
        store = RedisStore(SERVICE, {"URL": f"unix://{socket}"})
        reader = reader_of(store)
        member = Member("h", 1, "web", "1", "e", 1, "c" * 40, "READY", TENANTS, 0, 0, {})
        reader.reporter = Reporter(store, lambda member=member: member, 45)  # type: ignore[misc]
        reader.pipeline.eager_max = 0
        reader.synchronise()
        reader.start()
        found.append(reader)
    while True:
        ready[number] = sum(one.ready and not one._lost and one.head == found[0].head for one in found)
        reads[number] = sum(one.syncs for one in found) - readers
        time.sleep(0.05)


class Fleet:
    """The processes, and what they say."""

    def __init__(self, server: RedisServer, readers: int, processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.server, self.readers = server, readers
        self.ready, self.reads = context.Array(c_int, processes), context.Array(c_int, processes)
        share = readers // processes
        self.processes = [
            context.Process(target=read, args=(server.socket, share, self.ready, self.reads, n), daemon=True)
            for n in range(processes)
        ]
        for process in self.processes:
            process.start()
        self.count = share * processes

    def wait(self, condition: Callable[[], bool]) -> float:
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < TIMEOUT, f"{sum(self.ready)} of {self.count} are ready"
            time.sleep(0.02)
        return time.monotonic() - began

    def all_ready(self) -> bool:
        return sum(self.ready) == self.count

    def measured(self, name: str, act: Callable[[], None]) -> None:
        """Print what a fault costs, from its end until all readers are ready."""
        before = sum(self.reads)
        act()
        spent = _processor(self.server)
        took = self.wait(self.all_ready)
        used, reads = _processor(self.server) - spent, sum(self.reads) - before
        print(f"{name:28} {took:8.2f} s   {used:8.2f} s of Redis   {reads:6} reads of the index", flush=True)


def _processor(server: RedisServer) -> float:
    found = server.client().info("cpu")
    return float(found["used_cpu_user"] + found["used_cpu_sys"])


def load(store: RedisStore) -> None:
    """The same tenants, in one commit."""
    ops = [Op(f"t{n}.test", "A", codec.encode(f"t{n}.test", RECORD, JSONSerializer())) for n in range(TENANTS)]
    store.commit(ops, request_id=uuid.uuid4().hex)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readers", type=int, default=1_000)
    parser.add_argument("--processes", type=int, default=8)
    options = parser.parse_args()
    with running(lambda folder: RedisServer(folder, "--appendonly", "yes", "--maxclients", "10000")) as server:
        with closing(RedisStore(SERVICE, {"URL": f"unix://{server.socket}"})) as store:
            load(store)
            fleet = Fleet(server, options.readers, options.processes)
            fleet.wait(fleet.all_ready)
            time.sleep(50)  # each has reported, and so knows how many there are

            def restarted() -> None:
                server.kill()
                fleet.wait(lambda: sum(fleet.ready) == 0)
                server.start()

            def emptied() -> None:
                server.client().flushall()
                fleet.wait(lambda: sum(fleet.ready) == 0)
                load(store)

            print(f"{fleet.count} readers, {TENANTS} tenants")
            fleet.measured("restarted", restarted)
            fleet.measured("emptied and loaded again", emptied)


if __name__ == "__main__":
    main()
