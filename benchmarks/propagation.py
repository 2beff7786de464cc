"""From a committed change to an idle gunicorn worker that serves it, against a PUBLISH; and what watchers cost Redis.

python benchmarks/propagation.py [--watchers 1000]

Wall time, because a push is a wait. The bare PUBLISH goes to a process that does nothing but subscribe.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import IO, Any

import report
from sites import HERE, commands, running

from tenant_router.config_store.backends.redis import RedisStore
from tenant_router.config_store.base import Op
from tenant_router.reactive.reflector import PACE, PACE_MAX
from tests.processes import Process, Project
from tests.servers import RedisServer, free_port

CHANGES, GAP = 150, 0.1  # changes measured one by one, seconds between two
BURST, ROUNDS = 400, 3  # changes at once; rounds of what Redis is asked
GUNICORN = ["-m", "gunicorn", "tests.wsgi:application", "-w", "1", "-k", "gthread", "--threads", "4"]
SUBSCRIBER = """
import sys, time, redis
client = redis.Redis(unix_socket_path=sys.argv[1])
channel = client.pubsub()
channel.subscribe(sys.argv[2])
for message in channel.listen():
    if sys.argv[2] == "least":
        client.get("least")
    print(time.monotonic(), flush=True)
"""

# In a process of its own, as an operator's: in that of the watchers each change would wait for a thousand threads.
WRITER = """
import sys, propagation
from tenant_router.config_store.backends.redis import RedisStore
store = RedisStore(sys.argv[2], {"URL": "unix://" + sys.argv[1]})
for _ in range(propagation.BURST):
    propagation._put(store)
"""


def latencies(server: RedisServer) -> None:
    """A change and a PUBLISH by turns, so that both meet the same machine."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        project = Project(server, Path(folder), TESTS_IDLE="3")
        project.put("a.test", project.record("a.db"))
        worker = stack.enter_context(project.start(*GUNICORN, "-b", f"127.0.0.1:{free_port()}", "--no-control-socket"))
        worker.wait_for("synchronised at revision")
        bare, least = (stack.enter_context(_subscriber(server, channel)) for channel in ("bare", "least"))
        client, sent = server.client(), []
        change = client.register_script("redis.call('SET', 'least', ARGV[1]) redis.call('PUBLISH', 'least', '')")
        published, read = [], []
        for number in range(CHANGES):
            time.sleep(GAP)
            began = time.monotonic()
            client.publish("bare", "x")
            published.append(float(bare.readline()) - began)
            time.sleep(GAP)
            began = time.monotonic()
            change(args=["x" * 400])
            read.append(float(least.readline()) - began)
            time.sleep(GAP)
            began = time.monotonic()
            revision = project.put("a.test", project.record(f"{number}.db"))
            sent.append((revision, began, time.monotonic()))
        worker.wait_for(f"revision={sent[-1][0]} ")
        begun = [(_applied(worker, revision), began, committed) for revision, began, committed in sent]
    applied = sorted(served - began for served, began, _ in begun)
    committed_median = statistics.median(served - committed for served, _, committed in begun)
    median, bare_median = statistics.median(applied), statistics.median(published)
    report.row(
        "propagation",
        "committed, until an idle gunicorn worker serves it, p50",
        committed_median * 1e3,
        "ms",
        goal="<= 1",
    )
    report.row("propagation", "with the commit itself, p50", median * 1e3, "ms")
    report.row("propagation", "with it, p99", applied[int(len(applied) * 0.99)] * 1e3, "ms", goal="<= 10")
    report.row("propagation", "with it, p50 against a PUBLISH until it is read", median / bare_median, goal="<= 6")
    report.row(
        "propagation", "floor: a script sets and publishes, a subscriber gets", statistics.median(read) * 1e3, "ms"
    )


@contextmanager
def _subscriber(server: RedisServer, channel: str) -> Iterator[IO[str]]:
    """A process that says when it heard of something on ``channel``."""
    command = [sys.executable, "-c", SUBSCRIBER, server.socket, channel]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        started.stdout.readline()  # the answer to SUBSCRIBE
        yield started.stdout
        started.kill()


def _applied(worker: Process, revision: int) -> float:
    return min(worker.applied("a.test", revision).values())


