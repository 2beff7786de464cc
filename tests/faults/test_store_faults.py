"""What networks, servers and operators do to a store: every process recovers by itself, and its status is honest."""

import os
import shutil
import signal
import socketserver
import threading
import time
import tracemalloc
import uuid
from contextlib import closing, suppress
from functools import partial

import pytest
from django.core.management import call_command

from tenant_router.config_store.backends.redis import RedisStore
from tenant_router.config_store.base import Op
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import StoreUnavailable, TenantNotFound, TenantNotLoaded
from tenant_router.managers import tenant_context_manager
from tenant_router.reactive import unknown_ids
from tenant_router.reactive.reflector import READY, SHRUNK, STALE
from tests.faults.followers import following, options
from tests.faults.hanging import hang, in_silence
from tests.faults.test_fleet import status, told
from tests.integration.test_live_servers import WORKERS, served
from tests.proxy import Proxy
from tests.tenants import eventually

IDLE = 0.3  # seconds, of the fixture ``runtime_on``
# seconds: after a row of failures a process waits for up to 15 before it asks again
RECOVERY = 60


@pytest.fixture
def proxy(own_redis):
    with closing(Proxy(own_redis.port)) as proxy:
        yield proxy


@pytest.fixture
def far(project, proxy, runtime_on):
    """A server behind the proxy; the project writes beside it."""
    project.url = f"redis://127.0.0.1:{proxy.port}/0"
    made = runtime_on(project)
    made.serve("web")
    eventually(lambda: made.reflector.state == READY)
    return made


def name_of(tenant_id):
    with tenant_context_bind(tenant_id) as context:
        return context.parts["django_orm"]["default"].settings["NAME"].rpartition("/")[2]


def name_if_loaded(tenant_id):
    """Like ``name_of``; ``None`` while the store, for who has not heard of it for a moment, is away."""
    with suppress(TenantNotLoaded):
        return name_of(tenant_id)


def recovers(project, made):
    """A change arrives and the process is ready again; returns the seconds that it took."""
    started, name = time.monotonic(), f"{uuid.uuid4().hex[:8]}.db"
    project.put("a.test", project.record(name))
    eventually(lambda: name_of("a.test") == name and made.reflector.state == READY, RECOVERY)
    return time.monotonic() - started


# --- networks ---


@pytest.mark.parametrize(
    ("name", "value"), [("delay", 0.3), ("rate", 1000), ("segment", 1)], ids=["300 ms", "1 kB/s", "1-byte segments"]
)
def test_a_slow_link_is_slow_and_loses_nothing(project, proxy, far, name, value):
    setattr(proxy, name, value)
    proxy.reset()
    for number in range(5):
        project.put(f"t{number}.test", project.record(f"t{number}.db"))
    print(f"{name}: {recovers(project, far):.2f} s")
    assert [name_of(f"t{number}.test") for number in range(5)] == [f"t{number}.db" for number in range(5)]


def test_resets_in_the_middle_of_everything(project, proxy, far):
    ended = threading.Event()

    def reset():
        while not ended.wait(0.02):
            proxy.reset()

    thread = threading.Thread(target=reset)
    thread.start()
    for number in range(50):
        project.put(f"t{number % 10}.test", project.record(f"v{number}.db"))
        time.sleep(0.02)
    ended.set()
    thread.join()
    print(f"resets: {recovers(project, far):.2f} s")
    assert [name_of(f"t{number}.test") for number in range(10)] == [f"v{40 + number}.db" for number in range(10)]


@pytest.mark.parametrize("fault", ["pause", "blackhole"])
def test_a_dead_link_makes_the_process_stale_in_time_and_serves_on(project, proxy, far, fault):
    in_silence(far, getattr(proxy, fault))
    started = time.monotonic()
    said_ready = [started]  # when it was asked who said so: it may stand still before it answers

    def says_stale():
        asked = time.monotonic()
        stale = far.reflector.state == STALE
        if not stale:
            said_ready.append(asked)
        return stale

    eventually(says_stale)
    assert said_ready[-1] - started < 3 * IDLE + 1.5  # the client's error comes after more than 3 seconds
    assert name_of("a.test") == "a.db"
    project.put("a.test", project.record("missed.db"))
    proxy.go_on()
    print(f"{fault}: {recovers(project, far):.2f} s")


