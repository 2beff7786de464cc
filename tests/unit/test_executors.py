"""What is submitted to an executor runs as the tenant that submitted it, in threads and in processes."""

import asyncio
import contextvars
import functools
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.test import override_settings

from tenant_router import context, propagation
from tenant_router.context_decorators import carry_tenant, tenant_context_bind
from tenant_router.exceptions import TenantDeleted, TenantRouterError
from tenant_router.managers import tenant_context_manager
from tenant_router.managers.task_local import tls_tenant_manager
from tenant_router.runtime import executors
from tenant_router.tenant_context import DeniedContext, TenantContext

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
ROOT = Path(__file__).resolve().parents[2]


def bound(*ignored):
    current = context.current()
    return current and current.id


def revision():
    return context.current().revision


def push_b():
    tls_tenant_manager.push_tenant_context(tenant_context_manager.get_by_id("b"))
    return bound()


class Thing:
    def who(self, number=0, *, more=""):
        return bound(), number, more


@pytest.fixture(autouse=True)
def ab(tenants):
    """Two tenants; nothing of their databases is opened."""
    tenants.put("a")
    tenants.put("b")
    tenants.arrived("b")
    return tenants


@pytest.fixture
def pool():
    """One thread, so that each job has a predecessor there."""
    with ThreadPoolExecutor(1) as made:
        yield made


def move(tenants, tenant_id):
    found = tenants.put(tenant_id, tenants.record(f"{tenant_id}-moved"))
    tenants.arrived(tenant_id, found)
    return found


# --- threads ---


def test_a_job_runs_as_its_submitter(pool):
    with tenant_context_bind("a"):
        job = pool.submit(bound)
    with tenant_context_bind("b"):
        assert pool.submit(bound).result() == "b"
    assert job.result() == "a"
    assert pool.submit(bound).result() is None


def test_every_kind_of_function_and_every_argument_arrives(pool):
    with tenant_context_bind("a"):
        assert pool.submit(Thing().who, 1, more="x").result() == ("a", 1, "x")
        assert pool.submit(functools.partial(Thing().who, 2), more="y").result() == ("a", 2, "y")
        assert pool.submit(carry_tenant(bound)).result() == "a"
        assert list(pool.map(Thing().who, [1, 2])) == [("a", 1, ""), ("a", 2, "")]
        coroutine = pool.submit(asyncio.sleep, 0).result()
        assert asyncio.iscoroutine(coroutine)
        coroutine.close()
        with pytest.raises(TypeError):
            pool.submit(None).result()
    with pytest.raises(TypeError):
        pool.submit()


def test_what_a_predecessor_pushed_and_never_popped_binds_nobody(pool):
    assert pool.submit(push_b).result() == "b"
    assert pool.submit(bound).result() is None
    with tenant_context_bind("a"):
        assert pool.submit(push_b).result() == "b"
        assert pool.submit(bound).result() == "a"
    assert pool.submit(bound).result() is None


def test_what_an_initializer_pushes_binds_no_job():
    with ThreadPoolExecutor(1, initializer=push_b) as pool:
        assert pool.submit(bound).result() is None


def test_an_initializer_is_nobodys():
    seen = []
    with tenant_context_bind("a"), ThreadPoolExecutor(1, initializer=lambda: seen.append(bound())) as pool:
        assert pool.submit(bound).result() == "a"
    assert seen == [None]


def test_what_a_job_pushed_ends_with_it(pool):
    units = []

    def job():
        push_b()
        units.append(context.stack.get()[0])

    pool.submit(job).result()
    assert units[0].over


def test_a_job_may_pop_what_it_was_submitted_with(pool):
    def job():
        tls_tenant_manager.pop_tenant_context()
        return bound(), push_b()

    with tenant_context_bind("a"):
        assert pool.submit(job).result() == (None, "b")
        assert bound() == "a"
        assert not context.stack.get()[0].over


def test_a_job_shares_the_unit_of_its_submitter_and_does_not_end_it(pool):
    with tenant_context_bind("a"):
        unit = context.stack.get()[0]
        assert pool.submit(lambda: context.stack.get()[0]).result() is unit
        assert not unit.over
    assert unit.over


def test_a_job_of_a_living_unit_keeps_its_revision_after_a_change(pool, ab):
    with tenant_context_bind("a") as pinned:
        latest = move(ab, "a")
        assert pool.submit(revision).result() == pinned.revision
    with tenant_context_bind("a"):
        assert pool.submit(revision).result() == latest


