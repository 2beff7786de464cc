"""A tenant's record changes while it is used: running units end where they began, new ones begin on the new."""

import sqlite3
import threading
import time
from contextlib import closing

import pytest
from django.core.signals import request_finished, request_started
from django.db import connection, connections, transaction
from django.db.utils import ConnectionDoesNotExist

from tenant_router import context
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantContextMissing, TenantDeleted
from tenant_router.managers import tenant_context_manager
from tests.app.models import Note
from tests.fixtures_orm import create_tables, database_of
from tests.tenants import eventually


def move(tenants, tenant_id, name):
    """Point a tenant at another database, with tables, and wait until this process has it."""
    revision = tenants.put(tenant_id, tenants.record(name))
    tenants.arrived(tenant_id, revision)
    return revision


def rows(path):
    with closing(sqlite3.connect(path)) as plain:
        return [text for (text,) in plain.execute("SELECT text FROM app_note ORDER BY id")]


class Worker:
    """A thread that runs the functions it is given, one at a time."""

    def __init__(self):
        self._todo, self._done, self._result = threading.Event(), threading.Event(), None
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def __call__(self, function):
        self._function = function
        self._done.clear()
        self._todo.set()
        assert self._done.wait(60)
        if isinstance(self._result, BaseException):
            raise self._result
        return self._result

    def end(self):
        self(connections.close_all)
        self._function = None
        self._todo.set()
        self._thread.join()

    def _loop(self):
        while True:
            self._todo.wait()
            self._todo.clear()
            if self._function is None:
                return
            try:
                self._result = self._function()
            except BaseException as error:
                self._result = error
            self._done.set()


@pytest.fixture
def worker():
    made = Worker()
    yield made
    made.end()


def test_new_units_begin_on_the_new_database(three):
    move(three, "t1", "moved")
    create_tables("t1")
    with tenant_context_bind("t1"):
        Note.objects.create(text="new")
    assert rows(three.directory / "moved.db") == ["new"]
    assert rows(three.directory / "t1.db") == []


def test_a_running_unit_ends_on_the_old_database(three):
    with tenant_context_bind("t1"):
        before = connection.settings_dict["NAME"]
        Note.objects.create(text="before")
        move(three, "t1", "moved")
        Note.objects.create(text="after")
        assert connection.settings_dict["NAME"] == before
        assert connections["t1_default"] is connections["default"]
        with connections["t1_default"].cursor() as cursor:
            cursor.execute("SELECT count(*) FROM app_note")
            assert cursor.fetchone() == (2,)
    assert rows(three.directory / "t1.db") == ["before", "after"]
    assert database_of("t1").endswith("moved.db")


def test_a_running_unit_that_had_not_connected_ends_on_the_old_database(three):
    with tenant_context_bind("t1"):
        move(three, "t1", "moved")
        Note.objects.create(text="first query after the change")
    assert rows(three.directory / "t1.db") == ["first query after the change"]


def test_a_running_transaction_ends_on_the_old_database(three, worker):
    inside, changed = threading.Event(), threading.Event()

    def unit():
        with tenant_context_bind("t1"), transaction.atomic():
            Note.objects.create(text="before")
            inside.set()
            assert changed.wait(60)
            Note.objects.create(text="after")

    thread = threading.Thread(target=lambda: (unit(), connections.close_all()))
    thread.start()
    assert inside.wait(60)
    move(three, "t1", "moved")
    create_tables("t1")
    with tenant_context_bind("t1"):
        Note.objects.create(text="elsewhere")
    changed.set()
    thread.join()
    assert rows(three.directory / "t1.db") == ["before", "after"]
    assert rows(three.directory / "moved.db") == ["elsewhere"]


def test_only_the_changed_database_of_a_tenant_is_replaced(three):
    with tenant_context_bind("t1") as before:
        wrapper = connection.connection
    record = {**three.record("t1"), "cache_config": {"default": {"TIMEOUT": 5}}}
    three.arrived("t1", three.put("t1", record))
    with tenant_context_bind("t1") as after:
        assert after.revision > before.revision
        assert connection.connection is wrapper


def opened(tenant_id="t1"):
    with tenant_context_bind(tenant_id):
        connection.ensure_connection()
        return connections["default"]


def test_the_connection_of_an_idle_thread_is_closed_when_its_record_changes(three, worker):
    wrapper = worker(opened)
    assert wrapper.connection is not None
    move(three, "t1", "moved")
    assert wrapper.connection is None
    fresh = worker(opened)
    assert fresh is not wrapper
    assert fresh.settings_dict["NAME"].endswith("moved.db")


