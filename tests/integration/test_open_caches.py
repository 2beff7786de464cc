"""How many caches are open, who uses them, and who closes them."""

import asyncio
import contextlib
import contextvars
import gc
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.conf import settings
from django.core.cache import cache, caches
from django.core.signals import request_finished
from django.test import Client, override_settings

from tenant_router import context
from tenant_router import unit_of_work as units
from tenant_router.cache import memory
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantDeleted
from tenant_router.managers import tenant_context_manager
from tests.integration import cache_backends
from tests.integration.test_caches import (  # noqa: F401 - fixtures
    A,
    B,
    _connected,
    _open_count,
    memcached,
    project,
)
from tests.tenants import eventually

CONNECTED = {"BACKEND": "tests.integration.cache_backends.Connected", "LOCATION": "template"}
LOCMEM = "django.core.cache.backends.locmem.LocMemCache"


@pytest.fixture
def limited(project):  # noqa: F811
    """A function that makes a project in which ``limit`` caches may be open."""
    with contextlib.ExitStack() as stack:

        def make(limit, kind, **more):
            changed = {**settings.TENANT_ROUTER_CACHE_SETTINGS, "MAX_OPEN_CACHES": limit}
            stack.enter_context(override_settings(TENANT_ROUTER_CACHE_SETTINGS=changed))
            cache_backends.Connected.everyone.clear()
            return project(kind, **more)

        yield make
        cache_backends.Connected.hanging = None


def add(made, count, **config):
    for number in range(count):
        made.add(f"t{number}", {"default": {"LOCATION": f"own-{number}", **config}})


def use(tenant_id):
    with tenant_context_bind(tenant_id):
        return cache.get("k")


def connected():
    return sorted(each.location for each in [*cache_backends.Connected.everyone] if each.connected)


def in_thread(work, *arguments):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work, *arguments).result(60)


# --- the bound ---


def test_sockets_of_own_locations_are_bounded_and_the_least_recently_used_goes(limited, redis_server):
    made = limited(3, "redis")
    place = redis_server.url.removesuffix("/0")
    for number in range(8):
        made.add(f"t{number}", {"default": {"LOCATION": f"{place}/{number}"}})
    with contextlib.closing(redis_server.client()) as looking:
        before = _connected(looking)
        for number in (0, 1, 2, 3, 4, 5, 0, 6, 7):
            use(f"t{number}")
        eventually(lambda: len(_connected(looking) - before) == 3)  # the server notices a little later
        ours = [each["db"] for each in looking.client_list() if each["id"] in _connected(looking) - before]
        assert sorted(ours) == ["0", "6", "7"]


def test_threads_together_have_no_more_than_the_limit(limited):
    made = limited(3, CONNECTED)
    add(made, 6)
    for number in range(6):
        use(f"t{number}")
        in_thread(use, f"t{number}")
    assert len(connected()) <= 3
    assert _open_count(caches) <= 3


def test_what_a_living_unit_uses_is_never_closed(limited):
    made = limited(2, CONNECTED)
    add(made, 8)
    with tenant_context_bind("t0"):
        mine = caches.backend("default")
        cache.get("k")
        for number in range(1, 8):
            use(f"t{number}")
            in_thread(use, f"t{number}")
            assert mine.connected
            assert caches.backend("default") is mine
        assert len(connected()) <= 2


def test_more_than_the_limit_may_be_in_use_and_are_closed_as_their_units_end(limited):
    made = limited(2, CONNECTED)
    add(made, 6)
    with ThreadPoolExecutor(6) as pool:
        inside, leave = threading.Barrier(7, timeout=60), threading.Event()

        def work(number):
            with tenant_context_bind(f"t{number}"):
                cache.get("k")
                inside.wait()
                assert leave.wait(60)

        running = [pool.submit(work, number) for number in range(6)]
        inside.wait()
        assert len(connected()) == 6
        leave.set()
        for each in running:
            each.result(60)
        assert len(connected()) == 2


def test_a_loop_over_tenants_inside_a_unit_stays_below_the_limit(limited):
    made = limited(2, CONNECTED)
    add(made, 6)
    with tenant_context_bind("t0"):
        for number in range(1, 6):
            with tenant_context_bind(f"t{number}"):
                cache.get("k")
            assert len(connected()) <= 2


def test_memory_does_not_grow_with_the_tenants_that_were_served(limited):
    made = limited(4, "locmem")
    seen = []
    for number in range(20):
        made.add(f"t{number}")
        with tenant_context_bind(f"t{number}"):
            cache.set("k", number)
            seen.append(weakref.ref(caches.backend("default")))
    gc.collect()
    assert len([each for each in seen if each() is not None]) == 4
    assert [use(f"t{number}") for number in range(20)] == [*range(20)]


