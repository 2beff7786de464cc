"""``tenant_context_bind`` and ``carry_tenant`` around every kind of code."""

import asyncio
import contextlib
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool

import pytest

from tenant_router import context
from tenant_router.context_decorators import carry_tenant, tenant_context_bind
from tenant_router.exceptions import TenantDeleted, TenantNotFound
from tenant_router.managers import tenant_context_manager
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


# --- with ---


def test_with_binds_and_gives_the_context():
    with tenant_context_bind("a") as given:
        assert given is context.current() is tenant_context_manager.get_by_id("a")
    assert bound() is None


def test_nested_blocks_restore_what_was_bound():
    with tenant_context_bind("a"):
        with tenant_context_bind("b"):
            with tenant_context_bind("a"):
                assert bound() == "a"
            assert bound() == "b"
        assert bound() == "a"
    assert bound() is None


@pytest.mark.parametrize(
    "error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, StopIteration]
)
def test_an_exception_unbinds_and_goes_on(error):
    with pytest.raises(error):
        with tenant_context_bind("a"):
            raise error
    assert bound() is None


def test_a_context_is_taken_as_it_is():
    with tenant_context_bind(tenant_context_manager.get_by_id("b")):
        assert bound() == "b"


def test_an_unknown_tenant_binds_nothing():
    with pytest.raises(TenantNotFound, match="'c'"):
        with tenant_context_bind("c"):
            pytest.fail("the block ran")
    assert bound() is None


def test_one_object_serves_one_block_at_a_time():
    binding = tenant_context_bind("a")
    with binding, pytest.raises(RuntimeError, match="entered already"):
        binding.__enter__()
    with binding:
        assert bound() == "a"
    assert bound() is None


async def test_async_with():
    async with tenant_context_bind("a") as given:
        await asyncio.sleep(0)
        assert given is context.current()
    assert bound() is None


async def test_a_cancelled_task_unbinds():
    left = []

    async def work():
        try:
            async with tenant_context_bind("a"):
                await asyncio.sleep(10)
        finally:
            left.append(bound())

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left == [None]


# --- decorators ---


def test_a_function():
    @tenant_context_bind("a")
    def view(number, *, more=0):
        """Says who."""
        return bound(), number + more

    assert view(1, more=2) == ("a", 3)
    assert (view.__name__, view.__doc__) == ("view", "Says who.")
    assert bound() is None


def test_a_method_and_a_recursive_function():
    class Thing:
        @tenant_context_bind("a")
        def who(self, depth=2):
            return self.who(depth - 1) if depth else bound()

    assert Thing().who() == "a"


def test_a_function_that_raises_unbinds():
    @tenant_context_bind("a")
    def boom():
        raise ValueError

    with pytest.raises(ValueError):
        boom()
    assert bound() is None


def test_decoration_resolves_at_the_call(ab):
    @tenant_context_bind("later")
    def who():
        return bound()

    with pytest.raises(TenantNotFound):
        who()
    ab.put("later")
    ab.arrived("later")
    assert who() == "later"


def test_one_decorated_function_in_many_threads_at_once():
    barrier = threading.Barrier(8)

    @tenant_context_bind("a")
    def who(_):
        barrier.wait(60)
        return bound()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(who, range(8))) == {"a"}


async def test_a_coroutine_function():
    @tenant_context_bind("a")
    async def who():
        await asyncio.sleep(0)
        return bound()

    assert inspect.iscoroutinefunction(who)
    assert await who() == "a"
    assert await asyncio.gather(who(), tenant_context_bind("b")(who)()) == ["a", "a"]
    assert bound() is None


def talker():
    """A generator that yields what it got and who was bound."""
    got = None
    try:
        while True:
            try:
                got = yield got, bound()
            except ValueError as error:
                got = error
            if got == "end":
                return bound()
    finally:
        talker.closed = bound()


def test_a_generator_is_bound_during_its_steps_only():
    # given a decorated generator that a caller of another tenant consumes
    steps = tenant_context_bind("a")(talker)()
    with tenant_context_bind("b"):
        # when it is stepped by next, send and throw; then it sees its tenant and the caller his own
        assert next(steps) == (None, "a")
        assert bound() == "b"
        assert steps.send("x") == ("x", "a")
        error = ValueError("thrown")
        assert steps.throw(error) == (error, "a")
        assert bound() == "b"
        with pytest.raises(StopIteration) as stop:
            steps.send("end")
        assert stop.value.value == "a"
        assert bound() == "b"
    assert talker.closed == "a"