def test_half_open_connections_are_noticed(project, proxy, far):
    proxy.silence()
    print(f"half-open: {recovers(project, far):.2f} s")


def test_one_process_that_is_cut_off_is_seen_by_the_others(project, proxy):
    """Two are cut off; the lease of one of them ends soon, and that of the other outlasts a slow look at the fleet."""
    behind = {"TESTS_REDIS_URL": f"redis://127.0.0.1:{proxy.port}/0", "TESTS_IDLE": "0.3"}
    start = partial(following, project, wait=False)
    with start(1, "near", TESTS_IDLE="0.3") as (near,), start(1, "far", **behind) as (far,):
        with start(1, "brief", **behind, **options(STATUS_TTL=3)) as (brief,):
            every = {near.pid, far.pid, brief.pid}
            eventually(lambda: told(project).keys() == every, RECOVERY)
            proxy.blackhole()
            project.put("a.test", project.record("new.db"))
            code, said = status(project, "--wait", "--timeout", "1.5")
            assert (code, f"pid {far.pid} " in said.split("is not at:")[1]) == (1, True), said
            eventually(lambda: told(project).keys() == {near.pid, far.pid})  # the lease ended
            proxy.go_on()
            eventually(lambda: told(project).keys() == every, RECOVERY)
            code, said = status(project, "--wait", "--timeout", "60")
            assert code == 0, said


# --- the server ---


def test_a_log_that_was_trimmed(project, own_redis, runtime_on):
    made = runtime_on(project)
    made.serve("web")
    own_redis.pause()
    time.sleep(0.1)
    writer = RedisStore(project.service, {"URL": project.url})
    own_redis.resume()
    with made.reflector._lock:  # the reader stands still meanwhile
        for number in range(50):
            project.put(f"t{number}.test", project.record(f"t{number}.db"))
        own_redis.client().xtrim(f"{{tr:{project.service}}}:log", maxlen=5, approximate=False)
    eventually(lambda: made.reflector.head == project.store.head(), RECOVERY)
    assert name_of("t0.test") == "t0.db"
    writer.close()


def test_a_server_that_comes_back_with_an_older_disk(project, own_redis, runtime_on, tmp_path):
    for number in range(25):  # of which the lost ones are few
        project.put(f"stays{number}.test", project.record("stays.db"))
    made = runtime_on(project)
    made.serve("web")
    old = tmp_path / "old.aof"
    shutil.copy(own_redis.directory / "appendonly.aof", old)
    for number in range(5):
        project.put(f"lost{number}.test", project.record("lost.db"))
    eventually(lambda: made.reflector.head == project.store.head())
    own_redis.kill()
    shutil.copy(old, own_redis.directory / "appendonly.aof")
    own_redis.start()
    for number in range(7):  # the revisions are used again, and more
        project.put(f"new{number}.test", project.record("new.db"))
    started = time.monotonic()
    eventually(lambda: made.reflector.head == project.store.head(), RECOVERY)
    print(f"rollback: {time.monotonic() - started:.2f} s")
    kept = {"a.test", *(f"stays{number}.test" for number in range(25))}
    assert set(tenant_context_manager.get_known_ids()) == kept | {f"new{number}.test" for number in range(7)}


def test_a_store_that_lost_everything_waits_for_its_operator(project, own_redis, runtime_on, caplog, capsys):
    for number in range(40):
        project.put(f"t{number}.test", project.record(f"t{number}.db"))
    made = runtime_on(project)
    made.serve("web")
    own_redis.client().flushall()
    eventually(lambda: made.reflector.head is None)  # it has seen that nothing is left
    assert made.reflector.state != READY
    assert len(tenant_context_manager.get_known_ids()) == 41
    project.put("only.test", project.record("only.db"))
    eventually(lambda: made.reflector.state == SHRUNK, RECOVERY)
    assert name_of("t7.test") == "t7.db"
    assert not tenant_context_manager.contains("only.test")
    eventually(lambda: "tenant_store accept --epoch" in caplog.text)
    eventually(lambda: told(project).get(os.getpid(), {}).get("state") == SHRUNK, RECOVERY)
    with pytest.raises(Exception, match="look at it again"):
        call_command("tenant_store", "accept", "--epoch", "guessed", "--yes")
    call_command("tenant_store", "show")
    shown = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert (shown["epoch"], shown["active"]) == (project.store.head().epoch, "1")
    call_command("tenant_store", "accept", "--epoch", shown["epoch"], "--yes")
    eventually(lambda: tenant_context_manager.get_known_ids() == ["only.test"], RECOVERY)
    eventually(lambda: made.reflector.state == READY)


