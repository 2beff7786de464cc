"""The loop that keeps a process equal to its store, against a store in memory and against Redis."""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.test import override_settings

from tenant_router.config_store.backends import redis as redis_backend
from tenant_router.config_store.base import DELETED, Op
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import (
    StoreUnavailable,
    TenantDeleted,
    TenantMisconfigured,
    TenantNotFound,
    TenantProvisioning,
    TenantSuspended,
)
from tenant_router.managers import tenant_context_manager
from tenant_router.reactive import unknown_ids
from tenant_router.reactive.reflector import BACKOFF
from tests.processes import Project
from tests.servers import RedisServer, short_directory
from tests.tenants import Tenants, eventually

BAD = {"orm_config": {"django_orm": {"default": {"NAME": 7}}}}
# seconds; IDLE of those who read a record when it is first used: a process that is stale does not ask its store
PATIENT = 30.0


@pytest.fixture
def memory(fresh_runtime, tmp_path):
    """A function that makes a following runtime over a store in memory with some tenants in it."""
    return lambda *tenant_ids, **options: following(fresh_runtime, tmp_path, tenant_ids, options)


def following(fresh_runtime, tmp_path, tenant_ids, options):
    with store_options(**{"IDLE": 0.3, **options}):
        runtime = fresh_runtime()
        tenants = Tenants(runtime, tmp_path)
        tenants.delete("nobody.test")
        for tenant_id in tenant_ids:
            tenants.put(tenant_id)
        runtime.serve("web")
    return tenants


def store_options(**options):
    from django.conf import settings

    store = dict(settings.TENANT_ROUTER_CONFIG_STORE_SETTINGS)
    store["OPTIONS"] = {**store["OPTIONS"], **options}
    return override_settings(TENANT_ROUTER_CONFIG_STORE_SETTINGS=store)


@pytest.fixture
def own_redis():
    with short_directory() as directory:
        server = RedisServer(directory)
        server.start()
        yield server
        server.stop()


@pytest.fixture
def on_redis(own_redis, runtime_on, tmp_path):
    """A following runtime over a Redis of its own, with the tenant a.test; and the store of another process."""
    project = Project(own_redis, tmp_path)
    project.put("a.test", project.record("a.db"))
    runtime = runtime_on(project)
    runtime.serve("web")
    return project, runtime


def name_of(tenant_id):
    """The database that work of this tenant finds now."""
    with tenant_context_bind(tenant_id) as context:
        return context.parts["django_orm"]["default"].settings["NAME"].rpartition("/")[2]


def content(tenants):
    return tenants.runtime.store._content


def known():
    return sorted(tenant_context_manager.get_known_ids())


# --- following ---


def test_a_change_arrives_without_being_asked_for(memory):
    tenants = memory("a.test")
    tenants.put("a.test", tenants.record("second"))
    eventually(lambda: name_of("a.test") == "second.db")
    tenants.put("b.test")
    eventually(lambda: known() == ["a.test", "b.test"])


@pytest.mark.parametrize(
    ("state", "error"),
    [("P", TenantProvisioning), ("S", TenantSuspended), ("D", TenantDeleted), (DELETED, TenantDeleted)],
)
def test_a_state_arrives_and_goes_again(memory, state, error):
    tenants = memory("a.test")
    assert name_of("a.test") == "a.test.db"
    revision = tenants.put("a.test", state=state)
    tenants.arrived("a.test", revision)
    with pytest.raises(error):
        tenant_context_manager.get_by_id("a.test")
    assert tenant_context_manager.contains("a.test") is (state != DELETED)
    tenants.arrived("a.test", tenants.put("a.test"))
    assert name_of("a.test") == "a.test.db"


@pytest.mark.parametrize("eager_max", [0, 5000])
def test_a_burst_of_changes_loses_none(memory, eager_max):
    ids = [f"t{number}.test" for number in range(20)]
    tenants = memory(*ids, EAGER_MAX=eager_max, IDLE=PATIENT)
    for tenant_id in ids[:10]:
        name_of(tenant_id)
    last = {}
    for number in range(200):
        tenant_id = ids[number % 20]
        last[tenant_id] = tenants.put(tenant_id, tenants.record(f"v{number}"))
    for tenant_id, revision in last.items():
        tenants.arrived(tenant_id, revision)
    assert [name_of(tenant_id) for tenant_id in ids] == [f"v{180 + number}.db" for number in range(20)]


