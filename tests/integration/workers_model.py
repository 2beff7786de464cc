"""What the models of random interleavings share: threads that bind tenants, in blocks and in copied contexts."""

import contextvars
import queue
import threading

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tenant_router import context
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantDeleted

WORKERS = 3
WORKER = st.integers(0, WORKERS - 1)


class Worker:
    """A thread that does one thing after the other, and what the model knows of it."""

    def __init__(self):
        self._jobs, self._answers = queue.SimpleQueue(), queue.SimpleQueue()
        self.blocks = []  # (the block, its tenant, the file that its unit of work has pinned)
        self.opened = {}  # tenant -> the connection that its living block has used: it stays open
        self.atomic = None
        self.kept = None  # (a copied context, the unit it was copied in, its tenant, the file pinned there)
        self.unit = None
        threading.Thread(target=self._run, daemon=True).start()

    def do(self, job):
        """What ``job`` returns or raises, in this thread."""
        self._jobs.put(job)
        found, error = self._answers.get(timeout=60)
        try:
            if error is not None:
                raise error
            return found
        finally:
            del error  # its traceback has this frame: a circle, in which ``job`` keeps a context alive

    def _run(self):
        while (job := self._jobs.get()) is not None:
            try:
                self._answers.put((job(), None))
            except BaseException as error:
                self._answers.put((None, error))
            del job  # it may hold a context, which ends with its last holder

    def end(self):
        self._jobs.put(None)


class Workers(RuleBasedStateMachine):
    """``places``: where each tenant has its things, ``None`` once it is deleted; a unit pins that as it begins."""

    def begin_with(self, number):
        self.number, self.version, self.places = number, 0, {}
        self.workers = [Worker() for _ in range(WORKERS)]

    def id_of(self, tenant):
        return f"m{self.number}-{tenant}"

    def use_bound(self, me):
        """Use what is of the tenant that ``me`` has bound."""
        raise NotImplementedError

    def left(self, me, tenant):
        """``me`` has left a block of a tenant."""

    def looked(self):
        """What must hold, also in between."""
        raise NotImplementedError

    def delete_everywhere(self, tenants, tenant):
        tenants.delete(self.id_of(tenant))
        tenants.runtime.reflector.synchronise()
        self.places[tenant] = None

    def bind_in(self, me, tenant, uses):
        pinned = next((place for _, bound, place in me.blocks if bound == tenant), self.places[tenant])
        block = tenant_context_bind(self.id_of(tenant))
        try:
            me.do(block.__enter__)
        except TenantDeleted:
            assert pinned is None
            return
        assert pinned is not None
        me.blocks.append((block, tenant, pinned))
        me.unit = me.do(lambda: context.stack.get()[0])
        if uses:
            self.use_bound(me)

    def serve_in(self, me, tenants):
        """One unit of work after the other, or one tenant after the other within a block."""
        for tenant in tenants:
            depth = len(me.blocks)
            self.bind_in(me, tenant, True)
            self.looked()
            if len(me.blocks) > depth:
                self.leave(me)

    def bound(self, worker):
        bound = [each for each in self.workers if each.blocks]
        return bound[worker % len(bound)]

    def leave(self, me):
        block, tenant, _ = me.blocks.pop()
        me.do(lambda: block.__exit__(None, None, None))
        if not me.blocks:
            me.unit = None
        self.left(me, tenant)

    @precondition(lambda self: any(worker.blocks for worker in self.workers))
    @rule(worker=WORKER)
    def leave_block(self, worker):
        self.leave(self.bound(worker))

    @rule(worker=WORKER)
    def thread_ends(self, worker):
        me = self.workers[worker]
        if not me.blocks:
            me.end()
            self.workers[worker] = Worker()

    # --- what outlives its unit, or runs in another thread within it ---

    @precondition(lambda self: any(worker.blocks for worker in self.workers))
    @rule(worker=WORKER, other=WORKER, leaves=st.booleans())
    def copy(self, worker, other, leaves):
        me, to = self.bound(worker), self.workers[other]
        tenant, pinned = me.blocks[-1][1:]
        to.kept = (me.do(contextvars.copy_context), me, me.unit, tenant, pinned)
        to.renewed, to.denied = None, False
        while leaves and me.blocks:
            self.leave(me)

    def living(self):
        """The units that are not over, of blocks and of copies."""
        kept = [me.kept[0].get(context.stack) for me in self.workers if me.kept]
        found = [me.unit for me in self.workers if me.unit is not None] + [stack[0] for stack in kept if stack]
        return {unit for unit in found if not unit.over}
