"""A unit of work owns what it uses, whichever threads it touches, and nobody else does."""

import asyncio
import contextvars
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connection, connections, transaction

from tenant_router import context
from tenant_router.context_decorators import carry_tenant, tenant_context_bind
from tenant_router.exceptions import TenantContextMissing, TenantDeleted, TooManyConnections, TransactionOpen
from tenant_router.managers import tenant_context_manager
from tenant_router.managers.task_local import tls_tenant_manager
from tenant_router.orm_backends import budget as budget_module
from tests import asgi_client
from tests.app.models import Note
from tests.fixtures_orm import SQLITE, create_tables, database_of
from tests.tenants import eventually


@pytest.fixture
def limited(project, monkeypatch):
    """A function that makes tenants t0, t1 ... of a process with at most ``limit`` connections; waiting is an error."""
    monkeypatch.setattr(budget_module, "WAIT_FOR_CONNECTION", 20)

    def make(limit, count, **template):
        tenants = project({"default": {**SQLITE, **template}}, MAX_OPEN_CONNECTIONS=limit)
        for number in range(count):
            tenants.put(f"t{number}")
        tenants.arrived(f"t{count - 1}")
        for number in range(count):
            create_tables(f"t{number}")
        connections.close_all()
        tenants.budget = tenants.runtime.orms["django_orm"].connections.budget
        return tenants

    return make


def count_notes(tenant_id):
    with tenant_context_bind(tenant_id):
        return Note.objects.count()


def at_once(work, *arguments):
    """What ``work`` returns in a thread of its own, which must not wait for a connection."""
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(work, *arguments).result()
    assert time.monotonic() - began < 10
    return found


def wrappers_of(tenants, tenant_id):
    return [physical.borrower for physical in tenants.budget.idle if physical.database.tenant_id == tenant_id]


# --- who may close what ---


async def test_what_an_async_unit_has_used_makes_room_when_it_has_ended(limited):
    await sync_to_async(limited)(4, 6)

    async def unit(tenant_id):
        async with tenant_context_bind(tenant_id):
            return await Note.objects.acount()

    for number in range(4):
        assert await unit(f"t{number}") == 0
    assert await asyncio.to_thread(at_once, count_notes, "t4") == 0


async def test_what_a_view_has_used_in_threads_of_an_executor_makes_room(limited):
    tenants = await sync_to_async(limited)(4, 6)

    async def unit(tenant_id):
        async with tenant_context_bind(tenant_id):
            return await asyncio.to_thread(Note.objects.count)

    for number in range(4):
        assert await unit(f"t{number}") == 0
    assert tenants.budget.open_count() == 4
    assert await asyncio.to_thread(at_once, count_notes, "t5") == 0


def test_what_a_generator_in_a_pools_thread_has_used_makes_room(limited):
    limited(2, 4)

    def rows(tenant_id):
        @tenant_context_bind(tenant_id)
        def notes():
            yield Note.objects.count()
            yield Note.objects.count()

        return list(notes())

    with ThreadPoolExecutor(1) as pool:
        for number in range(3):
            assert pool.submit(rows, f"t{number}").result() == [0, 0]
        assert at_once(count_notes, "t3") == 0


def test_what_a_thread_does_not_use_now_makes_room(limited):
    tenants = limited(4, 8)
    inside, done = threading.Event(), threading.Event()

    def work():
        for number in range(4):
            count_notes(f"t{number}")
        with tenant_context_bind("t0"):
            Note.objects.count()
            inside.set()
            assert done.wait(60)
            return Note.objects.count()

    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(work)
        assert inside.wait(60)
        for number in range(4, 8):
            assert at_once(count_notes, f"t{number}") == 0
        assert tenants.budget.open_count() <= 4
        done.set()
        assert busy.result() == 0


def test_a_loop_over_tenants_inside_a_bound_block_works_at_any_limit(limited):
    tenants = limited(2, 9)
    with tenant_context_bind("t0"):
        outer = connections["default"]
        assert Note.objects.count() == 0
        for number in range(1, 9):
            assert count_notes(f"t{number}") == 0
            assert tenants.budget.open_count() <= 2
        assert connections["default"] is outer
        assert outer.connection is not None


