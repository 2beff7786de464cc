"""One tenant's trouble is its own: no record, however bad, keeps another tenant's change from arriving."""

import errno
import itertools
import logging
import time

import pytest
from billiard.exceptions import SoftTimeLimitExceeded

from tenant_router.config_store.base import Op
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import (
    TenantDeleted,
    TenantMisconfigured,
    TenantNotLoaded,
    TenantRouterError,
    TenantUnavailable,
)
from tenant_router.managers import tenant_context_manager
from tenant_router.reactive import pipeline as pipeline_module
from tenant_router.reactive.reflector import READY
from tests.faults.readers import REFUSED, Reader, Writers
from tests.faults.test_fleet import told
from tests.integration.test_reflector import paused
from tests.tenants import eventually


def name_of(tenant_id):
    with tenant_context_bind(tenant_id) as context:
        return context.parts["django_orm"]["default"].settings["NAME"].rpartition("/")[2]


def error_of(tenant_id):
    """The type of what says why the tenant is not served; ``None`` if it is."""
    try:
        tenant_context_manager.get_by_id(tenant_id)
    except TenantRouterError as error:
        return type(error)
    return None


@pytest.fixture
def served(project, runtime_on):
    made = runtime_on(project)
    made.serve("web")
    assert name_of("a.test") == "a.db"
    return made


# --- records ---


def test_a_hundred_records_that_are_bad_again_stop_nobody():
    writers = Writers()
    writers.put("good", 0)
    for number in range(100):
        writers.put(f"bad{number}", 1, bad=True)
    reader = Reader(writers.store)
    reader.step()
    for number in range(100):
        writers.put(f"bad{number}", 2, bad=True)
    writers.put("good", 1)
    reader.step()
    assert reader.reflector.failures == 0
    assert reader.value("good") == 1
    assert set(reader.serves().values()) == {1, REFUSED}


def test_the_good_record_before_a_bad_one_serves_though_nobody_had_used_it():
    writers = Writers()
    writers.put("a", 1)
    reader = Reader(writers.store)
    reader.step()
    writers.put("a", 2, bad=True)
    reader.step()
    assert reader.registry.prepared["a"].parts["plain"]["value"] == 1
    assert reader.registry.refusals["a"].revision == 2


# --- what passes by itself ---

PASSING = [
    OSError(errno.EMFILE, "too many"),
    MemoryError(),
    ImportError("a deploy is under way"),
    SoftTimeLimitExceeded(),
]


@pytest.fixture
def flaky(served, monkeypatch):
    """A function that makes the preparing of a.test fail with an error, until it is called with ``None``."""
    manager, failing = served.orms["django_orm"], []
    prepare = manager.prepare

    def flake(tenant_id, config, previous):
        if tenant_id == "a.test" and failing[-1:] != [None] and failing:
            raise failing[-1]
        return prepare(tenant_id, config, previous)

    monkeypatch.setattr(manager, "prepare", flake)
    return failing.append


@pytest.mark.parametrize("error", PASSING[:3], ids=lambda error: type(error).__name__)
def test_what_passes_is_tried_again(served, project, flaky, error):
    flaky(error)
    project.put("a.test", project.record("new.db"))
    revision = project.put("b.test", project.record("b.db"))
    eventually(lambda: served.pipeline.revision_of("b.test") == revision)
    assert name_of("a.test") == "a.db", "the last good one serves meanwhile"
    eventually(lambda: told(project) and [one["refused"] for one in told(project).values()] == [1])
    flaky(None)
    eventually(lambda: name_of("a.test") == "new.db")
    assert served.registry.refusals == {}
    assert served.reflector.failures == 0


@pytest.mark.parametrize("error", PASSING[:3], ids=lambda error: type(error).__name__)
def test_a_first_use_that_fails_is_unavailable_for_a_moment(project, runtime_on, monkeypatch, error):
    made = runtime_on(project, EAGER_MAX=0, IDLE=30.0)
    made.serve("web")
    manager, failing = made.orms["django_orm"], [error]
    prepare = manager.prepare

    def flake(*arguments):
        if failing:
            raise failing[0]
        return prepare(*arguments)

    monkeypatch.setattr(manager, "prepare", flake)
    assert error_of("a.test") is TenantNotLoaded
    failing.clear()
    eventually(lambda: error_of("a.test") is None)


def test_a_time_limit_is_the_tasks_own(project, runtime_on, monkeypatch):
    """It hits a task that happens to prepare a record: the task learns of it, and the record is as good as before."""
    made = runtime_on(project, EAGER_MAX=0, IDLE=30.0)
    made.serve("web")
    with monkeypatch.context() as patch:

        def prepare(*arguments):
            raise SoftTimeLimitExceeded

        patch.setattr(made.orms["django_orm"], "prepare", prepare)
        with pytest.raises(SoftTimeLimitExceeded) as caught:
            tenant_context_manager.get_by_id("a.test")
        assert "prepare" not in [entry.name for entry in caught.traceback], "error reports show variables"
    assert name_of("a.test") == "a.db"