def test_twins_over_a_shared_client_are_bounded_and_leave_it_open(limited, redis_server):
    made = limited(2, "redis")
    with contextlib.closing(redis_server.client()) as looking:
        before = _connected(looking)
        for number in range(10):
            made.add(f"t{number}")
            use(f"t{number}")
        assert _open_count(caches) == 2
        assert len(_connected(looking) - before) == 1


@pytest.mark.parametrize("limit", [0, -1, True, "many"])
def test_a_wrong_limit_is_a_problem_of_the_settings(limit):
    from tenant_router.conf.problems import problems

    with override_settings(TENANT_ROUTER_CACHE_SETTINGS={"MAX_OPEN_CACHES": limit}):
        assert [each.where for each in problems() if "MAX_OPEN_CACHES" in each.where]


# --- what a unit's start and end walk ---


def test_the_end_of_a_request_looks_at_what_its_unit_has_used(limited):
    made = limited(50, CONNECTED)
    add(made, 20)
    for number in range(20):
        use(f"t{number}")
    assert caches.all(initialized_only=True) == []
    with tenant_context_bind("t0"):
        assert caches.all(initialized_only=True) == []
        cache.get("k")
        assert caches.all(initialized_only=True) == [caches.backend("default")]
        request_finished.send(None)
    assert {each.location: each.closings for each in cache_backends.Connected.everyone} == {
        f"own-{number}": int(number == 0) for number in range(20)
    }


def test_a_request_closes_its_memcached_as_django_does(limited, memcached, two):  # noqa: F811
    made = limited(5, "memcached")
    made.add(A)
    made.tenants.migrate(A)
    with tenant_context_bind(A):
        client = cache._cache
    assert Client(headers={"host": A}).get("/cache/").status_code == 200
    assert [each.sock for each in client.clients.values()] == [None]


def test_a_request_closes_what_it_has_used_in_other_threads(limited):
    made = limited(5, CONNECTED)
    made.add(A)
    with ThreadPoolExecutor(1) as pool:
        before = context.begin(tenant_context_manager.get_by_id(A))
        pool.submit(contextvars.copy_context().run, lambda: cache.get("k")).result(60)
        (its,) = cache_backends.Connected.everyone
        assert its.connected
        context.leave(before)
        eventually(lambda: its.closings == 1)
        assert not its.connected


# --- closing ---


def test_a_close_that_hangs_keeps_nobody_else_waiting(limited):
    made = limited(2, CONNECTED)
    add(made, 5)
    cache_backends.Connected.hanging = hanging = threading.Event()
    use("t0")
    use("t1")
    (first,) = [each for each in cache_backends.Connected.everyone if each.location == "own-0"]
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(use, "t2")  # it makes room by closing the first
        assert first.closes.wait(60)
        for number in (1, 3, 4):
            in_thread(use, f"t{number}")
        made.remove("t1")  # the reader neither
        assert not stuck.done()
        hanging.set()
        stuck.result(60)


def test_the_reader_closes_nothing(limited):
    made = limited(9, CONNECTED)
    add(made, 2)
    cache_backends.Connected.hanging = hanging = threading.Event()
    use("t0")
    (first,) = cache_backends.Connected.everyone
    made.remove("t0")
    assert first.closes.wait(60)
    made.remove("t1")  # arrives although that one hangs
    assert first.connected
    hanging.set()
    eventually(lambda: not first.connected)


def test_a_close_that_fails_is_nobodys_error(limited, monkeypatch):
    made = limited(1, CONNECTED)
    add(made, 3)
    monkeypatch.setattr(cache_backends.Connected, "close", lambda self: 1 / 0)
    for number in range(3):
        use(f"t{number}")
    assert _open_count(caches) == 1


def test_what_was_replaced_is_closed_when_the_last_unit_that_used_it_ends(limited):
    made = limited(9, CONNECTED)
    add(made, 1)
    with tenant_context_bind("t0"):
        cache.get("k")
        mine = caches.backend("default")
        made.add("t0", {"default": {"LOCATION": "new"}})
        assert mine.connected
        assert caches.backend("default") is mine
        assert in_thread(lambda: use("t0")) is None
    assert not mine.connected
    use("t0")
    assert connected() == ["new"]
    made.remove("t0")
    eventually(lambda: connected() == [])
    assert _open_count(caches) == 0


