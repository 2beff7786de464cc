"""What ``carry_tenant`` and ``tenant_context_bind`` return for functions whose results are yet to run."""

import asyncio
import functools
import pickle
import threading
import types
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import iscoroutinefunction, sync_to_async
from django.db import connection, transaction

from tenant_router import context
from tenant_router.context_decorators import carry_tenant, tenant_context_bind
from tenant_router.exceptions import TenantContextMissing, TenantDeleted, TransactionOpen
from tenant_router.managers.task_local import tls_tenant_manager


def bound():
    current = context.current()
    return current and current.id


@pytest.fixture(autouse=True)
def ab(tenants):
    """Two tenants; nothing of their databases is opened."""
    tenants.put("a")
    tenants.put("b")
    tenants.arrived("b")
    return tenants


async def coroutine(*args):
    await asyncio.sleep(0)
    return bound()


def generator():
    yield bound()
    yield bound()


async def async_generator():
    yield bound()
    await asyncio.sleep(0)
    yield bound()


class Methods:
    def plain(self):
        return bound()

    async def coroutine(self):
        return await coroutine()

    async def __call__(self):
        return await coroutine()


class GeneratorObject:
    def __call__(self):
        return generator()


class AsyncGeneratorObject:
    def __call__(self):
        return async_generator()


class Awaitable:
    def __await__(self):
        return coroutine().__await__()


@types.coroutine
def old_style():
    yield from coroutine().__await__()
    return bound()