def test_the_pauses_grow_and_are_logged_once(monkeypatch, caplog):
    writers = Writers()
    writers.put("a", 1)
    reader = Reader(writers.store)
    reader.pipeline._builder.build = _fail
    clock = [1000.0]
    monkeypatch.setattr(pipeline_module.time, "monotonic", lambda: clock[0])
    reader.step()
    writers.put("a", 2)
    tries = []
    with caplog.at_level(logging.ERROR):
        reader.step()
        for _ in range(3000):
            clock[0] += 0.1
            before = reader.registry.refusals["a"]
            reader.pipeline.retry(writers.store.get_many)
            if reader.registry.refusals["a"] is not before:
                tries.append(clock[0])
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert pauses[0] < 1
    assert 40 < max(pauses) < 80
    assert len(tries) < 15
    assert caplog.text.count("it is tried again") == 1


def _fail(*arguments):
    raise MemoryError


# --- what cannot be read ---


def damage_state(project, client, prefix):
    entry = client.hget(f"{prefix}:idx", "a.test").decode().replace(":A:", ":Q:")
    client.hset(f"{prefix}:idx", "a.test", entry)


def damage_entry(project, client, prefix):
    client.hset(f"{prefix}:idx", "a.test", "garbage")


def damage_document(project, client, prefix):
    client.hset(f"{prefix}:docs", "a.test", "garbage")


def lose_document(project, client, prefix):
    client.hdel(f"{prefix}:docs", "a.test")


def hold_back_document(project, client, prefix):
    """It is behind what the index and the log say."""
    old = client.hget(f"{prefix}:docs", "a.test")
    project.put("a.test", project.record("newer.db"))
    client.hset(f"{prefix}:docs", "a.test", old)


DAMAGES = [damage_state, damage_entry, damage_document, lose_document, hold_back_document]


@pytest.fixture
def prefix(project):
    return f"{{tr:{project.service}}}"


@pytest.mark.parametrize("eager_max", [0, 5000], ids=["lazy", "eager"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_new_process_serves_all_but_the_damaged_one(project, own_redis, prefix, runtime_on, damage, eager_max):
    project.put("b.test", project.record("b.db"))
    damage(project, own_redis.client(), prefix)
    made = runtime_on(project, EAGER_MAX=eager_max)
    made.serve("web")
    assert name_of("b.test") == "b.db"
    assert issubclass(error_of("a.test"), TenantUnavailable)
    assert tenant_context_manager.contains("a.test")
    revision = project.put("c.test", project.record("c.db"))
    eventually(lambda: made.pipeline.revision_of("c.test") == revision)
    eventually(lambda: made.reflector.state == READY)
    eventually(lambda: [list(one["refusals"]) for one in told(project).values()] == [["a.test"]])
    project.put("a.test", project.record("mended.db"))
    eventually(lambda: error_of("a.test") is None and name_of("a.test") == "mended.db")


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_an_old_process_finds_it_at_the_next_look(served, project, own_redis, prefix, damage):
    """It has the damaged tenant in use."""
    with paused(served):  # else the record may be read, with its event, before it is damaged
        project.put("a.test", project.record("second.db"))
        damage(project, own_redis.client(), prefix)
    served.reflector._resync_at = 0.0
    revision = project.put("b.test", project.record("b.db"))
    eventually(lambda: served.pipeline.revision_of("b.test") == revision)
    eventually(lambda: error_of("a.test") is not None and issubclass(error_of("a.test"), TenantUnavailable))
    eventually(lambda: [list(one["refusals"]) for one in told(project).values()] == [["a.test"]])
    assert name_of("b.test") == "b.db"
    project.put("a.test", project.record("mended.db"))
    eventually(lambda: error_of("a.test") is None and name_of("a.test") == "mended.db")
    assert served.reflector.failures == 0


def test_a_state_of_a_later_release_that_the_log_tells(served, project):
    project.commit(Op("a.test", "Q", b"whatever it is"))
    eventually(lambda: error_of("a.test") is TenantMisconfigured)
    assert "'Q'" in tenant_context_manager.refusals["a.test"].reason
    project.delete("a.test")
    eventually(lambda: error_of("a.test") is TenantDeleted)


def test_letting_go_of_what_was_may_fail(served, project, monkeypatch, caplog):
    def retire(previous, current):
        raise ZeroDivisionError

    monkeypatch.setattr(served.orms["django_orm"], "retire", retire)
    project.put("a.test", project.record("new.db"))
    eventually(lambda: name_of("a.test") == "new.db")
    eventually(lambda: "letting go" in caplog.text)
    assert served.reflector.failures == 0


def test_a_tenant_that_nobody_can_read_costs_a_visitor_no_question(project, own_redis, prefix, runtime_on):
    """However many come: the store is asked again after a pause, and not by each of them."""
    lose_document(project, own_redis.client(), prefix)
    made = runtime_on(project, EAGER_MAX=0, IDLE=30.0)
    made.serve("web")
    asked, get_many = [], made.store.get_many
    made.store.get_many = lambda ids: asked.append(ids) or get_many(ids)
    began = time.monotonic()
    for _ in range(200):
        assert error_of("a.test") is TenantNotLoaded
    assert len(asked) <= 5 + 5 * (time.monotonic() - began)
