"""Units of work, and what is bound in them over random interleavings."""

import asyncio
import contextvars
import copy
import gc
import os
import pickle
import queue
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tenant_router import context, propagation
from tenant_router import unit_of_work as units
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantDeleted
from tenant_router.generators import Steps
from tenant_router.managers.task_local import tls_tenant_manager
from tenant_router.runtime import executors
from tenant_router.runtime.process_tenant import process_tenant
from tenant_router.tenant_context import DeniedContext, NamedContext, TenantContext

SCHEDULES = int(os.environ.get("TENANT_ROUTER_SCHEDULES", "200"))


class Used:
    """A resource of a unit of work."""

    def __init__(self, tenant_id="a", rests=True):
        self.tenant_id, self.rests, self.in_atomic_block, self.left = tenant_id, rests, not rests, []
        self.abandoned = 0

    def left_by(self, unit):
        self.left.append(unit)

    def may_rest(self):
        return self.rests

    def is_abandoned(self):
        self.abandoned += 1


class World:
    """The tenants there are, by id, as the registry would have them."""

    def __init__(self):
        self.current = {}

    def find_again(self, found):
        if isinstance(found, DeniedContext):
            return found
        if found.id not in self.current:
            raise TenantDeleted(f"tenant {found.id!r} was deleted", found.id)
        return self.current[found.id]

    def change(self, tenant_id):
        held = self.current.get(tenant_id)
        self.current[tenant_id] = TenantContext(tenant_id, held.revision + 1 if held else self.next_life(), {})

    def delete(self, tenant_id):
        held = self.current.pop(tenant_id, None)
        if held:
            self.lives = held.revision + 1

    lives = 1

    def next_life(self):
        return self.lives + 1


@pytest.fixture
def world(monkeypatch):
    """Tenants ``a`` and ``b`` of no store, and executors that carry them."""
    made = World()
    made.change("a")
    made.change("b")
    monkeypatch.setattr(context, "find_again", made.find_again)
    monkeypatch.setattr(context, "_thread", threading.local())
    carried = bool(executors._originals)
    executors.install()
    yield made
    if not carried:
        executors.uninstall()
    assert context.stack.get() == ()


# --- units ---


def test_a_unit_lets_go_once_of_what_it_used():
    unit, used = units.Current(), Used()
    assert unit.use(used)
    assert unit.use(used)
    unit.end()
    unit.end()
    assert used.left == [unit]
    assert not unit.use(used), "it is over"
    assert used.left == [unit, unit]


def test_what_may_not_rest_stays_in_use_while_the_unit_goes_on():
    unit, busy, idle, other = units.Current(), Used(rests=False), Used(), Used("b")
    for used in (busy, idle, other):
        unit.use(used)
    unit.leave("a")
    assert (busy.left, idle.left, other.left) == ([], [unit], [])
    unit.end()
    assert (busy.left, idle.left, other.left) == ([unit], [unit], [unit])


def test_a_unit_that_is_garbage_lets_go_when_somebody_looks():
    unit, used = units.Current(), Used()
    unit.use(used)
    del unit
    gc.collect()
    assert (used.left, used.abandoned) == ([], 1)
    units.release_abandoned()
    assert len(used.left) == 1


def test_many_threads_end_one_unit_once():
    unit, used = units.Current(), [Used() for _ in range(200)]
    for each in used:
        unit.use(each)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(unit.end)
    assert all(each.left == [unit] for each in used)


# --- the tenant of a process ---


def test_a_commands_tenant_begins_a_unit_in_each_thread_at_its_revision_of_then(world):
    def seen():
        found = context.bound()
        return found[-1].id, found[-1].revision, found[0]

    with process_tenant("a"):
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(lambda: (seen(), seen())).result()
            world.change("a")
            second = pool.submit(seen).result()
        assert first[0] == first[1]
        assert (first[0][:2], second[:2]) == (("a", 1 + world.lives), ("a", 2 + world.lives))
        assert first[0][2].over
        world.delete("a")
        denied = contextvars.Context().run(context.current)
        assert isinstance(denied, DeniedContext)
        world.change("a")
        assert not isinstance(contextvars.Context().run(context.current), DeniedContext)
        assert context.current_id() == "a"
    assert context.current() is None


def test_a_test_runs_tenant_is_not_replaced(world, monkeypatch):
    monkeypatch.setattr(context, "testing", True)
    with process_tenant("a"):
        assert context.ambient == ()
    context.set_process_tenant("a")
    assert context.ambient == ()


def test_a_named_tenant_stays_to_be_found_where_nothing_can_find_it(monkeypatch):
    monkeypatch.setattr(context, "find_again", lambda found: found)
    before = context.enter(TenantContext("a", 1, {}))
    job = pickle.loads(pickle.dumps(propagation.submitted(context.bound)))
    context.leave(before)
    found = job()
    assert (found[0].over, found[-1].id, type(found[-1])) == (True, "a", NamedContext)