def test_a_burst_over_redis_loses_none(on_redis):
    project, runtime = on_redis
    for number in range(200):
        project.put(f"t{number % 20}.test", project.record(f"v{number}.db"))
    eventually(lambda: runtime.reflector.head == project.store.head())
    assert [name_of(f"t{number}.test") for number in range(20)] == [f"v{180 + number}.db" for number in range(20)]


def test_a_lost_push_costs_an_idle_interval_and_nothing_else(on_redis, monkeypatch):
    project, _ = on_redis
    silent = redis_backend._COMMIT.replace("redis.call('PUBLISH', channel,", "type(")
    assert silent != redis_backend._COMMIT
    monkeypatch.setattr(redis_backend, "_COMMIT", silent)
    project.put("quiet.test", project.record("quiet.db"))
    # it would be found by reading the whole index, too, after RESYNC: ten minutes
    eventually(lambda: tenant_context_manager.contains("quiet.test"))


# --- gaps and other histories ---


def test_a_trimmed_log_leads_to_the_index(memory):
    tenants = memory("a.test", "b.test")
    with paused(tenants.runtime):
        tenants.put("a.test", tenants.record("second"))
        tenants.delete("b.test")
        tenants.put("c.test")
        content(tenants).log.clear()
    eventually(lambda: (known(), name_of("a.test")) == (["a.test", "c.test"], "second.db"))


class paused:
    """Hold the loop between two reads, as a machine that swaps does."""

    def __init__(self, runtime):
        self._lock = runtime.reflector._lock
        self._store = runtime.store

    def __enter__(self):
        self._lock.acquire()
        self._real, self._gate = self._store._announced, threading.Event()
        self._store._announced = lambda rev, wait: self._gate.wait(20) and self._real(rev, wait)
        self._store.__dict__["head"] = lambda: self._gate.wait(20) and type(self._store).head(self._store)
        return self

    def __exit__(self, *exception):
        del self._store.__dict__["head"], self._store.__dict__["_announced"]
        self._gate.set()
        self._lock.release()


def test_another_epoch_replaces_everything(memory):
    tenants = memory("a.test", "b.test")
    assert name_of("a.test") == "a.test.db"
    with paused(tenants.runtime):
        tenants.runtime.store.clear()
        tenants.put("a.test", tenants.record("restored"))
    # who is gone is dropped before who is there is read
    eventually(lambda: (known(), name_of("a.test")) == (["a.test"], "restored.db"))


def test_a_rollback_whose_revisions_were_used_again_replaces_everything(memory):
    """Same epoch, same revisions, contiguous: only the chain tells."""
    tenants = memory("a.test")
    saved = snapshot(content(tenants))
    tenants.arrived("ghost.test", tenants.put("ghost.test"))
    tenants.arrived("a.test", tenants.put("a.test", tenants.record("lost")))
    assert name_of("a.test") == "lost.db"
    with paused(tenants.runtime):
        restore(content(tenants), saved)
        for name in ("x", "y"):
            tenants.put("a.test", tenants.record(name))
        tenants.put("later.test")
    eventually(lambda: (known(), name_of("a.test")) == (["a.test", "later.test"], "y.db"))


@pytest.mark.parametrize("written", [0, 1])
def test_a_rollback_is_noticed_when_the_head_is_not_above(memory, written):
    tenants = memory("a.test")
    saved = snapshot(content(tenants))
    tenants.arrived("ghost.test", tenants.put("ghost.test"))
    restore(content(tenants), saved)
    if written:
        tenants.put("a.test", tenants.record("again"))
    eventually(lambda: known() == ["a.test"])


def snapshot(held):
    with held.changed:
        return held.epoch, held.rev, held.chain, list(held.log), dict(held.records)


def restore(held, saved):
    with held.changed:
        held.epoch, held.rev, held.chain, log, records = saved
        held.log.clear()
        held.log.extend(log)
        held.records.clear()
        held.records.update(records)


def test_an_empty_store_deletes_nobody(on_redis, own_redis, caplog):
    project, runtime = on_redis
    own_redis.client().flushall()
    eventually(lambda: not runtime.reflector.ready)
    assert name_of("a.test") == "a.db"
    eventually(lambda: any("is empty" in record.message for record in caplog.records))
    project.put("a.test", project.record("again.db"))
    eventually(lambda: name_of("a.test") == "again.db", 2 * BACKOFF[1])
    eventually(lambda: runtime.reflector.ready)