def test_what_was_replaced_is_closed_when_the_unit_that_used_it_becomes_garbage(limited):
    made = limited(9, {**CONNECTED, "BACKEND": "tests.integration.cache_backends.Connected"})
    add(made, 1)
    kept = [contextvars.Context()]

    def begin():
        context.enter(tenant_context_manager.get_by_id("t0"))
        cache.get("k")

    kept[0].run(begin)
    made.remove("t0")
    assert connected() == ["own-0"]  # the unit goes on
    kept.clear()
    gc.collect()
    eventually(lambda: connected() == [])


def test_what_rests_in_another_thread_is_closed_when_it_is_replaced(limited):
    made = limited(9, CONNECTED)
    add(made, 1)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(use, "t0").result(60)
        assert connected() == ["own-0"]
        made.remove("t0")
        eventually(lambda: connected() == [])


# --- threads, forks, event loops ---


def test_a_thread_that_ends_leaves_nothing_open(limited):
    made = limited(9, CONNECTED)
    add(made, 2)

    def work():
        use("t0")
        with tenant_context_bind("t1"):
            cache.get("k")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    eventually(lambda: connected() == [] and _open_count(caches) == 0)


def test_a_thread_that_ends_closes_the_client_that_tenants_share(limited, redis_server):
    made = limited(9, "redis")
    made.add(A)
    with contextlib.closing(redis_server.client()) as looking:
        before = _connected(looking)
        thread = threading.Thread(target=use, args=[A])
        thread.start()
        thread.join()
        eventually(lambda: _connected(looking) == before)


def test_a_thread_that_ends_closes_the_client_of_memcached_that_tenants_share(limited, memcached):  # noqa: F811
    made = limited(9, "memcached")
    made.add(A)
    found = []

    def work():
        with tenant_context_bind(A):
            cache.set("k", 1)
            found.extend(cache._cache.clients.values())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    eventually(lambda: [each.sock for each in found] == [None])


def test_a_forked_child_has_nothing_open_and_closes_nothing_of_its_parent(limited, redis_server):
    made = limited(9, "redis")
    made.add(A, {"default": {"LOCATION": redis_server.url.removesuffix("/0") + "/1"}})
    with tenant_context_bind(A):
        cache.set("k", 1)
        with contextlib.closing(redis_server.client()) as looking:
            before = _connected(looking)
            child = os.fork()
            if child == 0:
                os._exit(_open_count(caches))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert cache.get("k") == 1
            assert _connected(looking) == before


def test_a_forked_child_closes_no_backend_of_its_parent(limited):
    made = limited(9, CONNECTED)
    add(made, 2)
    use("t0")
    with tenant_context_bind("t1"):
        cache.get("k")
        parents = [*cache_backends.Connected.everyone]
        child = os.fork()
        if child == 0:
            context.stack.set(())
            gc.collect()
            os._exit(sum(each.closings for each in parents))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert connected() == ["own-0", "own-1"]


async def one_request(tenant_id, work):
    """As Django's ASGI handler serves one: a thread of its own for what is sensitive to it."""
    async with ThreadSensitiveContext(), tenant_context_bind(tenant_id):
        return await work()


async def test_units_of_one_event_loop_do_not_share_a_client(limited):
    made = await sync_to_async(limited)(9, CONNECTED)
    await sync_to_async(made.add)(A)
    together = asyncio.Barrier(2) if hasattr(asyncio, "Barrier") else None

    async def work():
        await cache.aget("k")
        mine = caches.backend("default")
        if together is not None:
            await together.wait()
        else:
            await asyncio.sleep(0.2)
        return mine

    one, two = await asyncio.gather(one_request(A, work), one_request(A, work))
    assert one is not two


async def test_tenants_of_one_event_loop_do_not_share_a_client_of_memcached(limited, memcached):  # noqa: F811
    made = await sync_to_async(limited)(9, "memcached")
    for tenant_id in (A, B):
        await sync_to_async(made.add)(tenant_id)

    async def work():
        for number in range(50):
            await cache.aset("k", number)
            assert await cache.aget("k") == number
        return cache._cache

    clients = await asyncio.gather(one_request(A, work), one_request(B, work))
    assert len({id(client) for client in clients}) == 2


async def test_what_ends_in_an_event_loop_is_closed_elsewhere(limited):
    made = await sync_to_async(limited)(1, CONNECTED)
    await sync_to_async(add)(made, 4)
    for number in range(4):
        async with tenant_context_bind(f"t{number}"):
            await cache.aget("k")
    await asyncio.to_thread(eventually, lambda: len(connected()) == 1)


