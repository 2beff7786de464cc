"""From a commit to an idle gunicorn worker that serves it, against a bare PUBLISH; and what many watchers cost Redis.

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
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tenant_router.config_store.backends.redis import RedisStore
from tenant_router.config_store.base import Op
from tenant_router.reflector import PACE, PACE_MAX
from tests.processes import Process, Project
from tests.servers import RedisServer, free_port, short_directory

CHANGES, GAP, BURST = 300, 0.1, 400  # changes measured one by one, seconds between two, changes at once
GUNICORN = ["-m", "gunicorn", "tests.wsgi:application", "-w", "1", "-k", "gthread", "--threads", "4"]
SUBSCRIBER = """
import sys, time, redis
channel = redis.Redis(unix_socket_path=sys.argv[1]).pubsub()
channel.subscribe("bare")
for message in channel.listen():
    print(time.monotonic(), flush=True)
"""


def latencies(server: RedisServer) -> None:
    """A change and a PUBLISH by turns, so that both meet the same machine."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        project = Project(server, Path(folder), TESTS_IDLE="3")
        project.put("a.test", project.record("a.db"))
        worker = stack.enter_context(project.start(*GUNICORN, "-b", f"127.0.0.1:{free_port()}", "--no-control-socket"))
        worker.wait_for("synchronised at revision")
        bare = subprocess.Popen([sys.executable, "-c", SUBSCRIBER, server.socket], stdout=subprocess.PIPE, text=True)
        stack.callback(bare.kill)
        assert bare.stdout is not None
        bare.stdout.readline()  # the answer to SUBSCRIBE
        client, sent = server.client(), []
        published = []
        for number in range(CHANGES):
            time.sleep(GAP)
            began = time.monotonic()
            client.publish("bare", "x")
            published.append(float(bare.stdout.readline()) - began)
            time.sleep(GAP)
            began = time.monotonic()
            sent.append((project.put("a.test", project.record(f"{number}.db")), began))
        worker.wait_for(f"revision={sent[-1][0]} ")
        told("a change until an idle worker serves it", [_applied(worker, *one) for one in sent], published)
        told("a bare PUBLISH until it is read", published, published)


def _applied(worker: Process, revision: int, began: float) -> float:
    return min(worker.applied("a.test", revision).values()) - began


def told(name: str, times: list[float], bare: list[float]) -> None:
    ordered = sorted(times)
    median = statistics.median(ordered)
    print(
        f"{name:42} p50 {median * 1e3:6.2f} ms, p99 {ordered[int(len(ordered) * 0.99)] * 1e3:6.2f} ms, "
        f"{median / statistics.median(bare):5.2f} PUBLISHes"
    )


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
        _cost(f"a change, {count} watchers", server, count, lambda: _and_wait(writer, heard, count))
        _cost(f"a PUBLISH, {count} subscribers", server, count, lambda: server.client().publish(_channel(service), "0"))
        singles = _cost("", server, count, lambda: _and_wait(writer, heard, count), show=False)
        burst = _cost(f"a burst of {BURST}", server, count, lambda: _burst(writer), wait=6.0)
        print(f"a burst costs {burst / (singles * BURST):.3f} of {BURST} single changes")


def _watch(store: RedisStore, heard: threading.Semaphore, ended: threading.Event) -> None:
    """As the reflector follows: it waits, reads what came and fetches the record, with its pace between two reads."""
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
            store.get_many([events[-1].tenant_id])
            head = head._replace(rev=events[-1].rev, chain=events[-1].chain)
            heard.release()
            since = time.monotonic() - last
            gap = min(2 * gap, PACE_MAX) if len(events) > 1 and since < 2 * gap else PACE
            time.sleep(max(0.0, gap - since))
            last = time.monotonic()


def _put(store: RedisStore) -> int:
    return store.commit([Op("a.test", "A", b"x" * 400)], request_id=uuid.uuid4().hex)


def _and_wait(store: RedisStore, heard: threading.Semaphore, count: int) -> None:
    _put(store)
    for _ in range(count):
        heard.acquire()


def _burst(store: RedisStore) -> None:
    for _ in range(BURST):
        _put(store)


def _channel(service: str) -> str:
    return f"{{tr:{service}}}:events"


def _cost(
    name: str, server: RedisServer, count: int, function: Callable[[], Any], *, wait: float = 2.0, show: bool = True
) -> float:
    before = _used(server)
    function()
    time.sleep(wait)
    calls, seconds = (now - then for now, then in zip(_used(server), before, strict=True))
    if show:
        print(f"{name:42} {calls / count:6.2f} commands per watcher, Redis {seconds * 1e3:7.1f} ms")
    return seconds


def _used(server: RedisServer) -> tuple[float, float]:
    client = server.client()
    calls = sum(value["calls"] for name, value in client.info("commandstats").items() if name != "cmdstat_info")
    cpu = client.info("cpu")
    return calls, cpu["used_cpu_sys"] + cpu["used_cpu_user"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--watchers", type=int, default=1_000)
    options = parser.parse_args()
    with short_directory() as directory:
        server = RedisServer(directory)
        server.start()
        try:
            latencies(server)
            watchers(server, options.watchers)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