@pytest.mark.parametrize(
    "reply", ["LOADING Redis is loading the dataset in memory", "MASTERDOWN Link with MASTER is down", "TRYAGAIN x"]
)
def test_what_a_server_in_trouble_answers_is_unavailable(reply):
    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            while self.request.recv(65536):
                self.request.sendall(f"-{reply}\r\n".encode() * 3)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with closing(RedisStore("shop", {"HOST": "127.0.0.1", "PORT": server.server_address[1]})) as store:
            for verb in (store.head, store.leases, lambda: store.commit([Op("a", "A", b"x")], request_id="1")):
                with pytest.raises(StoreUnavailable):
                    verb()
        server.shutdown()


# --- processes ---


def test_nothing_is_lost_while_every_watcher_is_killed(project, own_redis, sqlite_file):
    """200 changes in a burst, and web processes that get no request meanwhile."""
    project.put("a.test", project.record(sqlite_file("a")))
    last = {}
    with served(project, "gunicorn") as (process, _, pids), following(project, 3, TESTS_IDLE="0.5") as followers:
        ended = threading.Event()

        def kill():
            while not ended.wait(0.03):
                for kind in ("pubsub", "normal"):
                    own_redis.client().execute_command("CLIENT", "KILL", "TYPE", kind)

        killer = threading.Thread(target=kill)
        killer.start()
        for number in range(200):
            tenant_id = f"t{number % 20}.test"
            for _ in range(20):  # the writer's connections are killed, too
                try:
                    last[tenant_id] = project.put(tenant_id, project.record(f"v{number}.db"))
                    break
                except StoreUnavailable:
                    continue
        ended.set()
        killer.join()
        head = project.store.head().rev
        for tenant_id, revision in last.items():
            process.wait_applied(pids, tenant_id, revision, timeout=RECOVERY)
        for follower in followers:
            report = eventually(lambda follower=follower: _at(follower, head), RECOVERY)
            for tenant_id, revision in last.items():
                assert report["tenants"][tenant_id][0] == revision
        assert process.children() | {process.pid} >= pids, "a process was replaced"
        assert process.log.count("CRITICAL") == 0


def _at(follower, revision):
    report = follower.report()
    return report if report["head"] and report["head"][1] >= revision else None


@pytest.mark.parametrize("server", ["gunicorn", "uvicorn, 2 workers"])
def test_workers_that_are_killed_while_changes_pour_in(project, sqlite_file, server):
    """The server starts others; each serves what the store has."""
    project.put("a.test", project.record(sqlite_file("a")))
    with served(project, server) as (process, site, _):
        for number in range(60):
            revision = project.put(f"t{number % 6}.test", project.record(f"v{number}.db"))
            if number % 10 == 0:
                for pid in process.children():
                    _kill(pid)
        eventually(lambda: _both_told(project, process, revision), RECOVERY)
        site.wait_until_up(process)
        assert site.get("a.test", "/whoami/").status_code == 200


def test_children_of_celery_that_are_killed_while_changes_pour_in(project):
    with project.start(*WORKERS["celery prefork"]) as worker:
        worker.wait_for("ready.")
        for number in range(30):
            revision = project.put(f"t{number % 6}.test", project.record(f"v{number}.db"))
            if number % 15 == 0:
                for pid in worker.children():
                    _kill(pid)
        eventually(lambda: _both_told(project, worker, revision), RECOVERY)


def _kill(pid):
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _both_told(project, process, revision):
    """Whether there are two workers again and each has it; one that was killed did not live to see it."""
    pids, said = process.children(), told(project)
    return len(pids) == 2 and all(pid in said and said[pid]["revision"] >= revision for pid in pids)