def test_a_store_that_shrank_deletes_nobody_and_says_so(memory, caplog):
    ids = [f"t{number}.test" for number in range(30)]
    tenants = memory(*ids)
    with paused(tenants.runtime):
        tenants.runtime.store.clear()
        for tenant_id in ids[:5]:
            tenants.put(tenant_id, tenants.record("other"))
    eventually(lambda: any(record.levelno == logging.CRITICAL for record in caplog.records))
    assert "25 of 30 tenants are gone" in next(r.message for r in caplog.records if r.levelno == logging.CRITICAL)
    assert len(known()) == 30
    assert name_of("t29.test") == "t29.test.db"
    eventually(lambda: not tenants.runtime.reflector.ready)
    with paused(tenants.runtime):  # some of them alone would be few enough to go
        for tenant_id in ids[5:]:
            tenants.put(tenant_id, tenants.record("other"))
    eventually(lambda: name_of("t29.test") == "other.db", 2 * BACKOFF[1])
    eventually(lambda: tenants.runtime.reflector.ready)


def test_deleting_many_tenants_properly_is_no_shrinking(memory):
    ids = [f"t{number}.test" for number in range(30)]
    tenants = memory(*ids)
    tenants.commit(*[Op(tenant_id, DELETED) for tenant_id in ids[1:]])
    eventually(lambda: known() == ["t0.test"])


# --- failures ---


@pytest.mark.parametrize("broken", ["prepare", "retire", "get_many"])
def test_an_unexpected_exception_does_not_end_the_thread(memory, monkeypatch, caplog, broken):
    tenants = memory("a.test")
    assert name_of("a.test") == "a.test.db"
    runtime, raised = tenants.runtime, []
    owner = runtime.store if broken == "get_many" else runtime.orms["django_orm"]
    real = getattr(owner, broken)

    def break_down(*args):
        if len(raised) < 2:
            raised.append(1)
            raise ZeroDivisionError("a bug")
        return real(*args)

    monkeypatch.setattr(owner, broken, break_down)
    for name in ("second", "third", "fourth"):
        tenants.arrived("a.test", tenants.put("a.test", tenants.record(name)))
    eventually(lambda: name_of("a.test") == "fourth.db")
    eventually(lambda: runtime.reflector.ready)
    assert [r for r in caplog.records if r.levelno >= logging.ERROR]


def test_a_bug_in_a_manager_stops_its_tenant_alone(memory, monkeypatch):
    tenants = memory("a.test", "b.test")
    manager = tenants.runtime.orms["django_orm"]
    real = manager.prepare

    def prepare(tenant_id, *args):
        if tenant_id == "a.test":
            raise ZeroDivisionError("a bug")
        return real(tenant_id, *args)

    assert name_of("a.test") == "a.test.db"
    monkeypatch.setattr(manager, "prepare", prepare)
    tenants.put("a.test", tenants.record("never"))
    tenants.put("b.test", tenants.record("second"))
    eventually(lambda: name_of("b.test") == "second.db")
    assert name_of("a.test") == "a.test.db"
    eventually(lambda: tenants.runtime.reflector.ready)


def test_a_frozen_server_makes_the_process_stale_and_its_return_ready(on_redis, own_redis):
    project, runtime = on_redis
    eventually(lambda: runtime.reflector.ready)
    own_redis.pause()
    eventually(lambda: not runtime.reflector.ready)
    assert name_of("a.test") == "a.db"
    own_redis.resume()
    eventually(lambda: runtime.reflector.ready, 2 * BACKOFF[1])
    project.put("a.test", project.record("after.db"))
    eventually(lambda: name_of("a.test") == "after.db")


def test_a_server_that_died_is_followed_again(on_redis, own_redis):
    project, runtime = on_redis
    own_redis.kill()
    eventually(lambda: not runtime.reflector.ready)
    own_redis.start()
    project.put("a.test", project.record("reborn.db"))
    # it waits after a refused connection, and once more after it has found another history
    eventually(lambda: name_of("a.test") == "reborn.db", 3 * BACKOFF[1])