def test_a_block_that_goes_on_in_another_thread_of_the_unit_keeps_its_connection(limited, monkeypatch):
    limited(2, 3)
    monkeypatch.setattr(budget_module, "WAIT_FOR_CONNECTION", 0.1)
    inside, done = threading.Event(), threading.Event()

    def work():
        with tenant_context_bind("t1"), connection.cursor() as cursor:
            inside.set()
            assert done.wait(60)
            return cursor.execute("SELECT 1").fetchone()

    with ThreadPoolExecutor(1) as pool, tenant_context_bind("t0"):
        working = pool.submit(contextvars.copy_context().run, work)
        assert inside.wait(60)
        assert Note.objects.count() == 0
        with tenant_context_bind("t1"):
            pass
        with pytest.raises(TooManyConnections):
            count_notes("t2")
        done.set()
        assert working.result() == (1,)


async def test_one_unit_never_closes_what_another_uses_in_the_same_thread(limited):
    """Both run in the one thread in which asgiref runs what is synchronous."""
    tenants = await sync_to_async(limited)(2, 4)
    await sync_to_async(fill)("t0", 250)
    read = []

    async def reading():
        async with tenant_context_bind("t0"):
            async for note in Note.objects.order_by("pk").aiterator(chunk_size=10):
                read.append(note.text)
                await others()

    async def others():
        if len(read) % 50 == 1:
            for number in (1, 2, 3):
                async with tenant_context_bind(f"t{number}"):
                    await Note.objects.acount()

    await reading()
    assert read == [str(number) for number in range(250)]
    assert tenants.budget.open_count() <= 2


def fill(tenant_id, count):
    with tenant_context_bind(tenant_id):
        Note.objects.bulk_create(Note(text=str(number)) for number in range(count))


def test_an_open_iteration_keeps_its_connection_between_two_blocks(limited):
    tenants = limited(2, 4)
    fill("t0", 500)
    with tenant_context_bind("t3"):
        with tenant_context_bind("t0"):
            rows = Note.objects.order_by("pk").iterator(chunk_size=10)
            read = [next(rows).text]
        assert count_notes("t1") == 0  # the one place that is left
        with tenant_context_bind("t0"):
            read += [row.text for row in rows]
    assert read == [str(number) for number in range(500)]
    assert tenants.budget.open_count() <= 2


def test_a_unit_whose_context_is_garbage_is_over(limited):
    limited(1, 2)

    def kept():
        with_t0 = contextvars.copy_context()
        with_t0.run(tls_tenant_manager.push_tenant_context, tenant_context_manager.get_by_id("t0"))
        assert with_t0.run(Note.objects.count) == 0

    kept()
    assert at_once(count_notes, "t1") == 0


# --- live changes ---


def test_the_sessions_of_a_replaced_database_are_closed_with_the_request(on_postgres):
    tenants = on_postgres(CONN_MAX_AGE=600)
    tenants.create("old", "new")
    tenants.put("a", "old")

    def unit():
        before = context.begin(tenant_context_manager.get_by_id("a"))
        assert Note.objects.get().text == "old"
        tenants.put("a", "new")
        assert Note.objects.get().text == "old"
        context.leave(before)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(unit).result()
        with tenants.server.connect("postgres") as plain:
            eventually(lambda: tenants.sessions("old") == 0, 10)  # the server needs a moment to see the end of one
            plain.execute(f'DROP DATABASE "{tenants.name("old")}"')
        with tenant_context_bind("a"):
            assert Note.objects.get().text == "new"


def test_what_rests_in_other_threads_is_closed_with_the_deletion(limited):
    tenants = limited(10, 2)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count_notes, ["t0"] * 40))
        opened = wrappers_of(tenants, "t0")
        assert opened
        tenants.arrived("t0", tenants.delete("t0"))
        eventually(lambda: all(wrapper.connection is None for wrapper in opened))


async def test_a_task_that_outlives_its_unit_goes_on_with_the_current_revision(limited):
    tenants = await sync_to_async(limited)(4, 2)
    await sync_to_async(tenants.put)("other")
    await sync_to_async(tenants.arrived)("other")
    await sync_to_async(create_tables)("other")
    go_on = asyncio.Event()

    async def outlives():
        await go_on.wait()
        await Note.objects.acreate(text="late")
        return connections["default"].settings_dict["NAME"]

    async with tenant_context_bind("t0"):
        await Note.objects.acount()
        task = asyncio.create_task(outlives())
    revision = await sync_to_async(tenants.put)("t0", tenants.record("moved"))
    await sync_to_async(tenants.arrived)("t0", revision)
    await sync_to_async(create_tables)("t0")
    go_on.set()
    assert (await task).endswith("moved.db")
    assert await sync_to_async(count_notes)("t0") == 1


