"""Real servers under load from a second process: gunicorn with threads, and uvicorn with psycopg's pools.

    python benchmarks/served.py

Eight tenants on eight PostgreSQL databases against plain Django with eight aliases. The load comes
over four connections that are kept; every answer is checked to be its tenant's. Rounds take turns.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from http.client import HTTPConnection

import report
from sites import HERE, OURS, PLAIN, Worker, environment, on_postgres, registered, running, served

from tests.servers import PostgresServer, RedisServer

TENANTS, CONNECTIONS, REQUESTS, ROUNDS = 8, 4, 400, 7  # requests of one connection and round


def load(port: int, path: str) -> None:
    """The second process: ask in turn, over several connections, and say how long it took."""
    threads = [threading.Thread(target=_ask, args=[port, path, number]) for number in range(CONNECTIONS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(time.perf_counter() - began)


def _ask(port: int, path: str, seed: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    for number in range(REQUESTS):
        tenant = (number + seed) % TENANTS
        connection.request("GET", path, headers={"Host": f"t{tenant}.test"})
        body = connection.getresponse().read()
        assert body == b'{"text": "of %d"}' % tenant, body


def measured(worker: Worker, path: str) -> tuple[float, float]:
    """Processor seconds of the worker, and requests in a second."""
    command = [sys.executable, str(HERE / "served.py"), "--load", str(worker.port), path]
    before = worker.seconds
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return worker.seconds - before, CONNECTIONS * REQUESTS / float(done.stdout)


def compare(name: str, path: str, sites: dict[str, dict[str, str]], *, asgi: bool) -> None:
    """Both servers run; the load goes to one and then to the other."""
    with ExitStack() as stack:
        workers = {system: stack.enter_context(served(site, asgi=asgi)) for system, site in sites.items()}
        for worker in workers.values():
            measured(worker, path)
        turns = [{system: measured(worker, path) for system, worker in workers.items()} for _ in range(ROUNDS)]
    processor, throughput = (
        statistics.median(turn[OURS][which] / turn[PLAIN][which] for turn in turns) for which in (0, 1)
    )
    report.row("served", f"{name}: processor time", processor, goal="<= 1.08")
    report.row("served", f"{name}: throughput", throughput, goal=">= 0.97")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", nargs=2, metavar=("PORT", "PATH"), help="be the second process")
    options = parser.parse_args()
    if options.load:
        load(int(options.load[0]), options.load[1])
        return
    with ExitStack() as stack:
        postgres, redis = stack.enter_context(running(PostgresServer)), stack.enter_context(running(RedisServer))
        databases = on_postgres(postgres, TENANTS)
        pooled = [{**one, "CONN_MAX_AGE": 0, "OPTIONS": {"pool": {"min_size": 1, "max_size": 4}}} for one in databases]
        service = registered(redis, databases, 1_000)
        for name, path, settings, asgi in (
            ("gunicorn, threads", "/", databases, False),
            ("uvicorn, async view, pools", "/async/", pooled, True),
        ):
            both = {system: environment(system, settings, redis, service, asgi) for system in (PLAIN, OURS)}
            compare(name, path, both, asgi=asgi)


if __name__ == "__main__":
    main()