def test_killed_connections_are_made_again(on_redis, own_redis):
    project, _ = on_redis
    own_redis.client().client_kill_filter(_type="pubsub")
    own_redis.client().client_kill_filter(_type="normal", skipme=True)
    project.put("a.test", project.record("on.db"))
    eventually(lambda: name_of("a.test") == "on.db")


def test_a_dead_thread_is_not_ready(memory):
    tenants = memory("a.test")
    eventually(lambda: tenants.runtime.reflector.ready)
    tenants.runtime.reflector.stop()
    assert not tenants.runtime.reflector.ready


# --- refused records ---


def test_a_bad_record_keeps_the_last_good_one_and_lets_the_others_pass(memory):
    tenants = memory("a.test", "b.test")
    assert name_of("a.test") == "a.test.db"
    bad = tenants.put("a.test", BAD)
    tenants.arrived("b.test", tenants.put("b.test", tenants.record("second")))
    assert name_of("b.test") == "second.db"
    assert name_of("a.test") == "a.test.db"
    assert tenant_context_manager.refusals["a.test"].revision == bad
    tenants.arrived("a.test", tenants.put("a.test", tenants.record("good")))
    assert name_of("a.test") == "good.db"
    assert not tenant_context_manager.refusals


@pytest.mark.parametrize("eager_max", [0, 5000])
@pytest.mark.parametrize("body", ["bad", b"", b"\x80garbage", b'{"tenant": 1}'])
def test_a_record_that_was_bad_at_boot_is_repaired_live(memory, eager_max, body):
    tenants = memory("a.test", EAGER_MAX=eager_max, IDLE=PATIENT)
    publish_bad(tenants, body)
    with pytest.raises(TenantMisconfigured):
        name_of("bad.test")
    assert tenant_context_manager.contains("bad.test")
    tenants.arrived("bad.test", tenants.put("bad.test"))
    assert name_of("bad.test") == "bad.test.db"


def publish_bad(tenants, body):
    """Publish a record that no writer of ours would have let pass."""
    revision = tenants.put("bad.test", BAD) if body == "bad" else tenants.commit(Op("bad.test", "A", body))
    tenants.arrived("bad.test", revision)


def test_a_record_of_another_tenant_is_refused(memory):
    tenants = memory("a.test", "b.test")
    assert name_of("b.test") == "b.test.db"
    tenants.arrived("b.test", tenants.commit(Op("b.test", "A", content(tenants).records["a.test"].body)))
    assert name_of("b.test") == "b.test.db"
    assert "b.test" in tenant_context_manager.refusals


def test_a_bad_record_can_suspend_its_tenant_all_the_same(memory):
    tenants = memory("a.test")
    assert name_of("a.test") == "a.test.db"
    tenants.arrived("a.test", tenants.put("a.test", BAD, state="S"))
    with pytest.raises(TenantSuspended):
        name_of("a.test")


# --- loading at first use ---


def test_lazy_processes_read_a_record_when_it_is_first_used(memory):
    tenants = memory("a.test", "b.test", EAGER_MAX=0, IDLE=PATIENT)
    assert tenant_context_manager.prepared == {}
    assert not tenants.runtime.pipeline._held
    assert name_of("a.test") == "a.test.db"
    assert list(tenant_context_manager.prepared) == ["a.test"]


def test_eager_processes_serve_a_tenant_they_never_used_without_a_store(on_redis, own_redis):
    own_redis.pause()
    assert name_of("a.test") == "a.db"


@pytest.mark.parametrize("change", ["put", "delete"])
@pytest.mark.parametrize("eager_max", [0, 5000])
def test_a_change_while_a_record_is_first_read_is_not_undone(memory, change, eager_max):
    """A reader that got its record before the change publishes it after the change."""
    tenants = memory("a.test", EAGER_MAX=eager_max, IDLE=PATIENT)
    pipeline, taken = tenants.runtime.pipeline, threading.Event()
    with pipeline._lock, ThreadPoolExecutor(1) as pool:

        class Held(dict):
            def get(self, tenant_id):
                found = super().get(tenant_id)
                if found is not None:
                    taken.set()
                return found

        def fetch(ids):
            found = tenants.runtime.store.get_many(ids)
            taken.set()
            return found

        held = "a.test" in pipeline._held
        pipeline._held = Held(pipeline._held)
        reading = pool.submit(pipeline.load, "a.test", fetch)
        assert taken.wait(20)  # it cannot publish what it has: that takes the lock
        revision = tenants.delete("a.test") if change == "delete" else tenants.put("a.test", tenants.record("second"))
        record = content(tenants).records["a.test"]
        before = tenant_context_manager.index["a.test"]
        if change == "delete" or not held:
            assert pipeline.note("a.test", before, record.packed)
        else:
            assert pipeline.apply("a.test", before, record.packed, record)
        pipeline._lock.release()
        try:
            error = reading.exception(20)
        finally:
            pipeline._lock.acquire()
    tenants.arrived("a.test", revision)
    if change == "delete":
        assert isinstance(error, TenantDeleted)
        with pytest.raises(TenantDeleted):
            name_of("a.test")
    else:
        assert name_of("a.test") == "second.db"