async def test_a_task_that_outlives_its_unit_gets_tenant_deleted(limited):
    tenants = await sync_to_async(limited)(4, 2)
    go_on = asyncio.Event()

    async def outlives():
        await go_on.wait()
        await Note.objects.acreate(text="late")

    async with tenant_context_bind("t0"):
        task = asyncio.create_task(outlives())
    revision = await sync_to_async(tenants.delete)("t0")
    await sync_to_async(tenants.arrived)("t0", revision)
    go_on.set()
    with pytest.raises(TenantDeleted):
        await task


def test_refresh_goes_on_with_the_current_revision(limited):
    tenants = limited(4, 2)
    with tenant_context_bind("t0"):
        assert Note.objects.count() == 0
        tenants.arrived("t0", tenants.put("t0", tenants.record("moved")))
        assert connection.settings_dict["NAME"].endswith("t0.db")
        tls_tenant_manager.refresh()
        assert connection.settings_dict["NAME"].endswith("moved.db")
    assert database_of("t0").endswith("moved.db")


def test_refresh_is_refused_in_a_transaction(limited):
    tenants = limited(4, 2)
    with tenant_context_bind("t0"), transaction.atomic():
        tenants.arrived("t0", tenants.put("t0", tenants.record("moved")))
        with pytest.raises(TransactionOpen):
            tls_tenant_manager.refresh()
        assert connection.settings_dict["NAME"].endswith("t0.db")
        assert Note.objects.count() == 0


# --- the door ---


def test_what_a_predecessor_has_left_bound_binds_nobody(limited):
    limited(4, 2)

    def push():
        tls_tenant_manager.push_tenant_context(tenant_context_manager.get_by_id("t1"))

    def door():
        before = context.begin(None)
        try:
            Note.objects.create(text="x")
        finally:
            context.stack.set(before)

    with ThreadPoolExecutor(1) as pool:
        before = context.begin(None)
        pool.submit(push).result()
        with pytest.raises(TenantContextMissing):
            pool.submit(door).result()
        context.stack.set(before)
    assert count_notes("t1") == 0


async def test_a_request_shares_its_unit_with_its_threads(limited, settings_of_views):
    await sync_to_async(limited)(3, 5)
    for number in range(5):
        answer = await asgi_client.exchange("/threads/", {"host": f"t{number}"})
        assert (answer.status_code, answer.content) == (200, b"0")


@pytest.fixture
def settings_of_views():
    from django.test import override_settings

    with override_settings(ROOT_URLCONF=__name__):
        yield


async def in_threads(request):
    from django.http import HttpResponse

    first, second = await asyncio.gather(*(asyncio.to_thread(Note.objects.count) for _ in range(2)))
    return HttpResponse(str(first + second))


def _urlpatterns():
    from django.urls import path

    return [path("threads/", in_threads)]


urlpatterns = _urlpatterns()


# --- the budget ---


def test_waiting_is_in_the_order_of_coming(limited):
    tenants = limited(1, 6)
    inside, done, order = threading.Event(), threading.Event(), []

    def hold():
        with tenant_context_bind("t0"):
            Note.objects.count()
            inside.set()
            assert done.wait(60)

    def wait(number):
        count_notes(f"t{number}")
        order.append(number)

    with ThreadPoolExecutor(6) as pool:
        pool.submit(hold)
        assert inside.wait(60)
        waiting = []
        for number in range(1, 6):
            waiting.append(pool.submit(wait, number))
            eventually(lambda number=number: tenants.budget.waiting_count() == number)
        done.set()
        for each in waiting:
            each.result()
    assert order == [1, 2, 3, 4, 5]


def test_those_who_wait_use_no_processor(limited, monkeypatch):
    monkeypatch.setattr(budget_module, "WAIT_FOR_CONNECTION", 3)
    tenants = limited(1, 51)
    errors = []

    def wait(number):
        try:
            count_notes(f"t{number}")
        except Exception as error:
            errors.append(error)

    with tenant_context_bind("t0"), ThreadPoolExecutor(50) as pool:
        Note.objects.count()
        list(pool.map(lambda number: pool.submit(wait, number), range(1, 51)))
        eventually(lambda: tenants.budget.waiting_count() == 50)
        before = time.process_time()
        time.sleep(1)
        assert time.process_time() - before < 0.3
    assert len(errors) == 50