def test_the_connection_of_a_busy_thread_is_closed_when_its_unit_ends(three):
    inside, changed, wrappers = threading.Event(), threading.Event(), []

    def unit():
        with tenant_context_bind("t1"):
            connection.ensure_connection()
            wrappers.append(connections["default"])
            inside.set()
            assert changed.wait(60)
            wrappers.append(wrappers[0].connection)
        wrappers.append(wrappers[0].connection)

    thread = threading.Thread(target=unit)
    thread.start()
    assert inside.wait(60)
    move(three, "t1", "moved")
    changed.set()
    thread.join()
    assert wrappers[1] is not None
    assert wrappers[2] is None


def open_databases():
    """The files to which this thread has connections."""
    return {made.settings_dict["NAME"] for made in connections._open.mine().wrappers.values() if made.connection}


def test_what_rests_is_closed_when_it_was_replaced_whatever_its_thread_does(three, worker):
    for tenant_id in ("t1", "t10"):
        move(three, tenant_id, f"kept-{tenant_id}")
        worker(lambda tenant_id=tenant_id: query(tenant_id))
    replaced = database_of("t1")
    assert replaced in worker(open_databases)
    inside, changed = threading.Event(), threading.Event()

    def unit():
        with tenant_context_bind("t10"):
            connection.ensure_connection()  # it is open already
            inside.set()
            assert changed.wait(60)

    runner = threading.Thread(target=worker, args=[unit])
    runner.start()
    assert inside.wait(60)
    move(three, "t1", "moved")
    changed.set()
    runner.join()
    assert replaced not in worker(open_databases)


def test_who_keeps_an_old_context_leaves_no_connection_open(three):
    old = tenant_context_manager.get_by_id("t1")
    move(three, "t1", "moved")
    query("t10")
    query("t10")  # all that was replaced has been looked at
    query(old)
    assert old.parts["django_orm"]["default"].settings["NAME"] not in open_databases()


def query(tenant):
    with tenant_context_bind(tenant), connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def test_within_a_request_the_connection_lives_until_the_request_ends(three, worker):
    stacks = []

    def begin():
        stacks.append(context.begin(tenant_context_manager.get_by_id("t1")))
        connection.ensure_connection()
        return connections["default"]

    wrapper = worker(begin)
    move(three, "t1", "moved")
    assert wrapper.connection is not None
    worker(lambda: context.leave(stacks.pop()))
    assert wrapper.connection is None


def test_the_record_of_another_tenant_changes_nothing_here(three, worker):
    wrapper = worker(opened)
    move(three, "t10", "moved")
    assert wrapper.connection is not None
    assert worker(opened) is wrapper


def test_a_thread_that_knows_tenants_by_aliases_alone_leaks_no_connection(three):
    wrappers = []
    for number in range(5):
        wrapper = connections["t1_default"]
        wrapper.ensure_connection()
        wrappers.append(wrapper)
        move(three, "t1", f"moved{number}")
    connections["t1_default"].ensure_connection()
    assert [wrapper.connection for wrapper in wrappers] == [None] * 5


def test_a_deleted_tenant(three, worker):
    wrapper = worker(opened)
    three.arrived("t1", three.delete("t1"))
    assert wrapper.connection is None
    with pytest.raises(TenantDeleted):
        worker(opened)
    with pytest.raises(ConnectionDoesNotExist):
        connections["t1_default"]
    assert "t1_default" not in connections.settings
    with pytest.raises(TenantContextMissing):
        connections["default"].ensure_connection()


def test_a_unit_of_a_deleted_tenant_runs_to_its_end(three):
    with tenant_context_bind("t1"):
        Note.objects.create(text="before")
        three.arrived("t1", three.delete("t1"))
        Note.objects.create(text="after")
        with transaction.atomic():
            assert Note.objects.using("t1_default").count() == 2
    assert rows(three.directory / "t1.db") == ["before", "after"]


def test_a_tenant_that_comes_back_is_served_again(three):
    three.arrived("t1", three.delete("t1"))
    three.arrived("t1", three.put("t1"))
    with tenant_context_bind("t1"):
        assert Note.objects.count() == 0


@pytest.mark.parametrize(
    "bad",
    [
        {"orm_config": {"django_orm": {"default": {"NAME": 5}}}},
        {"orm_config": {"django_orm": {}}},
        {"orm_config": {}},
        {"orm_config": {"django_orm": {"default": {"NAME": "x"}, "other": {"NAME": "y"}}}},
        {"orm_config": {"django_orm": {"default": {"NAME": "x"}, "central": {"NAME": "y"}}}},
        {"orm_config": {"django_orm": {"default": {"NAME": "x", "ENGINE": "django.db.backends.oracle"}}}},
        {"orm_config": {"django_orm": {"default": {"NAME": "x"}}}, "cache_config": {"nobody": {}}},
        {},
    ],
)
def test_a_bad_record_keeps_the_last_good_one(three, bad):
    with tenant_context_bind("t1"):
        Note.objects.create(text="good")
        wrapper = connections["default"]
    three.arrived("t1", three.put("t1", bad))
    with tenant_context_bind("t1"):
        assert connections["default"] is wrapper
        assert Note.objects.get().text == "good"
    assert tenant_context_manager.refusals["t1"].reason
    assert database_of("t10").endswith("t10.db")