# --- a model over random interleavings ---


class Flow:
    """One line of execution: a thread, a task or a copied context, driven step by step, and what it may see.

    ``mine``: the model's stack of (unit, tenant, revision); a unit is ``[over, pins]``.
    """

    def __init__(self, schedule, kept, mine):
        self.schedule, self.kept, self.mine, self.before = schedule, kept, mine, []
        self.generators = []

    def run(self, function, *args):
        return self.schedule.in_some_thread(self.kept, function, *args)


class Schedule:
    """Random steps of several flows. After each, what is bound is what the model says."""

    def __init__(self, seed, world, threads):
        self.random, self.world, self.threads = random.Random(seed), world, threads
        self.flows = [Flow(self, contextvars.Context(), ()) for _ in range(3)]

    def in_some_thread(self, kept, function, *args):
        return self.random.choice(self.threads).do(lambda: kept.run(function, *args))

    def go(self):
        steps = [self.bind, self.bind, self.leave, self.push, self.copy, self.job, self.late_job, self.step]
        steps += [self.change, self.delete, self.look, self.look]
        for _ in range(25):
            self.random.choice(steps)(self.random.choice(self.flows))
            for flow in self.flows:
                if self.random.random() < 0.4:
                    self.look(flow)

    # what the model expects

    def renewed(self, mine):
        """The model's stack after a use: if its unit is over, each tenant at its current revision in a new one."""
        if mine and mine[0][0]["over"]:
            unit = {"over": False}
            return tuple((unit, tenant, self.again(tenant, held)) for _, tenant, held in mine)
        return mine

    def again(self, tenant, held):
        """What is bound where ``held`` was: who was denied once is denied for good, also when it exists again."""
        return self.revision(tenant) if held is not None else None

    def revision(self, tenant):
        held = self.world.current.get(tenant)
        return held.revision if held else None

    def check(self, seen, mine):
        expected = (mine[-1][1], mine[-1][2]) if mine else None
        assert seen == expected, (seen, expected)

    @staticmethod
    def seen():
        found = context.current()
        return found and (found.id, None if isinstance(found, DeniedContext) else found.revision)

    # steps

    def look(self, flow):
        flow.mine = self.renewed(flow.mine)
        self.check(flow.run(self.seen), flow.mine)

    def bind(self, flow):
        tenant = self.random.choice("ab")
        mine = self.renewed(flow.mine)
        pinned = next((held for _, bound, held in reversed(mine) if bound == tenant), self.revision(tenant))
        if pinned is None and all(bound != tenant for _, bound, _ in mine):
            return
        flow.mine = mine
        if tenant in [bound for _, bound, _ in flow.mine]:
            found = flow.run(context.pinned, tenant)
        else:
            found = self.world.current[tenant]
        flow.before.append((flow.run(context.enter, found), flow.mine))
        unit = flow.mine[0][0] if flow.mine else {"over": False}
        flow.mine = (*flow.mine, (unit, tenant, pinned))

    def leave(self, flow):
        if not flow.before:
            return
        before, mine = flow.before.pop()
        ending = flow.mine[0][0] if flow.mine else None
        flow.run(context.leave, before)
        if ending is not None and (not mine or mine[0][0] is not ending):
            ending["over"] = True
        flow.mine = mine

    def push(self, flow):
        """In a job, and never popped: it ends with the job."""
        tenant = self.random.choice("ab")
        held = self.world.current.get(tenant)
        if held is not None:
            flow.run(propagation.run_as, flow.run(context.stack.get), context.enter, held)

    def copy(self, flow):
        if len(self.flows) < 6:
            self.flows.append(Flow(self, flow.run(contextvars.copy_context), flow.mine))

    def job(self, flow):
        """Submitted to a thread that somebody has left bound."""
        seen = flow.run(lambda: self.pool.submit(self.seen).result())
        self.check(seen, self.renewed(flow.mine))

    def late_job(self, flow):
        """Submitted, pickled or not, and run after other things have happened."""
        mine = flow.mine
        job = flow.run(propagation.submitted, self.seen)
        crosses = self.random.random() < 0.5
        if crosses:
            job = _across(job)
        self.change(flow) if self.random.random() < 0.5 else self.delete(flow)
        if self.random.random() < 0.5:
            self.leave(flow)
        stale = TenantContext("stale", 1, {})
        seen = self.random.choice(self.threads).do(lambda: contextvars.Context().run(_after, stale, job))
        if mine and (crosses or mine[0][0]["over"]):
            mine = ((None, mine[-1][1], self.again(*mine[-1][1:])),)
        self.check(seen, mine)

    def step(self, flow):
        """A generator's step, by whoever makes it, sees the generator's tenant and leaves the consumer's."""
        if not flow.generators:
            mine = self.renewed(flow.mine)
            if not mine:
                return
            flow.mine = mine
            flow.run(self.seen)
            flow.generators = [Steps(flow.run(context.stack.get)), mine]
        steps, mine = flow.generators
        other = self.random.choice(self.flows)
        other.mine = self.renewed(other.mine)

        def one():
            context.bound()
            with steps:
                return self.seen()

        mine = flow.generators[1] = self.renewed(mine)
        self.check(other.run(one), mine)
        self.look(other)

    def change(self, flow):
        self.world.change(self.random.choice("ab"))

    def delete(self, flow):
        if self.random.random() < 0.5:
            self.world.delete(self.random.choice("ab"))


