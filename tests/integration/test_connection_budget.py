"""``MAX_OPEN_CONNECTIONS``: how many tenant connections one process may have open."""

import contextvars
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.test import Client

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TooManyConnections
from tenant_router.orm_backends import budget as budget_module
from tests.app.models import Note
from tests.fixtures_orm import SQLITE, create_tables
from tests.tenants import collect_garbage, eventually


@pytest.fixture
def budget(project):
    """A function that makes tenants t0, t1 ... of a project with a cap on its connections."""

    def make(cap, count):
        central = {**SQLITE, "NAME": ":memory:"}
        tenants = project({"default": SQLITE, "central": central}, {"central"}, MAX_OPEN_CONNECTIONS=cap)
        for number in range(count):
            tenants.put(f"t{number}")
        tenants.arrived(f"t{count - 1}")
        tenants.connections = tenants.runtime.orms["django_orm"].connections
        return tenants

    return make


def use(tenant_id):
    with tenant_context_bind(tenant_id):
        connection.ensure_connection()
        return connections["default"]


def test_the_least_recently_used_connection_makes_room(budget):
    tenants = budget(3, 4)
    wrappers = [use(f"t{number}") for number in range(3)]
    use("t0")
    use("t3")
    assert [wrapper.connection is not None for wrapper in wrappers] == [True, False, True]
    assert tenants.connections.budget.open_count() == 3


def test_an_idle_thread_gives_up_its_connection(budget):
    tenants = budget(1, 2)
    with ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(use, "t0").result()
        assert theirs.connection is not None
        mine = use("t1")
        assert theirs.connection is None
        assert pool.submit(use, "t0").result().connection is not None
        assert mine.connection is None
        assert tenants.connections.budget.open_count() == 1


def busy(tenant_id, inside, done, atomic=False):
    with tenant_context_bind(tenant_id):
        if atomic:
            with transaction.atomic():
                inside.set()
                done.wait(20)
        else:
            connection.ensure_connection()
            inside.set()
            done.wait(20)
    connections.close_all()


@pytest.mark.parametrize("atomic", [False, True])
def test_a_connection_in_use_is_never_taken_and_waiting_ends_after_two_seconds(budget, atomic):
    budget(1, 2)
    inside, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=busy, args=["t0", inside, done, atomic])
    thread.start()
    assert inside.wait(10)
    began = time.monotonic()
    with tenant_context_bind("t1"), pytest.raises(TooManyConnections, match="MAX_OPEN_CONNECTIONS"):
        connection.ensure_connection()
    assert 1.9 < time.monotonic() - began < 20
    done.set()
    thread.join()
    assert use("t1").connection is not None


def test_waiting_ends_when_a_connection_is_given_back(budget, monkeypatch):
    monkeypatch.setattr(budget_module, "WAIT_FOR_CONNECTION", 60)
    tenants = budget(1, 2)
    inside, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=busy, args=["t0", inside, done])
    thread.start()
    assert inside.wait(10)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(use, "t1")
        eventually(lambda: tenants.connections.budget.waiting_count() == 1)
        assert not waiting.done()
        done.set()
        assert waiting.result(30).connection is not None
    thread.join()


def test_an_outer_tenants_connection_is_not_taken_by_an_inner_one(budget, monkeypatch):
    monkeypatch.setattr(budget_module, "WAIT_FOR_CONNECTION", 0.1)
    budget(1, 2)
    with tenant_context_bind("t0"):
        outer = connections["default"]
        outer.ensure_connection()
        with tenant_context_bind("t1"), pytest.raises(TooManyConnections):
            connection.ensure_connection()
        assert outer.connection is not None


def test_a_refused_request_is_503(budget, monkeypatch):
    monkeypatch.setattr(budget_module, "WAIT_FOR_CONNECTION", 0.1)
    budget(1, 2)
    create_tables("t1")
    inside, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=busy, args=["t0", inside, done])
    use("t1")
    thread.start()
    assert inside.wait(10)
    answer = Client(headers={"host": "t1"}, raise_request_exception=False).get("/notes/")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    done.set()
    thread.join()
    assert Client(headers={"host": "t1"}).get("/notes/").status_code == 200


def test_a_script_over_three_hundred_tenants_stays_within_the_cap(budget):
    tenants = budget(5, 300)
    most = 0
    for number in range(300):
        use(f"t{number}")
        most = max(most, tenants.connections.budget.open_count())
    assert most == 5
    assert len([w for w in connections.all(initialized_only=True) if w.connection is not None]) <= 5 + 1


def test_a_script_that_names_aliases_alone_stays_within_the_cap(budget):
    tenants = budget(5, 60)
    for number in range(60):
        connections[f"t{number}_default"].ensure_connection()
        assert tenants.connections.budget.open_count() <= 5
    assert len(connections.all(initialized_only=True)) <= 5 + 1