# --- read-through ---


@pytest.fixture
def deaf(memory, monkeypatch):
    """A runtime whose pushes come late, and how often it looked ids up."""
    monkeypatch.setattr(unknown_ids, "BUDGET", 20.0)  # how long a visitor waits for an answer is shown elsewhere
    tenants = memory("a.test")
    eventually(lambda: tenants.runtime.reflector.ready)
    store, asked = tenants.runtime.store, []
    deaf, waits, gate = threading.Event(), threading.Event(), threading.Event()
    real, announced = store.get_many, store._announced

    def get_many(ids):
        asked.extend(ids)
        return real(ids)

    def hear(rev, wait):
        if not deaf.is_set():
            return announced(rev, wait)
        waits.set()
        return bool(gate.wait(60)) and False

    store._announced, store.get_many = hear, get_many
    deaf.set()
    assert waits.wait(20)
    asked.clear()
    tenants.asked = asked
    tenants.runtime.reflector._contact = time.monotonic() + 60  # it counts as ready meanwhile
    yield tenants
    del store._announced, store.get_many
    gate.set()


def test_an_id_created_a_moment_ago_is_found_before_its_event(deaf):
    deaf.put("new.test")
    assert name_of("new.test") == "new.test.db"
    assert deaf.asked == ["new.test"]


def test_requests_that_meet_while_an_id_is_looked_up_all_find_it(deaf):
    deaf.put("new.test")
    real = deaf.runtime.store.get_many

    def slow(ids):
        time.sleep(0.1)
        return real(ids)

    deaf.runtime.store.get_many = slow
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(name_of, ["new.test"] * 8)) == ["new.test.db"] * 8
    assert deaf.asked == ["new.test"], "one look-up for all of them"


def test_an_unknown_id_is_looked_up_once_in_five_seconds(deaf, monkeypatch):
    assert unknown_ids.LOOK_UP_PAUSE == 5.0
    monkeypatch.setattr(unknown_ids, "LOOK_UP_PAUSE", 60.0)
    for _ in range(5):
        with pytest.raises(TenantNotFound):
            name_of("unknown.test")
    assert deaf.asked == ["unknown.test"]
    monkeypatch.setattr(unknown_ids, "LOOK_UP_PAUSE", 0.0)
    with pytest.raises(TenantNotFound):
        name_of("unknown.test")
    assert deaf.asked == ["unknown.test"] * 2


def test_unknown_ids_cannot_flood_the_store(deaf):
    began = time.monotonic()
    for number in range(500):
        with pytest.raises(TenantNotFound):
            name_of(f"u{number}.test")
    assert 50 <= len(deaf.asked) <= 50 * (1 + time.monotonic() - began)
    assert not any("/" in asked or "@" in asked for asked in deaf.asked)


@pytest.mark.parametrize("asked", ["@meta", "UPPER.test", "a..b", "", "x" * 300])
def test_what_is_no_tenant_id_is_never_looked_up(deaf, asked):
    with pytest.raises(TenantNotFound):
        tenant_context_manager.get_by_id(asked)
    assert deaf.asked == []


def test_nothing_is_looked_up_while_the_process_is_stale(deaf):
    deaf.put("new.test")
    deaf.runtime.reflector._contact = time.monotonic() - 60
    with pytest.raises(TenantNotFound):
        name_of("new.test")
    assert deaf.asked == []


def test_a_store_that_fails_during_a_look_up_means_not_found(deaf):
    def fail(ids):
        raise StoreUnavailable("away")

    deaf.runtime.store.get_many = fail
    with pytest.raises(TenantNotFound):
        name_of("new.test")
