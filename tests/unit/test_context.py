"""The context variable: an immutable stack, private to each thread and task."""

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tenant_router import context
from tenant_router.exceptions import TenantContextMissing, TenantSuspended, TransactionOpen
from tenant_router.managers import tenant_context_manager
from tenant_router.managers.task_local import TaskLocalTenantManager, tls_tenant_manager
from tenant_router.tenant_context import DeniedContext, TenantContext

A, B = TenantContext("a", 1, {}), TenantContext("b", 2, {})


@pytest.fixture(autouse=True)
def no_hook(monkeypatch):
    """These contexts carry no databases: the hook of an installed runtime would look for them."""
    monkeypatch.setattr(context, "_thread", threading.local())
    monkeypatch.setattr(tenant_context_manager, "source", None)  # nor are they any store's
    yield
    assert context.stack.get() == (), "the test left a tenant bound"


def test_nothing_is_bound_at_first():
    assert context.current() is None
    assert tls_tenant_manager.current_tenant_context is None


def test_enter_binds_and_leave_restores():
    before = context.enter(A)
    inner = context.enter(B)
    assert context.current() is B
    context.leave(inner)
    assert context.current() is A
    context.leave(before)
    assert context.current() is None


def test_the_default_is_shared_by_nobody():
    # defect (a): the default was one mutable list
    context.leave(context.enter(A))
    assert context.stack.get() == ()
    assert isinstance(context.stack.get(), tuple)


def test_a_new_thread_starts_unbound_and_binds_for_itself():
    seen = {}

    def other():
        seen["start"] = context.current()
        context.enter(B)
        seen["end"] = context.current()

    before = context.enter(A)
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == {"start": None, "end": B}
    assert context.current() is A
    context.leave(before)


def test_a_hundred_threads_see_only_their_own_tenant():
    barrier = threading.Barrier(20)

    def unit(number):
        mine = TenantContext(f"t{number}", number, {})
        before = context.enter(mine)
        barrier.wait(60)
        seen = context.current()
        context.leave(before)
        return seen is mine and context.current() is None

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(unit, range(100)))


async def test_tasks_bind_for_themselves_and_inherit_a_copy():
    async def task(mine):
        inherited = context.current()
        before = context.enter(mine)
        await asyncio.sleep(0.001)
        seen = context.current()
        context.leave(before)
        return inherited, seen

    outer = context.enter(A)
    tenants = [TenantContext(f"t{n}", n, {}) for n in range(50)]
    seen = await asyncio.gather(*(task(tenant) for tenant in tenants))
    assert seen == [(A, tenant) for tenant in tenants]
    assert context.current() is A
    context.leave(outer)


async def test_a_task_that_pops_leaves_its_parent_bound():
    async def child():
        tls_tenant_manager.pop_tenant_context()
        return context.current()

    before = context.enter(A)
    assert await asyncio.create_task(child()) is None
    assert context.current() is A
    context.leave(before)


def test_a_copied_context_is_independent():
    copy = contextvars.copy_context()
    copy.run(context.enter, A)
    assert copy[context.stack][1:] == (A,)
    assert context.current() is None


def test_pinned_finds_the_tenant_anywhere_on_the_stack():
    before = context.enter(A)
    context.enter(B)
    assert context.pinned("a") is A
    assert context.pinned("b") is B
    assert context.pinned("c") is None
    context.leave(before)


def test_push_and_pop_as_in_a_shell():
    tls_tenant_manager.push_tenant_context(A)
    tls_tenant_manager.push_tenant_context(B)
    assert tls_tenant_manager.current_tenant_context is B
    assert tls_tenant_manager.pop_tenant_context() is B
    assert tls_tenant_manager.current_tenant_context is A
    assert tls_tenant_manager.pop_tenant_context() is A
    assert tls_tenant_manager.current_tenant_context is None


def test_push_of_a_newer_revision_keeps_the_pinned_one():
    tls_tenant_manager.push_tenant_context(A)
    tls_tenant_manager.push_tenant_context(TenantContext("a", 9, {}))
    assert tls_tenant_manager.current_tenant_context is A
    tls_tenant_manager.pop_tenant_context()
    tls_tenant_manager.pop_tenant_context()


def test_pop_without_push_says_so():
    with pytest.raises(TenantContextMissing, match="without a push"):
        tls_tenant_manager.pop_tenant_context()


def test_the_manager_holds_no_state_of_its_own():
    tls_tenant_manager.push_tenant_context(A)
    assert TaskLocalTenantManager().pop_tenant_context() is A


def test_the_current_context_cannot_be_assigned():
    with pytest.raises(AttributeError):
        tls_tenant_manager.current_tenant_context = A


def test_a_denied_context_raises_its_error_afresh_at_each_use():
    denied = DeniedContext("a", TenantSuspended("tenant 'a' is suspended", "a"))
    raised = []
    for _ in range(2):
        with pytest.raises(TenantSuspended, match="is suspended") as caught:
            denied.parts["django_orm"]
        raised.append(caught.value)
    assert raised[0] is not raised[1]
    assert [error.tenant_id for error in raised] == ["a", "a"]
    assert denied.revision == 0
    assert repr(denied) == "<DeniedContext 'a' revision 0>"


def test_a_hook_that_refuses_to_enter_leaves_everything_as_it_was():
    def refuse(unit, old, new, leaving):
        if not leaving and new is B:
            raise TransactionOpen("no")

    before = context.enter(A)
    context.watch(refuse)
    with pytest.raises(TransactionOpen):
        context.enter(B)
    assert context.stack.get()[1:] == (A,)
    context.leave(before)


def test_a_hook_that_raises_when_a_tenant_is_left_cannot_keep_it_bound():
    def complain(unit, old, new, leaving):
        if leaving:
            raise TransactionOpen("no")

    before = context.enter(A)
    context.watch(complain)
    with pytest.raises(TransactionOpen):
        context.leave(before)
    assert context.current() is None


def test_a_hook_is_its_threads_and_not_asked_about_the_same_context():
    calls = []

    def hook(unit, old, new, leaving):
        calls.append((old, new, leaving))

    context.watch(hook)
    another = threading.Thread(target=lambda: context.leave(context.enter(B)))
    another.start()
    another.join()
    before = context.enter(A)
    inner = context.enter(A)
    context.leave(inner)
    context.leave(before)
    context.watch(None)
    context.leave(context.enter(A))
    assert calls == [(None, A, False), (A, None, True)]


def test_the_error_shows_the_two_lines_to_type():
    text = str(context.missing("database alias 'default'"))
    assert "database alias 'default'" in text
    assert "    from tenant_router.context_decorators import tenant_context_bind\n" in text
    assert '    with tenant_context_bind("<tenant id>"): ...' in text