def plain_decorator(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


AWAITED = {
    "coroutine function": coroutine,
    "behind a plain decorator": plain_decorator(coroutine),
    "partial": functools.partial(coroutine, 1),
    "partial of a decorated one": functools.partial(plain_decorator(coroutine), 1),
    "lambda": lambda: coroutine(),
    "method": Methods().coroutine,
    "object": Methods(),
    "partial of an object": functools.partial(Methods()),
    "sync_to_async": sync_to_async(bound),
    "sync_to_async in a pool": sync_to_async(bound, thread_sensitive=False),
    "behind sync_to_async": plain_decorator(sync_to_async(bound)),
    "awaitable": Awaitable,
    "types.coroutine": old_style,
    "behind types.coroutine": plain_decorator(old_style),
}
GENERATORS = {
    "generator function": generator,
    "behind a plain decorator": plain_decorator(generator),
    "partial": functools.partial(generator),
    "lambda": lambda: generator(),
    "object": GeneratorObject(),
}
ASYNC_GENERATORS = {
    "async generator function": async_generator,
    "behind a plain decorator": plain_decorator(async_generator),
    "partial": functools.partial(plain_decorator(async_generator)),
    "object": AsyncGeneratorObject(),
}


@pytest.fixture(params=["bind", "carry", "carry and pickle"])
def as_a(request):
    """A function that binds a function to tenant ``a``."""

    def bind(function):
        if request.param == "bind":
            return tenant_context_bind("a")(function)
        with tenant_context_bind("a"):
            carried = carry_tenant(function)
        if request.param == "carry":
            return carried
        try:
            return pickle.loads(pickle.dumps(carried))
        except (AttributeError, pickle.PicklingError, TypeError):
            return carried  # the function itself cannot be pickled

    return bind


@pytest.mark.parametrize("name", AWAITED)
async def test_what_is_awaited_is_bound_while_it_runs(as_a, name):
    function = as_a(AWAITED[name])
    assert iscoroutinefunction(function) == iscoroutinefunction(AWAITED[name])
    assert await function() == "a"
    async with tenant_context_bind("b"):
        result = function()
        assert bound() == "b"
        assert await result == "a"
        assert await asyncio.gather(function(), coroutine(), function()) == ["a", "b", "a"]
        assert bound() == "b"
    assert bound() is None


@pytest.mark.parametrize("name", GENERATORS)
def test_a_returned_generator_is_bound_in_its_steps(as_a, name):
    with tenant_context_bind("b"):
        steps = as_a(GENERATORS[name])()
        assert next(steps) == "a"
        assert bound() == "b"
    assert next(steps) == "a"
    assert bound() is None
    steps.close()


@pytest.mark.parametrize("name", ASYNC_GENERATORS)
async def test_a_returned_async_generator_is_bound_in_its_steps(as_a, name):
    async with tenant_context_bind("b"):
        steps = as_a(ASYNC_GENERATORS[name])()
        assert await anext(steps) == "a"
        assert bound() == "b"
    assert await anext(steps) == "a"
    await steps.aclose()


async def test_a_task_runs_as_who_made_it_and_is_given_back_as_it_is():
    def start():
        return asyncio.ensure_future(coroutine())

    async with tenant_context_bind("b"):
        task = tenant_context_bind("a")(start)()
        assert isinstance(task, asyncio.Task)
        assert await task == "a"


@pytest.mark.parametrize(
    "function", [bound, coroutine, Methods().plain, Methods().coroutine, functools.partial(bound), Methods()]
)
def test_what_is_carried_can_be_pickled(function):
    with tenant_context_bind("a"):
        carried = carry_tenant(function)
    with tenant_context_bind("b"):
        result = pickle.loads(pickle.dumps(carried))()
        assert (asyncio.run(result) if asyncio.iscoroutine(result) else result) == "a"


# --- tls_tenant_manager.refresh() ---


def move(tenants, tenant_id):
    revision = tenants.put(tenant_id, tenants.record(f"{tenant_id}-{len(str(tenants))}-moved", cache_config={}))
    tenants.arrived(tenant_id, revision)
    return revision


def test_refresh_goes_on_with_the_current_revision_in_the_same_unit(ab):
    with tenant_context_bind("a") as outer, tenant_context_bind("b"), tenant_context_bind("a") as inner:
        assert inner is outer
        unit, latest = context.stack.get()[0], move(ab, "a")
        fresh = tls_tenant_manager.refresh()
        assert fresh.revision == latest
        assert context.stack.get()[0] is unit
        assert [bound.id for bound in context.stack.get()[1:]] == ["a", "b", "a"]
        assert context.stack.get()[1] is context.stack.get()[3] is fresh
        with tenant_context_bind("a") as nested:
            assert nested is fresh
        assert tls_tenant_manager.refresh() is fresh


def test_refresh_reaches_neither_other_tasks_nor_other_threads(ab):
    seen = []

    async def other(go):
        await go.wait()
        seen.append(context.current().revision)

    async def main():
        go = asyncio.Event()
        async with tenant_context_bind("a") as pinned:
            task = asyncio.create_task(other(go))
            latest = move(ab, "a")
            thread = threading.Thread(target=carry_tenant(tls_tenant_manager.refresh))
            thread.start()
            thread.join()
            assert context.current() is pinned
            assert tls_tenant_manager.refresh().revision == latest
            go.set()
            await task
            assert seen == [pinned.revision]

    asyncio.run(main())


def test_refresh_of_a_deleted_tenant_says_so_and_changes_nothing(ab):
    with tenant_context_bind("a") as pinned:
        ab.arrived("a", ab.delete("a"))
        with pytest.raises(TenantDeleted):
            tls_tenant_manager.refresh()
        assert context.current() is pinned
    with pytest.raises(TenantContextMissing):
        tls_tenant_manager.refresh()


def test_refresh_in_a_job_of_an_executor_is_the_jobs_own(ab):
    def job():
        return tls_tenant_manager.refresh().revision, context.current().revision

    with tenant_context_bind("a") as pinned, ThreadPoolExecutor(1) as pool:
        latest = move(ab, "a")
        assert pool.submit(job).result() == (latest, latest)
        assert context.current() is pinned
        assert pool.submit(lambda: context.current()).result() is pinned


def test_refresh_is_refused_in_a_transaction_of_its_tenant_alone(two):
    with tenant_context_bind("a.test") as pinned, tenant_context_bind("b.test"):
        two.arrived("a.test", two.put("a.test", two.record("moved")))
        with tenant_context_bind("a.test"), transaction.atomic():
            with pytest.raises(TransactionOpen):
                tls_tenant_manager.refresh()
            assert context.current().parts is pinned.parts
        with transaction.atomic():
            two.arrived("b.test", two.put("b.test", two.record("moved-b")))
            with pytest.raises(TransactionOpen):
                tls_tenant_manager.refresh()
        old = connection.settings_dict["NAME"]
        tls_tenant_manager.refresh()
        assert connection.settings_dict["NAME"] != old
        assert connection.settings_dict["NAME"].endswith("moved-b.db")
