"""What is half done when a unit of work, a block or a connection ends: nothing is lost, kept for ever or miscounted."""

import asyncio
import contextvars
import gc
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import sync_to_async
from django import VERSION
from django.db import connection, connections, transaction
from django.db.backends.signals import connection_created

from tenant_router import context
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantMismatch
from tenant_router.managers import tenant_context_manager
from tests.app.models import Note
from tests.integration.test_units_of_work import at_once, count_notes, limited  # noqa: F401  (a fixture)
from tests.tenants import eventually

with_pools = pytest.mark.skipif(VERSION < (5, 1), reason="Django has pools since 5.1")


def texts(tenant_id):
    with tenant_context_bind(tenant_id):
        return sorted(Note.objects.values_list("text", flat=True))


def begin(tenant_id):
    return context.begin(tenant_context_manager.get_by_id(tenant_id))


@pytest.fixture
def refusing():
    """A receiver of ``connection_created`` that fails when it is told to."""
    state = {"fails": False}

    def receiver(**kwargs):
        if state["fails"]:
            raise ValueError("not today")

    connection_created.connect(receiver)
    yield state
    connection_created.disconnect(receiver)


@pytest.fixture
def pool_of_one(on_postgres):
    tenants = on_postgres(OPTIONS={"pool": {"max_size": 1, "timeout": 20}})
    tenants.create("a0")
    tenants.put("a", "a0")
    tenants.budget = tenants.tenants.runtime.orms["django_orm"].connections.budget
    return tenants


# --- blocks over a yield ---


def test_a_block_over_the_yield_of_a_bound_generator_stays_bound(limited):  # noqa: F811
    limited(10, 2)

    @tenant_context_bind("t0")
    def steps():
        with tenant_context_bind("t1"):
            Note.objects.create(text="first")
            yield
            Note.objects.create(text="second")
            yield
        Note.objects.create(text="third")

    for _ in steps():
        assert context.current() is None
    assert (texts("t0"), texts("t1")) == (["third"], ["first", "second"])


async def test_a_block_over_the_yield_of_a_bound_async_generator_stays_bound(limited):  # noqa: F811
    await sync_to_async(limited)(10, 2)

    @tenant_context_bind("t0")
    async def steps():
        async with tenant_context_bind("t1"):
            await Note.objects.acreate(text="first")
            yield
            await Note.objects.acreate(text="second")
            yield
        await Note.objects.acreate(text="third")

    async for _ in steps():
        assert context.current() is None
    found = await sync_to_async(texts)("t0"), await sync_to_async(texts)("t1")
    assert found == (["third"], ["first", "second"])


# --- what counts is what is open ---


def test_a_connection_that_is_closed_in_a_transaction_gives_its_place_back(limited):  # noqa: F811
    tenants = limited(1, 1)
    with tenant_context_bind("t0"):
        with transaction.atomic():
            Note.objects.count()
            connection.close()
        Note.objects.count()
        assert tenants.budget.open_count() == 1
        connection.connect()  # which lets go of what was open
        assert tenants.budget.open_count() == 1
    connections.close_all()
    assert tenants.budget.open_count() == 0


def test_a_connection_that_could_not_be_made_ready_is_closed(limited, refusing):  # noqa: F811
    tenants = limited(2, 1)
    refusing["fails"] = True
    with tenant_context_bind("t0"):
        with pytest.raises(ValueError, match="not today"):
            Note.objects.count()
        assert connection.connection is None
        refusing["fails"] = False
        assert Note.objects.count() == 0
        assert tenants.budget.open_count() == 1


@with_pools
def test_a_pool_gets_back_what_could_not_be_made_ready(pool_of_one, refusing):
    refusing["fails"] = True
    with tenant_context_bind("a"), pytest.raises(ValueError, match="not today"):
        Note.objects.count()
    refusing["fails"] = False
    connections.close_all()
    assert pool_of_one.sessions() == pool_of_one.budget.open_count()
    assert texts("a") == ["a0"]
    assert pool_of_one.budget.open_count() == pool_of_one.sessions() == 1


def test_what_made_room_is_not_kept(limited):  # noqa: F811
    limited(1, 2)
    for _ in range(5):
        count_notes("t0")
        count_notes("t1")
    database = tenant_context_manager.get_by_id("t0").parts["django_orm"]["default"]
    assert len(database.borrowers) <= 1


# --- what a unit leaves half done ---


@with_pools
def test_a_pool_gets_back_what_was_busy_when_its_unit_ended(pool_of_one):
    began, ended = threading.Event(), threading.Event()

    def work():
        with connection.cursor() as cursor:
            began.set()
            cursor.execute("SELECT pg_sleep(0.5)")
        assert ended.wait(60)

    with ThreadPoolExecutor(1) as executor:
        with tenant_context_bind("a"):
            busy = executor.submit(contextvars.copy_context().run, work)
            assert began.wait(60)
            eventually(lambda: pool_of_one.budget.open_count() == 1)
        try:
            assert texts("a") == ["a0"]
        finally:
            ended.set()
        busy.result()