def test_closing_a_generator_runs_its_finally_bound():
    steps = tenant_context_bind("a")(talker)()
    next(steps)
    talker.closed = "not yet"
    steps.close()
    assert talker.closed == "a"
    assert bound() is None
    with pytest.raises(StopIteration):
        next(steps)


def test_a_generator_that_is_dropped_runs_its_finally_bound():
    steps = tenant_context_bind("a")(talker)()
    next(steps)
    talker.closed = "not yet"
    del steps
    assert talker.closed == "a"


def test_an_error_in_a_generator_reaches_its_caller_unbound():
    @tenant_context_bind("a")
    def broken():
        yield 1
        raise KeyError("x")

    steps = broken()
    assert next(steps) == 1
    with pytest.raises(KeyError):
        next(steps)
    assert bound() is None


def test_an_error_thrown_and_not_caught_comes_back():
    steps = tenant_context_bind("a")(talker)()
    next(steps)
    with pytest.raises(LookupError, match="mine"):
        steps.throw(LookupError("mine"))


def test_a_generator_can_be_stepped_by_several_threads():
    steps = tenant_context_bind("a")(talker)()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(next, steps).result() == (None, "a")
    assert next(steps) == (None, "a")
    steps.close()


def test_a_decorated_generator_works_as_a_context_manager():
    @contextlib.contextmanager
    @tenant_context_bind("a")
    def block():
        yield bound()

    with block() as seen:
        assert seen == "a"
        assert bound() is None


async def async_talker():
    got = None
    try:
        while True:
            try:
                await asyncio.sleep(0)
                got = yield got, bound()
            except ValueError as error:
                got = error
            if got == "end":
                return
    finally:
        async_talker.closed = bound()


async def test_an_async_generator_is_bound_during_its_steps_only():
    steps = tenant_context_bind("a")(async_talker)()
    async with tenant_context_bind("b"):
        assert await anext(steps) == (None, "a")
        assert bound() == "b"
        assert await steps.asend("x") == ("x", "a")
        error = ValueError("thrown")
        assert await steps.athrow(error) == (error, "a")
        with pytest.raises(StopAsyncIteration):
            await steps.asend("end")
        assert bound() == "b"
    assert async_talker.closed == "a"


async def test_the_steps_of_an_async_generator_may_run_in_different_tasks():
    steps = tenant_context_bind("a")(async_talker)()

    async def step():
        return await anext(steps), bound()

    for _ in range(3):
        assert await asyncio.create_task(step()) == ((None, "a"), None)
    await asyncio.create_task(steps.aclose())
    assert async_talker.closed == "a"


async def test_a_cancelled_step_of_an_async_generator_unbinds():
    @tenant_context_bind("a")
    async def slow():
        await asyncio.sleep(10)
        yield 1

    left = []

    async def consume():
        try:
            async for _ in slow():
                pass
        finally:
            left.append(bound())

    task = asyncio.create_task(consume())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left == [None]


async def test_async_for_with_break_closes_bound():
    async_talker.closed = "not yet"
    async with contextlib.aclosing(tenant_context_bind("a")(async_talker)()) as steps:
        async for _ in steps:
            break
    assert async_talker.closed == "a"


# --- the pin ---


def move(tenants, tenant_id):
    revision = tenants.put(tenant_id, tenants.record(f"{tenant_id}-moved"))
    tenants.arrived(tenant_id, revision)
    return revision


def test_the_same_tenant_nested_keeps_its_revision_after_a_change(ab):
    with tenant_context_bind("a") as outer:
        revision = move(ab, "a")
        with tenant_context_bind("a") as inner:
            assert inner is outer
        with tenant_context_bind("b"), tenant_context_bind("a") as deeper:
            assert deeper is outer
        with tenant_context_bind(tenant_context_manager.get_by_id("a")) as given:
            assert given is outer
    with tenant_context_bind("a") as later:
        assert later.revision == revision > outer.revision


def test_another_tenant_takes_its_current_revision(ab):
    with tenant_context_bind("a"):
        revision = move(ab, "b")
        with tenant_context_bind("b") as b:
            assert b.revision == revision


def test_a_tenant_deleted_meanwhile_is_served_to_the_end_of_the_unit(ab):
    with tenant_context_bind("a") as outer:
        ab.delete("a")
        ab.arrived("a", outer.revision + 1)
        with tenant_context_bind("a") as inner:
            assert inner is outer
    with pytest.raises(TenantDeleted):
        tenant_context_bind("a").__enter__()


