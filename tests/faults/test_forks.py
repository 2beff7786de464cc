"""Children that are forked from what a parent knew: they serve what the store has, or say that they do not know."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psutil
import pytest
from celery import Celery
from cryptography.fernet import Fernet

from tenant_router.config_store.base import DELETED, Op
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantDeleted, TenantNotLoaded
from tenant_router.managers import tenant_context_manager
from tenant_router.reactive.reflector import READY, STALE
from tenant_router.runtime import forks
from tests.integration.test_fork import in_fork, in_multiprocessing, reader_threads
from tests.integration.test_live_servers import CELERY, GUNICORN, filled
from tests.processes import Site
from tests.tenants import eventually

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
PATIENT = {"IDLE": 30.0}  # seconds: who is asked at a later time is not stale because of the machine


def name_of(tenant_id):
    with tenant_context_bind(tenant_id) as context:
        return context.parts["django_orm"]["default"].settings["NAME"].rpartition("/")[2]


@pytest.fixture
def master(project, runtime_on):
    """This process as one that loads an application only to fork its servers; its forks ask the store nothing."""
    made = runtime_on(project, **PATIENT)
    made.serve("web", thread=False)
    return made


@pytest.fixture
def forgetful(master, monkeypatch):
    """A master whose children must learn everything by themselves."""
    monkeypatch.setattr(master.forks, "catch_up", lambda: None)
    return master


def commands(own_redis):
    """How often each command ran since ``config_resetstat``."""
    stats = own_redis.client().info("commandstats")
    return {name.removeprefix("cmdstat_"): found["calls"] for name, found in stats.items()}


# --- real servers ---


def test_workers_that_serve_one_request_each_serve_what_the_store_has(project, sqlite_file):
    project.put("gone.test", project.record(sqlite_file("gone")))
    project.put("a.test", project.record(sqlite_file("old")))
    arguments = [*GUNICORN, "--preload", "--max-requests", "1"]
    arguments[arguments.index("gthread")] = "sync"
    arguments = [one for one in arguments if one not in ("--threads", "4")]
    with closing(Site()) as site, project.start(*filled(arguments, site.port)) as process:
        site.wait_until_up(process)
        project.put("a.test", project.record(sqlite_file("new")))
        project.delete("gone.test")
        time.sleep(0.5)  # long after a push would have come; those that wait for their request have a reader
        found = [site.get("a.test", "/whoami/").json()["database"].rpartition("/")[2] for _ in range(6)]
        assert [name for name in found if not name.startswith("new")] == []
        assert {site.get("gone.test", "/whoami/").status_code for _ in range(4)} == {410}


def test_children_of_celery_that_run_one_task_each(project, sqlite_file):
    project.put("a.test", project.record(sqlite_file("old")))
    arguments = [*CELERY, "-P", "prefork", "--max-tasks-per-child", "1"]
    backend = project.environment["TESTS_RESULT_URL"]
    client = Celery("client", broker=project.broker, backend=backend, set_as_current=False)
    client.conf.task_default_queue = project.service
    with project.start(*arguments) as worker:
        worker.wait_for("ready.")
        project.put("a.test", project.record(sqlite_file("new")))
        time.sleep(0.5)
        task = client.signature("tests.app.worker_tasks.where", options={"headers": {"tenant_id": "a.test"}})
        found = [result.get(timeout=60) for result in [task.apply_async() for _ in range(6)]]
    client.close()
    assert {one["tenant"] for one in found} == {"a.test"}
    assert {one["database"].partition("-")[0] for one in found} == {"new"}
    assert len({one["pid"] for one in found}) > 2


# --- what a child knows, and says ---


def test_a_child_serves_what_the_store_has_had_since(forgetful, project):
    project.put("gone.test", project.record("gone.db"))
    assert in_fork(lambda: name_of("gone.test")) == "gone.db"
    project.put("a.test", project.record("new.db"))
    project.delete("gone.test")

    def child():
        with pytest.raises(TenantDeleted):
            tenant_context_manager.get_by_id("gone.test")
        return name_of("a.test")

    assert in_fork(child) == "new.db"
    assert in_multiprocessing(child) == "new.db"


def test_a_child_that_is_16_000_events_behind_says_ready_when_it_has_applied_them(forgetful, project):
    ids = [f"t{number}.test" for number in range(4_000)]
    for _ in range(4):
        project.commit(*(Op(tenant_id, DELETED) for tenant_id in ids))
    head = project.put("a.test", project.record("last.db"))

    def child():
        said = []
        while not said or said[-1][0] != READY:
            said.append((forgetful.reflector.state, forgetful.reflector.head.rev))
            time.sleep(0.001)
        return name_of("a.test"), said[0][0], said[-1][1] == head

    assert in_fork(child) == f"('last.db', '{STALE}', True)"


def test_a_child_of_an_outage_serves_the_snapshot_and_says_stale(master, project, own_redis):
    assert in_fork(lambda: name_of("a.test")) == "a.db"
    own_redis.pause()

    def child():
        began = time.monotonic()
        found = name_of("a.test")
        took = time.monotonic() - began
        again = time.monotonic()
        name_of("a.test")
        return found, forks.PATIENCE * 0.9 < took < 20, time.monotonic() - again < 0.5, master.reflector.state

    began = time.monotonic()
    assert in_fork(child) == f"('a.db', True, True, '{STALE}')"
    own_redis.resume()
    print(f"with its child {time.monotonic() - began:.2f} s")
    project.put("a.test", project.record("after.db"))
    assert in_fork(lambda: name_of("a.test")) == "after.db"


def test_a_child_of_an_outage_is_ready_when_it_is_over(master, project, own_redis):
    own_redis.pause()

    def child():
        before = name_of("a.test")
        os.kill(own_redis.pid, signal.SIGCONT)  # Popen asks first whether it is alive, and it is no child of this one
        project.store.reset_after_fork()
        project.put("a.test", project.record("after.db"))
        eventually(lambda: master.reflector.state == READY and name_of("a.test") == "after.db")
        return before, name_of("a.test")

    assert in_fork(child) == "('a.db', 'after.db')"


def test_max_staleness_counts_from_the_last_contact_of_the_snapshot(project, own_redis, runtime_on):
    made = runtime_on(project, MAX_STALENESS=100, **PATIENT)
    made.serve("web", thread=False)
    made.reflector._contact -= 200

    def refused():
        with pytest.raises(TenantNotLoaded, match="away for too long"):
            tenant_context_manager.get_by_id("a.test")
        return made.serves

    made.forks.ask_at = time.monotonic() + 1000  # the parent does not ask
    assert in_fork(lambda: name_of("a.test")) == "a.db"
    own_redis.pause()
    assert in_fork(refused) == "False"
    own_redis.resume()


@pytest.mark.parametrize("eager_max", [0, 5000])
def test_children_of_a_master_that_started_from_the_last_good_file(project, own_redis, runtime_on, tmp_path, eager_max):
    options = {"BOOT": "last_good", "LAST_GOOD": str(tmp_path / "kept"), "KEYS": [Fernet.generate_key().decode()]}
    made = runtime_on(project, **options)
    made.serve("web")
    eventually(lambda: made.last_good._written)
    head = made.reflector.head
    own_redis.stop()
    made = runtime_on(project, **options, BOOT_TIMEOUT=0.3, EAGER_MAX=eager_max)
    made.serve("web", thread=False)
    assert made.reflector.head == head, "it goes on from there by the log"
    assert in_fork(lambda: (name_of("a.test"), made.reflector.state)) == f"('a.db', '{STALE}')"
    own_redis.start()
    project.put("a.test", project.record("back.db"))
    assert in_fork(lambda: name_of("a.test")) == "back.db"


def test_a_child_of_a_script_may_become_a_server(project, runtime_on):
    made = runtime_on(project, **PATIENT)
    assert name_of("a.test") == "a.db"

    def child():
        project.store.reset_after_fork()
        project.put("a.test", project.record("new.db"))
        made.serve("web")
        return name_of("a.test"), "a.test" in made.registry.serving

    assert in_fork(child) == "('new.db', True)"


# --- in the middle of something ---


def test_a_fork_in_the_middle_of_a_publication(project, runtime_on, monkeypatch):
    """Another thread publishes a change, and stops when half of it is done, for longer than a fork waits."""
    made = runtime_on(project, **PATIENT)
    made.serve("web")
    assert name_of("a.test") == "a.db"
    half, go_on, publish = threading.Event(), threading.Event(), made.registry.publish

    def slow(tenant_id, entry, context, refusal=None):
        made.registry.index[tenant_id] = entry
        half.set()
        go_on.wait(60)
        publish(tenant_id, entry, context, refusal)

    monkeypatch.setattr(made.registry, "publish", slow)
    project.put("a.test", project.record("new.db"))
    assert half.wait(60)

    def child():
        made.registry.publish = publish
        return name_of("a.test")

    assert in_fork(child) == "new.db"
    go_on.set()
    eventually(lambda: name_of("a.test") == "new.db")


def test_a_fork_waits_for_a_publication(project, runtime_on):
    made = runtime_on(project)
    held, done = threading.Event(), []

    def publish():
        with made.pipeline._lock:
            held.set()
            time.sleep(0.05)
            done.append(1)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(publish)
        held.wait()
        assert in_fork(lambda: len(done)) == "1"
    assert made.pipeline._lock.acquire(timeout=1), "the parent goes on"
    made.pipeline._lock.release()


# --- what it costs ---


def test_a_crash_loop_of_children_asks_for_the_head_and_for_nothing_else(forgetful, own_redis):
    own_redis.client().config_resetstat()
    for _ in range(10):
        assert in_fork(lambda: (forgetful.reflector.wait_caught_up(20), name_of("a.test"))) == "(True, 'a.db')"
    ran = commands(own_redis)
    assert ran.keys() & {"hscan", "hgetall"} == set()
    assert ran["hmget"] <= 10 + 10, "a head, and perhaps the one record"
    assert ran.get("xrange", 0) <= 10, "the first look of those that lived so long"


def test_a_master_takes_the_log_before_it_forks(master, project, own_redis):
    project.put("a.test", project.record("new.db"))
    own_redis.client().config_resetstat()
    assert in_fork(lambda: master.reflector.head.rev) == str(project.store.head().rev)
    assert len(reader_threads()) == 0
    sockets = {found.raddr for found in psutil.Process().net_connections("unix") if found.raddr}
    assert str(own_redis.socket) not in sockets or master.store.__dict__.get("_client") is None
    assert commands(own_redis).get("hscan", 0) == 0


def test_a_master_whose_log_does_not_reach_back_reads_the_index_for_its_children(master, project, own_redis):
    for number in range(30):
        project.put("a.test", project.record(f"v{number}.db"))
    own_redis.client().xtrim(f"{{tr:{project.service}}}:log", maxlen=2, approximate=False)
    assert in_fork(lambda: (master.reflector.head.rev, name_of("a.test"))) == f"({project.store.head().rev}, 'v29.db')"
    assert master.reflector.head == project.store.head()


def test_a_store_that_hangs_delays_a_fork_by_a_moment(master, own_redis):
    own_redis.pause()
    spent = []
    for _ in range(3):
        began = time.monotonic()
        master.catch_up()
        spent.append(time.monotonic() - began)
    own_redis.resume()
    assert min(spent[:1]) < 2, "a client of its usual patience would wait for three seconds"
    assert max(spent[1:]) < 0.1, "it does not ask again at once"


def test_a_main_process_catches_up_for_what_it_does_itself(master, project, own_redis):
    assert name_of("a.test") == "a.db"
    project.put("a.test", project.record("new.db"))
    master.catch_up()
    assert name_of("a.test") == "new.db"
    own_redis.client().config_resetstat()
    master.forks.ask_at = time.monotonic() + 1000
    for _ in range(100):
        master.catch_up()
    assert "hmget" not in commands(own_redis)


def test_a_process_that_follows_by_itself_is_asked_nothing(project, runtime_on, monkeypatch):
    made = runtime_on(project)
    made.serve("web")
    monkeypatch.setattr(made.store, "hurried", None)
    made.catch_up()
    assert in_fork(os.getpid).isdigit()