@with_pools
def test_a_pool_gets_back_what_a_unit_used_that_became_garbage(pool_of_one):
    def forget():
        context.enter(tenant_context_manager.get_by_id("a"))
        Note.objects.count()

    with ThreadPoolExecutor(1) as executor:
        executor.submit(contextvars.Context().run, forget).result()
        gc.collect()
        assert texts("a") == ["a0"]


def test_a_session_of_a_unit_that_became_garbage_is_closed_with_the_change(on_postgres):
    tenants = on_postgres(CONN_MAX_AGE=600)
    tenants.create("a0", "a1")
    tenants.put("a", "a0")

    def forget():
        context.enter(tenant_context_manager.get_by_id("a"))
        Note.objects.count()

    with ThreadPoolExecutor(1) as executor:
        executor.submit(contextvars.Context().run, forget).result()
        gc.collect()
        tenants.put("a", "a1")
        eventually(lambda: tenants.sessions("a0") == 0)


@pytest.mark.parametrize(
    "template", [{"CONN_MAX_AGE": 600}, pytest.param({"OPTIONS": {"pool": True}}, marks=with_pools)]
)
def test_a_session_of_a_unit_that_becomes_garbage_after_the_change_is_closed(on_postgres, template):
    """Nobody connects and nothing changes any more: the collector itself has the janitor woken."""
    tenants = on_postgres(**template)
    tenants.create("a0", "a1")
    tenants.put("a", "a0")
    kept = [contextvars.Context()]

    def begin():
        context.enter(tenant_context_manager.get_by_id("a"))
        Note.objects.count()

    with ThreadPoolExecutor(1) as executor:
        executor.submit(kept[0].run, begin).result()
        tenants.put("a", "a1")
        assert tenants.sessions("a0") == 1  # the unit goes on
        kept.clear()
        gc.collect()
        eventually(lambda: tenants.sessions("a0") == 0)
        with tenants.server.connect("postgres") as plain:
            plain.execute(f"DROP DATABASE {tenants.name('a0')}")


def test_a_connection_that_was_made_after_its_unit_and_its_settings_is_closed(on_postgres):
    tenants = on_postgres(CONN_MAX_AGE=600)
    tenants.create("a0", "a1")
    tenants.put("a", "a0")
    connecting, go = threading.Event(), threading.Event()

    def receiver(**kwargs):
        connecting.set()
        assert go.wait(60)

    def use():
        connections["default"].ensure_connection()

    connection_created.connect(receiver)
    try:
        with ThreadPoolExecutor(1) as executor:
            before = begin("a")
            using = executor.submit(contextvars.copy_context().run, use)
            assert connecting.wait(60)
            context.leave(before)
            tenants.put("a", "a1")
            go.set()
            using.result()
            eventually(lambda: tenants.sessions("a0") == 0)
    finally:
        go.set()
        connection_created.disconnect(receiver)


def test_a_transaction_by_hand_makes_room_when_its_unit_has_ended(limited):  # noqa: F811
    limited(1, 2)
    with tenant_context_bind("t0"):
        transaction.set_autocommit(False)
        Note.objects.create(text="kept")
        transaction.commit()
    assert at_once(count_notes, "t1") == 0
    assert texts("t0") == ["kept"]


async def test_the_end_of_a_request_closes_no_iteration_by_alias_in_its_thread(limited):  # noqa: F811
    await sync_to_async(limited)(10, 1)

    def fill():
        with tenant_context_bind("t0"):
            Note.objects.bulk_create(Note(text=str(number)) for number in range(100))
        connections.close_all()

    async def request(used, ends):
        before = begin("t0")
        await Note.objects.acount()
        used.set()
        await ends.wait()
        await sync_to_async(context.leave)(before)

    await sync_to_async(fill)()
    used, ends = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(request(used, ends))
    await used.wait()
    read = 0
    async for _ in Note.objects.using("t0_default").aiterator(chunk_size=10):
        read += 1
        if read == 15:
            ends.set()
            await running
    assert read == 100


def test_threads_of_one_unit_enter_and_leave_at_once(limited):  # noqa: F811
    limited(40, 13)
    errors, gap = [], sys.getswitchinterval()

    def loop(*numbers):
        try:
            for _ in range(150):
                for number in numbers:
                    count_notes(f"t{number}")
        except Exception as error:
            errors.append(error)

    sys.setswitchinterval(1e-6)
    try:
        with tenant_context_bind("t0"):
            threads = [
                threading.Thread(target=contextvars.copy_context().run, args=(loop, number, number + 6))
                for number in range(1, 7)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(gap)
    assert errors == []


def test_a_connection_that_was_kept_over_a_change_is_refused(on_postgres):
    tenants = on_postgres(CONN_MAX_AGE=600)
    tenants.create("a0", "a1")
    tenants.put("a", "a0")
    with tenant_context_bind("a"):
        kept = connections["default"]
        kept.ensure_connection()
        tenants.put("a", "a1")
        assert texts("a") == ["a0"]  # it began before the change
    with tenant_context_bind("a"):
        with pytest.raises(TenantMismatch, match="kept"):
            kept.cursor()  # which would connect, for nobody
        assert tenants.sessions("a0") == 0