def test_a_generator_keeps_the_revision_of_its_first_step(ab):
    @tenant_context_bind("a")
    def revisions():
        while True:
            yield context.current().revision

    steps = revisions()
    first = next(steps)
    move(ab, "a")
    assert next(steps) == first
    steps.close()
    fresh = revisions()
    assert next(fresh) > first
    fresh.close()


# --- carry_tenant ---


def test_a_pool_of_threads_is_unbound_and_carry_tenant_takes_the_tenant_along():
    with tenant_context_bind("a"), ThreadPool(1) as pool:
        assert pool.apply(bound) is None
        assert pool.apply(carry_tenant(bound)) == "a"
        assert pool.map(carry_tenant(lambda n: (n, bound())), [1, 2]) == [(1, "a"), (2, "a")]
        assert pool.apply(bound) is None


def test_carry_tenant_in_a_thread_of_its_own():
    seen = []
    with tenant_context_bind("b"):
        thread = threading.Thread(target=carry_tenant(lambda: seen.append(bound())))
    thread.start()
    thread.join()
    assert seen == ["b"]


async def test_to_thread_copies_the_context_by_itself():
    async with tenant_context_bind("a"):
        assert await asyncio.to_thread(bound) == "a"
        assert await asyncio.to_thread(carry_tenant(bound)) == "a"


async def test_carry_tenant_of_a_coroutine_function():
    async def who():
        await asyncio.sleep(0)
        return bound()

    async with tenant_context_bind("a"):
        carried = carry_tenant(who)
    assert await carried() == "a"


def test_what_is_carried_out_of_its_unit_runs_on_the_revision_of_its_own_time(ab):
    with tenant_context_bind("a") as outer:
        carried = carry_tenant(lambda: context.current().revision)
        assert carried() == outer.revision
    revision = move(ab, "a")
    assert carried() == revision


def test_what_is_carried_for_a_deleted_tenant_does_not_run(ab):
    with tenant_context_bind("a") as outer:
        carried = carry_tenant(lambda: pytest.fail("it ran"))
    ab.delete("a")
    ab.arrived("a", outer.revision + 1)
    with pytest.raises(TenantDeleted):
        carried()


def test_carry_tenant_without_a_tenant_changes_nothing():
    assert carry_tenant(bound) is bound


# --- the reference's shell session ---


def test_the_shell_session_word_for_word():
    tls_tenant_manager.push_tenant_context(tenant_context_manager.get_by_id("a"))
    assert bound() == "a"
    tls_tenant_manager.pop_tenant_context()
    with tenant_context_bind("b"):
        assert bound() == "b"
    assert bound() is None


# --- blocks that end out of turn ---


def _held(tenant_id):
    with tenant_context_bind(tenant_id):
        yield


def test_a_block_that_is_collected_after_its_unit_binds_nobody(ab):
    with tenant_context_bind("a"):
        kept = _held("b")
        next(kept)
    with tenant_context_bind("b"):
        unit = context.stack.get()[0]
        del kept
        assert (bound(), context.stack.get()[0]) == ("b", unit)
        assert not unit.over
    with tenant_context_bind("a"):
        kept = _held("b")
        next(kept)
    assert bound() is None
    kept.close()
    assert bound() is None


def test_a_block_of_a_unit_that_was_renewed_meanwhile_restores_what_was_around_it(ab):
    async def outlives(go):
        async with tenant_context_bind("b"):
            await go.wait()
            assert context.current().id == "b"  # which binds it again, in a unit of its own
        return bound()

    async def main():
        go = asyncio.Event()
        async with tenant_context_bind("a"):
            task = asyncio.create_task(outlives(go))
            await asyncio.sleep(0)
        go.set()
        return await task

    assert asyncio.run(main()) == "a"


def test_a_block_within_which_something_was_pushed_or_popped_restores_what_was_around_it(ab):
    with tenant_context_bind("a"):
        with tenant_context_bind("b"):
            tls_tenant_manager.push_tenant_context(tenant_context_manager.get_by_id("a"))
        assert [each.id for each in context.stack.get()[1:]] == ["a"]
        with tenant_context_bind("b"):
            tls_tenant_manager.pop_tenant_context()
        assert [each.id for each in context.stack.get()[1:]] == ["a"]
    assert context.stack.get() == ()