def test_a_transaction_in_the_same_thread_is_never_taken(budget, monkeypatch):
    monkeypatch.setattr(budget_module, "WAIT_FOR_CONNECTION", 0.1)
    budget(1, 2)
    create_tables("t0")
    with transaction.atomic(using="t0_default"):
        Note.objects.using("t0_default").create(text="x")
        with pytest.raises(TooManyConnections):
            connections["t1_default"].ensure_connection()
    assert Note.objects.using("t0_default").count() == 1


def begin(tenant_id):
    with tenant_context_bind(tenant_id):
        connections["default"].ensure_connection()
    transaction.atomic(using=f"{tenant_id}_default").__enter__()


@pytest.mark.parametrize("work", [use, begin])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_thread_that_ended_gives_its_connections_back(budget, work, monkeypatch):
    # given threads that ended without closing, and a process whose garbage was not collected
    import gc

    monkeypatch.setattr(budget_module, "WAIT_FOR_CONNECTION", 60)
    tenants = budget(2, 3)
    collect_garbage()
    gc.disable()
    try:
        for tenant_id in ("t0", "t1"):
            thread = threading.Thread(target=work, args=[tenant_id])
            thread.start()
            thread.join()
        # when another connection is wanted, then it is to be had at once
        began = time.monotonic()
        assert use("t2").connection is not None
        assert time.monotonic() - began < 30
        assert tenants.connections.budget.open_count() <= 2
    finally:
        gc.enable()


def test_a_failed_connection_takes_no_place(budget):
    tenants = budget(2, 1)
    tenants.put("lost", tenants.record("no/such/folder/x"))
    tenants.arrived("lost")
    for _ in range(5):
        with tenant_context_bind("lost"), pytest.raises(OperationalError):
            connection.ensure_connection()
    assert tenants.connections.budget.open_count() == 0
    assert use("t0").connection is not None


def test_one_who_is_interrupted_when_a_place_is_granted_closes_what_made_room(budget, monkeypatch):
    places = budget(1, 3).connections.budget
    holder, block, wait = contextvars.Context(), tenant_context_bind("t0"), threading.Condition.wait

    def hold():
        block.__enter__()
        connection.ensure_connection()
        return connections["default"].physical

    me = threading.get_ident()

    def interrupted(condition, timeout=None):
        if threading.get_ident() != me:  # what follows the store waits, too
            return wait(condition, timeout)
        holder.run(block.__exit__, None, None, None)  # another unit ends
        wait(condition, timeout)
        raise KeyboardInterrupt

    made_room = holder.run(hold)
    monkeypatch.setattr(threading.Condition, "wait", interrupted)
    with tenant_context_bind("t1"), pytest.raises(KeyboardInterrupt):
        connection.ensure_connection()
    monkeypatch.undo()
    assert made_room.borrower.connection is None
    assert places.open_count() == 0
    assert use("t2").connection is not None


def test_a_closed_connection_takes_no_place(budget):
    tenants = budget(2, 2)
    wrapper = use("t0")
    assert tenants.connections.budget.open_count() == 1
    wrapper.close()
    assert tenants.connections.budget.open_count() == 0
    with tenant_context_bind("t0"), transaction.atomic():
        connections["default"].close()  # within a transaction Django closes it at its end
    assert tenants.connections.budget.open_count() == 0


def test_reserved_aliases_do_not_count(budget):
    tenants = budget(1, 1)
    connections["central"].ensure_connection()
    assert use("t0").connection is not None
    assert tenants.connections.budget.open_count() == 1


def test_many_threads_and_few_connections(budget, monkeypatch):
    monkeypatch.setattr(budget_module, "WAIT_FOR_CONNECTION", 60)  # those who are waited for may stand still
    tenants = budget(4, 8)
    for number in range(8):
        create_tables(f"t{number}")
    connections.close_all()
    most, stop, everybody = [0], threading.Event(), threading.Barrier(8, timeout=60)

    def watch():
        while not stop.is_set():
            most[0] = max(most[0], tenants.connections.budget.open_count())
            time.sleep(0.001)

    def work(number):
        tenant_id = f"t{number % 8}"
        with tenant_context_bind(tenant_id):
            Note.objects.create(text=f"{tenant_id} {number}")
            return all(text.startswith(f"{tenant_id} ") for text in Note.objects.values_list("text", flat=True))

    def close(_):
        everybody.wait()  # so that each thread does it once
        connections.close_all()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work, range(200)))
            list(pool.map(close, range(8)))
    finally:
        stop.set()
        watcher.join()
    assert most[0] <= 4


@pytest.mark.parametrize("cap", [2, 5])
def test_postgres_sees_no_more_sessions_than_the_cap(on_postgres, cap):
    tenants = on_postgres(max_open=cap, CONN_MAX_AGE=None)
    names = [f"d{number}" for number in range(8)]
    tenants.create(*names)
    for name in names:
        tenants.put(name, name)
    for _ in range(2):
        for name in names:
            with tenant_context_bind(name):
                assert Note.objects.get().text == name
    eventually(lambda: tenants.sessions() <= cap)