def test_a_writer_that_is_killed_leaves_no_half_commit(project, own_redis, tmp_path):
    script = tmp_path / "writer.py"
    script.write_text(
        "import sys, uuid\n"
        "from tenant_router.config_store.backends.redis import RedisStore\n"
        "from tenant_router.config_store.base import Op\n"
        "store = RedisStore(sys.argv[1], {'URL': sys.argv[2]})\n"
        "while True:\n"
        "    ops = [Op(f't{n}', 'A', uuid.uuid4().bytes) for n in range(200)]\n"
        "    store.commit(ops, request_id=uuid.uuid4().hex)\n"
    )
    prefix = f"{{tr:{project.service}}}"
    for _ in range(8):
        before = project.store.head().rev
        with project.start(str(script), project.service, project.url, PYTHONPATH="."):
            eventually(lambda before=before: project.store.head().rev > before)
        rev, last, index, docs = _all_of_it(own_redis, prefix)
        assert (rev - 1) % 200 == 0
        assert last == rev
        assert index == docs
        assert max(index.values()) == rev


def _all_of_it(server, prefix):
    """The store at one moment: the server may still have a commit to read that the writer sent before it was killed."""
    with server.client() as client, client.pipeline(transaction=True) as reads:
        reads.hget(f"{prefix}:meta", "rev").xrevrange(f"{prefix}:log", count=1)
        rev, log, *hashes = reads.hgetall(f"{prefix}:idx").hgetall(f"{prefix}:docs").execute()
    index, docs = ({key: int(value.split(b":")[0]) for key, value in found.items()} for found in hashes)
    return int(rev), int(log[0][0].removesuffix(b"-0")), index, docs


# --- visitors while the store hangs ---


def test_a_tenant_that_was_never_used_is_refused_at_once_while_the_store_hangs(project, own_redis, runtime_on):
    made = runtime_on(project, EAGER_MAX=0)
    made.serve("web")
    hang(own_redis, made)
    eventually(lambda: made.reflector.state == STALE)
    started = time.monotonic()
    for _ in range(20):
        with pytest.raises(TenantNotLoaded, match="is away for"):
            tenant_context_manager.get_by_id("a.test")
    assert time.monotonic() - started < 20  # who asks the store waits for a minute
    own_redis.resume()
    eventually(lambda: name_if_loaded("a.test") == "a.db", RECOVERY)
    eventually(lambda: made.reflector.state == READY)


def test_ten_thousand_unknown_hosts_cost_the_bucket_and_no_memory(project, runtime_on, monkeypatch):
    made = runtime_on(project)
    made.serve("web")
    eventually(lambda: made.reflector.ready)
    calls, real = [], made.store.get_many
    monkeypatch.setattr(made.store, "get_many", lambda ids: calls.append(ids) or real(ids))

    def knock(count):
        for number in range(count):
            with pytest.raises(TenantNotFound):
                tenant_context_manager.get_by_id(f"{uuid.uuid4().hex}-{number}.test")

    knock(2_000)
    # what is left counts the questions: while each takes longer than the bucket needs to fill, all would be allowed
    monkeypatch.setattr(made.store, "get_many", lambda ids: calls.append(ids) or {})
    calls.clear()
    tracemalloc.start()
    before, started = tracemalloc.get_traced_memory()[0], time.monotonic()
    knock(10_000)
    seconds = time.monotonic() - started
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    # those that were under way when the counting began are counted, too
    assert len(calls) <= unknown_ids.LOOK_UPS_PER_SECOND * (seconds + 1) + unknown_ids.FLIGHTS
    assert grown < 1_000_000 + 500 * len(calls)  # an id that was asked for is remembered for some seconds


def test_a_store_that_hangs_costs_a_visitor_a_quarter_of_a_second(project, own_redis, runtime_on):
    project.url += "?socket_timeout=30"  # so long would a visitor wait
    made = runtime_on(project)
    made.serve("web")
    hang(own_redis, made)
    made.reflector._contact = time.monotonic() + 60  # it is not known yet
    started, threads = time.monotonic(), threading.active_count()
    with pytest.raises(TenantNotFound):
        tenant_context_manager.get_by_id("unknown.test")
    assert unknown_ids.BUDGET <= time.monotonic() - started < 15
    for number in range(100):  # the ids that are being asked for are few, and nobody waits for more
        with pytest.raises(TenantNotFound):
            tenant_context_manager.get_by_id(f"unknown{number}.test")
    assert threading.active_count() - threads < 30
    own_redis.resume()