def test_tenants_that_cannot_be_reached_keep_nobody_waiting(on_postgres, monkeypatch):
    tenants = on_postgres(max_open=6, OPTIONS={"pool": {"max_size": 2}})
    tenants.create("good")
    tenants.put("good", "good")
    with socket.create_server(("127.0.0.1", 0), backlog=50) as hole:  # it takes connections and says nothing
        port = hole.getsockname()[1]
        for number in range(3):
            tenants.put(f"hole{number}", "good", HOST="127.0.0.1", PORT=port)
        lost = []

        def reach(tenant_id):
            try:
                count_notes(tenant_id)
            except OperationalError as error:
                lost.append(error)

        threads = [threading.Thread(target=reach, args=[f"hole{number % 3}"]) for number in range(12)]
        for thread in threads:
            thread.start()
        budget = tenants.tenants.runtime.orms["django_orm"].connections.budget
        eventually(lambda: len(budget._attempts) >= 5 or budget.waiting_count())
        assert at_once(count_notes, "good") == 1
        assert not lost, "it has waited for them"
        for thread in threads:
            thread.join()
    assert len(lost) == 12


def test_deleting_tenants_whose_hosts_are_dead_delays_nobodys_change(on_postgres):
    tenants = on_postgres(max_open=20)
    tenants.create("good")
    with socket.create_server(("127.0.0.1", 0), backlog=50) as hole:
        port = hole.getsockname()[1]
        for number in range(4):
            tenants.put(f"hole{number}", "good", HOST="127.0.0.1", PORT=port)
        threads = [threading.Thread(target=_fails, args=[f"hole{number}"]) for number in range(4)]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        for number in range(4):
            tenants.tenants.delete(f"hole{number}")
        tenants.put("late", "good")
        assert count_notes("late") == 1
        assert time.monotonic() - began < 4
        for thread in threads:
            thread.join()


def _fails(tenant_id):
    with pytest.raises(OperationalError):
        count_notes(tenant_id)


def test_connecting_has_a_time_limit_where_the_settings_have_none(on_postgres):
    tenants = on_postgres()
    tenants.create("good")
    tenants.put("a", "good")
    tenants.put("slow", "good", OPTIONS={"connect_timeout": 7})
    for tenant_id, seconds in (("a", 5), ("slow", 7)):
        with tenant_context_bind(tenant_id):
            assert connections["default"].get_connection_params()["connect_timeout"] == seconds


# --- transactions that an alias alone has begun ---


def test_a_transaction_by_alias_is_gone_on_with_by_its_tenant_after_a_change(limited):
    tenants = limited(4, 2)
    ran = []
    with transaction.atomic(using="t0_default"):
        Note.objects.using("t0_default").create(text="one")
        tenants.arrived("t0", tenants.put("t0", tenants.record("moved")))
        with tenant_context_bind("t0"):
            assert connections["default"] is connections["t0_default"]
            Note.objects.create(text="two")
            transaction.on_commit(lambda: ran.append(connection.settings_dict["NAME"]), using="t0_default")
    assert [name.endswith("t0.db") for name in ran] == [True]
    tenants.arrived("t0", tenants.put("t0", tenants.record("t0")))
    assert count_notes("t0") == 2


def test_callbacks_of_a_transaction_by_alias_run_although_its_tenant_was_deleted(limited):
    tenants = limited(4, 2)
    ran = []
    with transaction.atomic(using="t0_default"):
        Note.objects.using("t0_default").create(text="one")
        transaction.on_commit(lambda: ran.append(context.current().id), using="t0_default")
        tenants.arrived("t0", tenants.delete("t0"))
    assert ran == ["t0"]


def test_an_iteration_by_alias_survives_a_change(limited):
    tenants = limited(1, 2)
    fill("t0", 300)
    rows = Note.objects.using("t0_default").order_by("pk").iterator(chunk_size=10)
    read = [next(rows).text]
    tenants.arrived("t0", tenants.put("t0", tenants.record("moved")))
    read += [row.text for row in rows]
    assert read == [str(number) for number in range(300)]


def test_an_alias_that_a_thread_has_used_once_blocks_nobody(limited):
    limited(1, 2)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: Note.objects.using("t0_default").count()).result() == 0
        assert at_once(count_notes, "t1") == 0


def test_a_carried_function_runs_on_the_revision_of_its_own_time(limited):
    tenants = limited(4, 2)
    with tenant_context_bind("t0"):
        where = carry_tenant(lambda: connection.settings_dict["NAME"])
    tenants.arrived("t0", tenants.put("t0", tenants.record("moved")))
    assert at_once(where).endswith("moved.db")