def watchers(server: RedisServer, count: int) -> None:
    """Stores that wait for changes in threads of this process; only what Redis does is counted."""
    service = uuid.uuid4().hex[:8]
    with ExitStack() as stack:
        writer = stack.enter_context(closing(RedisStore(service, {"URL": f"unix://{server.socket}"})))
        _put(writer)
        heard, ended = threading.Semaphore(0), threading.Event()
        for _ in range(count):
            store = stack.enter_context(closing(RedisStore(service, {"URL": f"unix://{server.socket}"})))
            threading.Thread(target=_watch, args=[store, heard, ended], daemon=True).start()
        stack.callback(ended.set)
        for _ in range(count):
            heard.acquire()
        turns = []
        for _ in range(ROUNDS):
            change = _cost(server, lambda: _and_wait(writer, heard, count))
            publish = _cost(server, lambda: server.client().publish(_channel(service), "0"))
            turns.append((change, publish))
        each = statistics.median(change[0] for change, _ in turns) / count
        seconds = statistics.median(change[1] for change, _ in turns)
        against = statistics.median(change[1] / publish[1] for change, publish in turns)
        burst = _cost(server, lambda: _burst(server, service), wait=6.0)[1]
        floor = _floor(server, count)
    who = f"{count:,} watchers"
    report.row("propagation", f"a change, {who}: commands of each", each, "", report.COUNT, "<= 3")
    report.row("propagation", f"a change, {who}: Redis, against a PUBLISH", against, goal="<= 3")
    report.row("propagation", f"floor: {who} that only say PING", floor)
    report.row(
        "propagation", f"a burst of {BURST}, against as many single ones", burst / seconds / BURST, goal="<= 0.1"
    )


def _watch(store: RedisStore, heard: threading.Semaphore, ended: threading.Event) -> None:
    """As the reflector follows: it waits, reads what came and fetches the record, with its pace between two reads."""
    store.read_along = lambda tenant_id: True
    head = store.head()
    store.changes(head, wait=0.0)
    first, gap, last = True, PACE, 0.0
    while not ended.is_set():
        try:
            events = store.changes(head, 500, wait=30.0 if not first else 0.05)
        except Exception:
            return
        if first:
            first = False
            heard.release()
        if events:
            if events[-1].record is None:
                store.get_many([events[-1].tenant_id])
            head = head._replace(rev=events[-1].rev, chain=events[-1].chain)
            heard.release()
            since = time.monotonic() - last
            gap = min(2 * gap, PACE_MAX) if len(events) > 1 and since < 2 * gap else PACE
            time.sleep(max(0.0, gap - since))
            last = time.monotonic()


def _floor(server: RedisServer, count: int) -> float:
    """What it costs Redis when each of its subscribers answers a push with the smallest command there is."""
    heard, ended = threading.Semaphore(0), threading.Event()
    for _ in range(count):
        threading.Thread(target=_ping, args=[server, heard, ended], daemon=True).start()
    for _ in range(count):
        heard.acquire()

    def push() -> None:
        server.client().publish("pinged", "0")
        for _ in range(count):
            heard.acquire()

    silent = []
    for _ in range(count):
        silent.append(server.client().pubsub())
        silent[-1].subscribe("silent")
    costs = [
        (_cost(server, push), _cost(server, lambda: server.client().publish("silent", "0"))) for _ in range(ROUNDS)
    ]
    ended.set()
    return statistics.median(pinged[1] / pushed[1] for pinged, pushed in costs)


def _ping(server: RedisServer, heard: threading.Semaphore, ended: threading.Event) -> None:
    client = server.client()
    pushes = client.pubsub()
    pushes.subscribe("pinged")
    pushes.get_message(timeout=30)
    heard.release()
    while not ended.is_set():
        if pushes.get_message(timeout=5):
            client.ping()
            heard.release()


def _put(store: RedisStore) -> int:
    return store.commit([Op("a.test", "A", b"x" * 400)], request_id=uuid.uuid4().hex)


def _and_wait(store: RedisStore, heard: threading.Semaphore, count: int) -> None:
    _put(store)
    for _ in range(count):
        heard.acquire()


def _burst(server: RedisServer, service: str) -> None:
    subprocess.run([sys.executable, "-c", WRITER, server.socket, service], cwd=HERE, check=True)


def _channel(service: str) -> str:
    return f"{{tr:{service}}}:events"


def _cost(server: RedisServer, function: Callable[[], Any], *, wait: float = 2.0) -> tuple[float, float]:
    """Commands and processor seconds of Redis."""
    before = _used(server)
    function()
    time.sleep(wait)
    calls, seconds = (now - then for now, then in zip(_used(server), before, strict=True))
    return calls, seconds


def _used(server: RedisServer) -> tuple[float, float]:
    cpu = server.client().info("cpu")
    return commands(server), cpu["used_cpu_sys"] + cpu["used_cpu_user"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--watchers", type=int, default=1_000)
    options = parser.parse_args()
    with running(RedisServer) as server:
        latencies(server)
        watchers(server, options.watchers)


if __name__ == "__main__":
    main()