def test_databases_and_caches_of_a_bad_record_stay_together(three):
    from django.core.cache import cache

    with tenant_context_bind("t1") as before:
        cache.set("x", 1)
    bad = {**three.record("moved"), "cache_config": {"default": {"KEY_FUNCTION": "no.such"}}}
    three.arrived("t1", three.put("t1", bad))
    with tenant_context_bind("t1") as after:
        assert after is before
        assert cache.get("x") == 1
        assert not connection.settings_dict["NAME"].endswith("moved.db")


# --- PostgreSQL, persistent connections, many threads ---


@pytest.fixture
def flipping(on_postgres):
    """Two tenants, each of which has two databases to move between."""
    tenants = on_postgres(CONN_MAX_AGE=None)
    tenants.create("a0", "a1", "b0", "b1")
    tenants.put("a", "a0")
    tenants.put("b", "b0")
    return tenants


def says_where():
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_database()")
        return cursor.fetchone()[0]


def read(tenants, tenant_id, number):
    """One unit: what it reads must all come from one database, the tenant's."""
    as_request = number % 2
    if as_request:
        request_started.send(sender=None)
    try:
        with tenant_context_bind(tenant_id) as context:
            promised = context.parts["django_orm"]["default"].settings["NAME"]
            seen = {tenants.name(Note.objects.get(id=1).text), says_where()}
            if number % 3 == 0:
                with transaction.atomic():
                    seen.add(says_where())
                    seen.add(tenants.name(Note.objects.select_for_update().get(id=1).text))
            return seen == {promised} and promised.startswith(tenants.name(tenant_id))
    finally:
        if as_request:
            request_finished.send(sender=None)


def test_sixteen_threads_while_the_records_flip_every_20_ms(flipping):
    stop, wrong, errors, units, ended = threading.Event(), [], [], [0] * 16, []

    def work(number):
        try:
            while not stop.is_set():
                if not read(flipping, "ab"[number % 2], units[number]):
                    wrong.append(number)
                units[number] += 1
        except Exception as error:
            errors.append(error)

    def run(number):
        work(number)
        ended.append(number)
        idle.wait(120)
        connections.close_all()

    def flip_all():
        """150 times; oftener where the threads come to nothing."""
        flips = 0
        while flips < 150 or (min(units) <= 5 and flips < 3000 and not errors):
            flipping.tenants.put("a", flipping.record(f"a{flips % 2}"))
            flipping.tenants.put("b", flipping.record(f"b{flips % 2}"))
            time.sleep(0.02)
            if flips % 10 == 0:  # the server notices a little later that a session was ended
                eventually(lambda: flipping.sessions() <= 2 * 16 + 2)
            flips += 1

    # given 16 threads with connections that live for ever
    idle = threading.Event()
    threads = [threading.Thread(target=run, args=[number]) for number in range(16)]
    for thread in threads:
        thread.start()
    try:
        # when both tenants move to another database every 20 ms
        flip_all()
        stop.set()
        eventually(lambda: len(ended) == 16)
        # then nobody read a wrong database, nobody failed, and no session is left behind
        assert errors == []
        assert wrong == []
        assert min(units) > 5
        flipping.put("a", "a0")
        flipping.put("b", "b0")
        flipping.put("a", "a1")
        flipping.put("b", "b1")
        eventually(lambda: flipping.sessions("a0", "b0") == 0 and flipping.sessions() <= 16)
    finally:
        stop.set()
        idle.set()
        for thread in threads:
            thread.join()


def test_idle_threads_let_go_of_their_sessions(flipping):
    workers = [Worker() for _ in range(4)]
    for worker in workers:
        worker(lambda: opened("a"))
    eventually(lambda: flipping.sessions("a0") == 4)  # who made the databases may not have left them yet
    flipping.put("a", "a1")
    eventually(lambda: flipping.sessions("a0") == 0)
    for worker in workers:
        worker(lambda: opened("a"))
    eventually(lambda: flipping.sessions("a1") == 4)
    flipping.tenants.arrived("a", flipping.tenants.delete("a"))
    eventually(lambda: flipping.sessions("a0", "a1") == 0)
    for worker in workers:
        worker.end()


def test_a_request_may_start_while_its_stale_connections_are_swept(flipping):
    # given a thread whose requests come as fast as the changes
    stop, errors = threading.Event(), []

    def requests():
        try:
            while not stop.is_set():
                request_started.send(sender=None)
                with tenant_context_bind("a"):
                    connection.ensure_connection()
                request_finished.send(sender=None)
        except Exception as error:
            errors.append(error)
        connections.close_all()

    threads = [threading.Thread(target=requests) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for flip in range(60):
            previous = tenant_context_manager.get_by_id("a").parts["django_orm"]
            flipping.put("a", f"a{(flip + 1) % 2}")
            assert previous["default"].retired
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