def test_a_job_that_outlives_its_unit_goes_on_at_the_current_revision(pool, ab):
    go_on = threading.Event()

    def job():
        first = revision()
        started.set()
        assert go_on.wait(60)
        return first, revision(), context.stack.get()[0]

    started = threading.Event()
    with tenant_context_bind("a") as pinned:
        late = pool.submit(job)
        assert started.wait(60)
    latest = move(ab, "a")
    go_on.set()
    first, second, unit = late.result()
    assert (first, second) == (pinned.revision, latest)
    assert unit.over, "its own unit ends with the job"


def test_a_job_that_begins_after_its_unit_has_the_current_revision_or_is_refused(pool, ab):
    go_on = threading.Event()
    pool.submit(go_on.wait, 60)
    with tenant_context_bind("a"):
        changed = pool.submit(revision)
    with tenant_context_bind("b"):
        refused = pool.submit(lambda: context.current().parts["django_orm"])
        unused = pool.submit(lambda: "nothing of a tenant")
    latest = move(ab, "a")
    ab.arrived("b", ab.delete("b"))
    go_on.set()
    assert changed.result() == latest
    with pytest.raises(TenantDeleted):
        refused.result()
    assert unused.result() == "nothing of a tenant"


def test_a_callback_runs_as_who_added_it(pool):
    seen, go_on = [], threading.Event()

    def note(future):
        seen.append((bound(), future.result()))

    with tenant_context_bind("a"):
        job = pool.submit(lambda: go_on.wait(60) and bound())
    with tenant_context_bind("b"):
        job.add_done_callback(note)
    job.add_done_callback(lambda _: push_b())
    job.add_done_callback(note)
    go_on.set()
    pool.submit(bound).result()
    with tenant_context_bind("a"):
        job.add_done_callback(note)
        assert bound() == "a"
    assert seen == [("b", "a"), (None, "a"), ("a", "a")]


def test_an_error_and_a_cancelled_job_come_back_as_ever(pool):
    go_on = threading.Event()
    with tenant_context_bind("a"):
        pool.submit(go_on.wait, 60)
        cancelled = pool.submit(bound)
        assert cancelled.cancel()
        go_on.set()
        with pytest.raises(ZeroDivisionError):
            pool.submit(divmod, 1, 0).result()
    assert pool.submit(bound).result() is None


async def test_the_executors_of_asyncio_and_asgiref():
    loop = asyncio.get_running_loop()
    async with tenant_context_bind("a"):
        assert await loop.run_in_executor(None, bound) == "a"
        assert await asyncio.to_thread(bound) == "a"
        assert await sync_to_async(bound)() == "a"
        assert await sync_to_async(bound, thread_sensitive=False)() == "a"
        assert await asyncio.to_thread(async_to_sync(sync_to_async(bound))) == "a"
    await loop.run_in_executor(None, push_b)
    await asyncio.to_thread(push_b)
    for _ in range(20):
        assert await loop.run_in_executor(None, bound) is None
        assert await asyncio.to_thread(bound) is None
        assert await sync_to_async(bound)() is None


