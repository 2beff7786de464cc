"""psycopg's connection pools, on a real PostgreSQL: one per database and revision, never an old one."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django import VERSION
from django.core.signals import request_finished, request_started
from django.db import connection, connections, transaction

from tenant_router import runtime
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TransactionOpen
from tenant_router.managers import tenant_context_manager
from tests.app.models import Note
from tests.tenants import eventually

pytestmark = pytest.mark.skipif(VERSION < (5, 1), reason="Django has pools since 5.1")

POOL = {"min_size": 1, "max_size": 3, "timeout": 60}


@pytest.fixture
def pooled(on_postgres):
    """A tenant with two databases to move between, reached through pools."""
    tenants = on_postgres(OPTIONS={"pool": POOL}, max_open=30)
    tenants.create("a0", "a1", "b0")
    tenants.put("a", "a0")
    tenants.put("b", "b0")
    return tenants


def request(function, tenant_id="a"):
    request_started.send(sender=None)
    try:
        with tenant_context_bind(tenant_id):
            return function()
    finally:
        request_finished.send(sender=None)


def where():
    return Note.objects.get(id=1).text


def database(tenant_id="a"):
    return tenant_context_manager.get_by_id(tenant_id).parts["django_orm"]["default"]


def test_each_tenant_has_a_pool_of_its_own(pooled):
    assert request(where) == "a0"
    assert request(where, "b") == "b0"
    assert database("a").pool is not database("b").pool


def test_no_pool_outlives_its_runtime(pooled):
    assert request(where) == "a0"
    pool = database().pool
    runtime.get().uninstall()
    assert pool.closed


def test_threads_share_the_pool_of_a_tenant(pooled):
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: request(where), range(60))) == {"a0"}
    eventually(lambda: pooled.sessions("a0") <= POOL["max_size"])  # the test's own sessions end a little later


def test_a_pool_does_not_survive_a_change_of_settings(pooled):
    request(where)
    old = database()
    pool = old.pool
    pooled.put("a", "a1")
    assert request(where) == "a1"
    assert pool.closed
    assert old.pool is None or old.pool.closed
    eventually(lambda: pooled.sessions("a0") == 0)


def test_another_password_is_another_pool(pooled):
    request(where)
    pool = database().pool
    pooled.put("a", "a0", PASSWORD="changed")
    request(where)
    assert database().pool is not pool
    assert pool.closed


def test_a_pool_survives_a_change_of_something_else(pooled):
    request(where)
    pool = database().pool
    record = {**pooled.record("a0"), "cache_config": {"default": {"TIMEOUT": 3}}}
    pooled.tenants.arrived("a", pooled.tenants.put("a", record))
    assert request(where) == "a0"
    assert database().pool is pool
    assert not pool.closed


def test_a_connection_in_flight_works_to_the_end_of_its_unit(pooled):
    def unit():
        with transaction.atomic():
            Note.objects.create(text="before")
            pooled.put("a", "a1")
            Note.objects.create(text="after")
        assert Note.objects.count() == 3
        return where()

    assert request(unit) == "a0"
    eventually(lambda: pooled.sessions("a0") == 0)
    assert request(where) == "a1"


def test_a_unit_that_connects_again_after_the_change_leaves_no_pool_behind(pooled):
    request(where)
    old = database()

    def unit():
        pooled.put("a", "a1")
        connection.close()
        return where()

    assert request(unit) == "a0"
    assert old.pool is None or old.pool.closed
    eventually(lambda: pooled.sessions("a0") == 0)


def test_a_unit_that_connects_first_after_the_change_leaves_no_pool_behind(pooled):
    old = database()

    def unit():
        pooled.put("a", "a1")
        return where()

    assert request(unit) == "a0"
    assert old.pool is None or old.pool.closed
    eventually(lambda: pooled.sessions("a0") == 0)


def test_a_deleted_tenants_pool_is_closed(pooled):
    request(where)
    pool = database().pool
    pooled.tenants.arrived("a", pooled.tenants.delete("a"))
    assert pool.closed
    eventually(lambda: pooled.sessions("a0") == 0)


def test_an_abandoned_transaction_costs_the_pool_no_connection(pooled):
    def leave_open():
        request_started.send(sender=None)
        try:
            with pytest.raises(TransactionOpen):  # noqa: PT012
                with tenant_context_bind("a"):
                    transaction.atomic().__enter__()
                    Note.objects.create(text="lost")
        finally:
            request_finished.send(sender=None)

    for _ in range(POOL["max_size"] + 2):
        leave_open()
    assert request(lambda: Note.objects.count()) == 1


def test_what_counts_is_what_is_open_in_pools_too(on_postgres):
    tenants = on_postgres(OPTIONS={"pool": {"min_size": 1, "max_size": 200}}, max_open=2)
    names = ["d0", "d1", "d2"]
    tenants.create(*names)
    for name in names:
        tenants.put(name, name)
    budget = tenants.tenants.runtime.orms["django_orm"].connections.budget
    for name in [*names, *names]:
        assert request(where, name) == name
        assert budget.open_count() <= 2
    assert [database(name).pool.size for name in names] == [0, 1, 1]
    eventually(lambda: tenants.sessions() <= 2)


def test_a_pool_has_no_threads_of_its_own(pooled):
    request(where)  # now those are there that all pools share
    before = threading.active_count()
    request(where, "b")
    assert threading.active_count() == before


def test_many_threads_while_the_pool_is_replaced(pooled):
    stop, wrong, errors = threading.Event(), [], []

    def work():
        try:
            while not stop.is_set():
                promised = []

                def unit(promised=promised):
                    promised.append(connection.settings_dict["NAME"])
                    return pooled.name(where())

                if request(unit) != promised[0]:
                    wrong.append(promised)
        except Exception as error:
            errors.append(error)
            raise
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for flip in range(40):
            pooled.put("a", f"a{(flip + 1) % 2}")
            time.sleep(0.02)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert wrong == []
    eventually(lambda: pooled.sessions("a1") == 0 and pooled.sessions("a0") <= POOL["max_size"])


def test_who_waits_for_a_pool_that_is_closed_gets_a_connection(pooled):
    request(where)
    pool = database("a").pool
    lent = [pool.getconn() for _ in range(POOL["max_size"])]
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(pool.getconn)
        eventually(lambda: pool.get_stats()["requests_waiting"] == 1)
        pool.close()
        lent.append(waiting.result(POOL["timeout"] / 2))
    for raw in lent:
        pool.putconn(raw)
    assert all(raw.closed for raw in lent)


class Interrupted(BaseException):
    """As a time limit or a signal raises, in the middle of whatever runs."""


@pytest.mark.parametrize("where_it_hits", ["_check", "rollback"])
def test_one_who_is_interrupted_costs_the_pool_no_connection(on_postgres, monkeypatch, where_it_hits):
    tenants = on_postgres(OPTIONS={"pool": {"max_size": 1, "timeout": 5}}, CONN_HEALTH_CHECKS=True)
    tenants.create("a0")
    tenants.put("a", "a0")
    assert request(where) == "a0"
    pool = database().pool

    def interrupt(raw):
        monkeypatch.undo()
        raise Interrupted

    def interrupted_within():
        connection.ensure_connection()
        if where_it_hits == "rollback":
            connection.connection.execute("BEGIN")
            monkeypatch.setattr("psycopg.Connection.rollback", interrupt)

    if where_it_hits == "_check":
        monkeypatch.setattr(pool, "_check", interrupt)
    with pytest.raises(Interrupted):
        request(interrupted_within)
    assert request(where) == "a0"
    eventually(lambda: tenants.sessions() == pool.size == 1)