async def test_a_request_that_ends_in_an_event_loop_is_closed_elsewhere(limited):
    made = await sync_to_async(limited)(9, CONNECTED)
    await sync_to_async(made.add)(A)
    before = context.begin(tenant_context_manager.get_by_id(A))
    await cache.aget("k")
    (its,) = cache_backends.Connected.everyone
    context.leave(before)
    await asyncio.to_thread(eventually, lambda: its.closings == 1)


# --- units that end, or never do ---


def test_a_straggler_resolves_again(limited):
    made = limited(9, CONNECTED)
    add(made, 1)
    with tenant_context_bind("t0"):
        cache.get("k")
        kept = contextvars.copy_context()
    made.add("t0", {"default": {"LOCATION": "new"}})
    kept.run(lambda: cache.get("k"))
    assert connected() == ["new"]
    del kept
    with tenant_context_bind("t0"):
        kept = contextvars.copy_context()
    made.remove("t0")
    with pytest.raises(TenantDeleted):
        kept.run(lambda: cache.get("k"))


@pytest.mark.parametrize("kind", ["third party", "locmem"])
def test_a_unit_whose_context_is_garbage_lets_go_of_its_caches(limited, kind):
    made = limited(9, kind)
    made.add(A)

    def abandoned():
        block = tenant_context_bind(A)
        block.__enter__()
        cache.get("k")
        return weakref.ref(context.stack.get()[0])

    unit = contextvars.copy_context().run(abandoned)
    gc.collect()
    assert unit() is None
    made.add(B)
    use(B)  # who opens something lets go of what was abandoned
    assert len(caches._open.with_sockets.resting) + len(caches._open.without.resting) == 2


def test_a_unit_at_the_address_of_one_that_is_garbage_has_its_own_use_of_a_cache(limited):
    made = limited(9, CONNECTED)
    made.add(A)

    def abandoned():
        tenant_context_bind(A).__enter__()
        cache.get("k")
        return id(context.stack.get()[0])

    def bound(unit):
        context.stack.set((unit, tenant_context_manager.get_by_id(A)))
        cache.get("k")
        return [each.backend for each in unit.uses] == [caches.backend("default")]

    address = contextvars.copy_context().run(abandoned)
    others = [units.Current() for _ in range(1000)]
    for unit in others:
        if id(unit) == address:
            assert contextvars.copy_context().run(bound, unit)
            unit.end()
            return
    pytest.skip("the address did not come back")


# --- entries in memory ---


@pytest.fixture
def empty_memory():
    memory.memories.forget()
    yield memory.memories
    memory.memories.forget()


def fill(tenant_id, count):
    with tenant_context_bind(tenant_id):
        for number in range(count):
            cache.set(str(number), number)


def left_of(tenant_id, count):
    with tenant_context_bind(tenant_id):
        return len(cache.get_many(map(str, range(count))))


@pytest.mark.parametrize("backend", [LOCMEM, "tests.integration.cache_backends.OwnKeysInMemory"])
@pytest.mark.parametrize("frequency", [3, 0])
def test_a_busy_tenant_pushes_out_its_own_entries_only(limited, empty_memory, backend, frequency):
    options = {"MAX_ENTRIES": 10, "CULL_FREQUENCY": frequency}
    made = limited(2, {"BACKEND": backend, "LOCATION": "busy", "OPTIONS": options})
    for tenant_id in (A, B):
        made.add(tenant_id)
    fill(B, 8)
    fill(A, 300)
    assert left_of(B, 8) == 8
    assert 0 < left_of(A, 300) <= 10


def test_entries_of_all_tenants_are_bounded_and_the_longest_unused_tenants_go(limited, empty_memory, monkeypatch):
    monkeypatch.setattr(memory, "IN_ALL", 10)
    made = limited(3, {"BACKEND": LOCMEM, "LOCATION": "crowd", "OPTIONS": {"MAX_ENTRIES": 10}})
    for number in range(30):
        made.add(f"t{number}")
        fill(f"t{number}", 10)
        assert left_of("t0", 10) == 10  # it is in use all the time
        assert sum(len(each.entries) for each in empty_memory._recent.values()) <= 100
    assert left_of("t29", 10) == 10
    assert left_of("t1", 10) == 0


def test_a_memory_that_went_is_the_same_for_all_threads(limited, empty_memory, monkeypatch):
    monkeypatch.setattr(memory, "IN_ALL", 2)
    made = limited(9, {"BACKEND": LOCMEM, "LOCATION": "crowd", "OPTIONS": {"MAX_ENTRIES": 10}})
    for number in range(5):
        made.add(f"t{number}")
    with tenant_context_bind("t0"):
        cache.set("k", "old")
        for number in range(1, 5):
            in_thread(fill, f"t{number}", 10)
        cache.set("k", "new")
        assert in_thread(use, "t0") == "new"