def test_executors_of_others_are_left_alone():
    class Inline(Executor):
        def submit(self, fn, /, *args, **kwargs):
            self.given = fn
            future = Future()
            future.set_result(fn(*args, **kwargs))
            return future

    class Counting(ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            self.given = fn
            return super().submit(fn, *args, **kwargs)

    inline = Inline()
    with tenant_context_bind("a"), Counting(1) as counting:
        assert inline.submit(bound).result() == counting.submit(bound).result() == "a"
    assert inline.given is counting.given is bound


def test_the_patches_are_made_once_and_undone(fresh_runtime):
    patched = ThreadPoolExecutor.submit
    executors.install()
    assert ThreadPoolExecutor.submit is patched
    executors.uninstall()
    executors.uninstall()
    plain = [vars(owner)[name] for owner, name in executors._PATCHED]
    assert not any(hasattr(function, "__wrapped__") for function in plain)
    executors.install()
    assert ThreadPoolExecutor.submit.__wrapped__ is plain[0]


def test_carrying_is_a_setting(fresh_runtime):
    with override_settings(TENANT_ROUTER_CONTEXT_SETTINGS={"CARRY_INTO_EXECUTORS": False}):
        fresh_runtime()
        assert not hasattr(ThreadPoolExecutor.submit, "__wrapped__")
        before = context.enter(TenantContext("a", 1, {}))
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(bound).result() is None
        context.leave(before)


# --- processes ---


def test_what_is_submitted_can_be_pickled_and_finds_its_tenant_at_its_first_use(ab):
    with tenant_context_bind("a") as old:
        pickled = pickle.dumps(propagation.submitted(revision))
        using = pickle.dumps(propagation.submitted(parts))
        denied = pickle.dumps(propagation.submitted(Thing().who))
        assert pickle.loads(pickle.dumps(pickle.loads(denied)))(3) == ("a", 3, "")
    unbound = pickle.dumps(propagation.submitted(bound))
    latest = move(ab, "a")
    assert pickle.loads(pickled)() == latest > old.revision
    assert bound() is None
    with tenant_context_bind("b"):
        assert pickle.loads(denied)() == ("a", 0, "")
        assert pickle.loads(unbound)() is None
        assert bound() == "b"
    ab.arrived("a", ab.delete("a"))
    with pytest.raises(TenantDeleted):
        pickle.loads(using)()


def parts():
    return context.current().parts["django_orm"]


def test_what_is_denied_stays_denied_in_another_process():
    before = context.enter(DeniedContext("a", TenantDeleted("no", "a")))
    pickled = pickle.dumps(propagation.submitted(parts))
    context.leave(before)
    with pytest.raises(TenantRouterError):
        pickle.loads(pickled)()


def test_a_forked_pool_of_a_module_serves_each_submitter():
    """Its processes are made under the first tenant."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork"), initializer=push_in_a_child) as pool:
        with tenant_context_bind("a"):
            assert pool.submit(named).result(60) == "a"
        with tenant_context_bind("b"):
            assert pool.submit(named).result(60) == "b"
            assert list(pool.map(Named().who, [1, 2], chunksize=2)) == [("b", 1), ("b", 2)]
            assert pool.submit(push_a).result(60) == "a"
        assert pool.submit(named).result(60) is None
        with pytest.raises((pickle.PicklingError, AttributeError)):
            pool.submit(lambda: None).result(60)


def named():
    """Who is to be bound, without finding it: a child must not ask the store in memory, whose locks may be held."""
    found = context.stack.get()
    return found[-1].id if found else None


class Named:
    def who(self, number):
        return named(), number


def push_in_a_child():
    assert bound() is None
    context.begin(TenantContext("initializer", 1, {}))


def push_a():
    context.begin(TenantContext("a", 1, {}))
    return named()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_that_knows_no_django_runs_what_uses_no_tenant(method):
    """Nothing of Django is set up there, and nothing needs it."""
    with (
        tenant_context_bind("a"),
        ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool,
    ):
        assert pool.submit(os.path.basename, "/x/y").result(60) == "y"
        code = "__import__('sys').modules.keys() & {'django.conf', 'tenant_router.managers', 'tenant_router.runtime'}"
        assert pool.submit(eval, code).result(60) == set()


def test_what_is_logged_while_a_tenant_is_found_does_not_wait_for_itself(monkeypatch):
    with tenant_context_bind("a"):
        job = pickle.loads(pickle.dumps(propagation.submitted(bound)))
    seen, find_again = [], context.find_again

    def logging(found):
        seen.append((bound(), context.current_id()))
        return find_again(found)

    monkeypatch.setattr(context, "find_again", logging)
    assert job() == "a"
    assert seen == [(None, "a")]


# --- forks ---


def in_fork(function, *arguments):
    """What ``function`` returned in a child of ``os.fork``, as text."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, str(function(*arguments)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        answer = stream.read()
    os.waitpid(pid, 0)
    return answer


def test_a_forked_child_is_unbound_wherever_it_was_forked():
    def steps():
        yield in_fork(bound)

    async def task():
        return in_fork(bound)

    with tenant_context_bind("a"):
        assert in_fork(bound) == "None"
        assert contextvars.copy_context().run(in_fork, bound) == "None"
        assert next(tenant_context_bind("b")(steps)()) == "None"
        assert asyncio.run(tenant_context_bind("b")(task)()) == "None"
        assert bound() == "a"


def test_a_child_that_was_forked_in_a_copied_context_is_unbound_around_it_too():
    reading, writing = os.pipe()
    with tenant_context_bind("a"):
        kept = contextvars.copy_context()
        pid = kept.run(os.fork)
        if pid == 0:
            try:
                os.write(writing, str((bound(), kept.run(bound))).encode())
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        assert stream.read() == "(None, None)"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_process_of_multiprocessing_starts_unbound(method, tmp_path):
    script = tmp_path / "children.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import multiprocessing, sys
            sys.path.insert(0, {str(ROOT)!r})
            from tenant_router import context, tenant_context

            def who(_=None):
                current = context.current()
                return current and current.id

            def tell(answers):
                answers.put(who())

            if __name__ == "__main__":
                method = multiprocessing.get_context({method!r})
                context.enter(tenant_context.TenantContext("a", 1, {{}}))
                answers = method.SimpleQueue()
                child = method.Process(target=tell, args=(answers,))
                child.start()
                child.join()
                with method.Pool(1) as pool:
                    print(who(), answers.get(), pool.map(who, [1]), pool.apply(who))
            """
        )
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "a None [None] None\n", done.stderr