def _across(job):
    """As another process would have it: by the tenant's id."""
    make, (found, function, args, keywords) = job.__reduce__()
    return make(copy.copy(found), function, args, keywords)


def _after(stale, job):
    context.enter(stale)
    seen = job()
    assert context.stack.get()[-1] is stale
    return seen


class Thread:
    """Does one thing after the other."""

    def __init__(self):
        self.jobs, self.answers = queue.SimpleQueue(), queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while (job := self.jobs.get()) is not None:
            try:
                self.answers.put((job(), None))
            except BaseException as error:
                self.answers.put((None, error))

    def do(self, job):
        self.jobs.put(job)
        found, error = self.answers.get(timeout=60)
        if error is not None:
            raise error
        return found


@pytest.mark.timeout(300)
def test_what_is_bound_is_never_anothers_nor_older_than_its_unit_nor_deleted_after_it(world):
    threads = [Thread() for _ in range(3)]
    try:
        with ThreadPoolExecutor(1, initializer=lambda: context.enter(TenantContext("stale", 1, {}))) as Schedule.pool:
            for seed in range(SCHEDULES):
                schedule = Schedule(seed, world, threads)
                try:
                    schedule.go()
                except AssertionError as error:
                    raise AssertionError(f"schedule {seed}: {error}") from error
    finally:
        for thread in threads:
            thread.jobs.put(None)


def test_tasks_of_asyncio_share_the_unit_and_resolve_again_after_it(world):
    async def later(go):
        first = context.current()
        await go.wait()
        return first.revision, context.current().revision

    async def main():
        go = asyncio.Event()
        before = context.enter(world.current["a"])
        task = asyncio.create_task(later(go))
        await asyncio.sleep(0)
        world.change("a")
        context.leave(before)
        go.set()
        return await task

    first, second = asyncio.run(main())
    assert second == first + 1


# --- blocks that end out of turn ---


def held(found):
    with tenant_context_bind(found):
        yield


class OutOfTurn:
    """Blocks in generators that end in any order, some of them within another block."""

    def __init__(self, world):
        self.world, self.held, self.units = world, [], set()

    def go(self, steps):
        for step, tenant_id, index in steps:
            getattr(self, step)(tenant_id, index)
            self.units.update(context.stack.get()[:1])
        while self.held:
            self.held.pop().close()
        assert context.stack.get() == ()
        assert all(unit.over for unit in self.units)

    def begin(self, tenant_id, index):
        self.held.append(held(self.world.current[tenant_id]))
        next(self.held[-1])
        assert context.current().id == tenant_id

    def end(self, tenant_id, index):
        if self.held:
            self.held.pop(index % len(self.held)).close()

    def end_within_a_block(self, tenant_id, index):
        with tenant_context_bind(self.world.current[tenant_id]):
            self.end(tenant_id, index)
            assert context.current().id == tenant_id

    def push(self, tenant_id, index):
        with tenant_context_bind(self.world.current[tenant_id]):
            tls_tenant_manager.push_tenant_context(self.world.current["a"])

    def change(self, tenant_id, index):
        self.world.change(tenant_id)


WITHIN_B = ("end_within_a_block", "b", 0)
STEPS = st.sampled_from(["begin", "begin", "end", "end_within_a_block", "push", "change"])


def test_blocks_in_generators_may_end_in_any_order(world):
    """Who has bound a tenant by a block of its own finds that one, and nothing stays bound."""

    @settings(max_examples=SCHEDULES)
    @given(st.lists(st.tuples(STEPS, st.sampled_from("ab"), st.integers(0, 5)), max_size=14))
    @example([("begin", "a", 0), ("begin", "b", 0), ("end", "a", 0)])
    @example([("begin", "a", 0), ("end_within_a_block", "b", 0)])
    @example([("begin", "a", 0), ("begin", "b", 0), ("end_within_a_block", "b", 1)])
    @example([*[("begin", "a", 0)] * 2, ("begin", "b", 0), ("end", "a", 0), ("end_within_a_block", "a", 0)])
    @example([*[("begin", "a", 0)] * 3, ("begin", "b", 0), *[("end", "a", 0)] * 2, ("end_within_a_block", "a", 0)])
    @example([*[("begin", t, 0) for t in "bab"], ("end", "a", 0), ("begin", "a", 0), ("end", "a", 0), WITHIN_B])
    def check(steps):
        contextvars.Context().run(OutOfTurn(world).go, steps)

    check()
