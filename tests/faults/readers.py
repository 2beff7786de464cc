"""A reader of a store in memory that goes step by step, without a thread and without waiting."""

from __future__ import annotations

import uuid
from collections import deque

from tenant_router.config_store import codec
from tenant_router.config_store.backends.memory import MemoryStore
from tenant_router.config_store.base import DELETED, Op
from tenant_router.config_store.serializers.json import JSONSerializer
from tenant_router.exceptions import RecordInvalid, TenantMisconfigured
from tenant_router.managers.registry import TenantContextManager
from tenant_router.reactive.building import Builder
from tenant_router.reactive.fleet import Reporter
from tenant_router.reactive.pipeline import Pipeline
from tenant_router.reactive.reflector import Reflector
from tenant_router.reactive.synchroniser import Timing

SERIALIZER = JSONSerializer()
REFUSED = "refused"


class Plain:
    """A manager without databases: what it prepares is the configuration itself."""

    def prepare(self, tenant_id, config, previous):
        if config.get("bad"):
            raise RecordInvalid([("bad", "is refused")])
        return config

    def retire(self, previous, current):
        pass

    def expect_stamp(self, prepared, incarnation):
        pass


class NoWaiting:
    """The event that ends a reflector, which nobody ever sets."""

    def is_set(self):
        return False

    def wait(self, seconds=None):
        return False


class Reader:
    """One process: its registry, its pipeline, its reflector."""

    def __init__(self, store, eager_max=5000, **timing):
        self.store, self.registry = store, TenantContextManager()
        plain = Plain()
        builder = Builder({"plain": plain}, plain, SERIALIZER, lambda record: [])
        self.pipeline = Pipeline(self.registry, builder, eager_max)
        reporter = Reporter(store, lambda: None, 45)
        reporter._silenced = True
        self.reflector = Reflector(store, self.pipeline, Timing(idle=0.0, **timing), reporter, None)
        self.reflector._stopping = NoWaiting()

    def step(self, times=1):
        """What the thread does, so many times."""
        for _ in range(times):
            try:
                self.reflector._step()
                self.reflector._failures, self.reflector._reported = 0, None
            except Exception as error:
                self.reflector._failed(error)

    def serves(self):
        """Tenant -> the value that it would be served with here, of those that are not deleted."""
        return {tenant_id: self.value(tenant_id) for tenant_id in self.registry.get_known_ids()}

    def value(self, tenant_id):
        held = self.registry.prepared.get(tenant_id)
        if held is None:
            if tenant_id in self.registry.refusals:
                return REFUSED
            try:
                held = self.pipeline.load(tenant_id, self.store.get_many)
            except TenantMisconfigured:
                return REFUSED
        return held.parts["plain"]["value"]


class Writers:
    """Writes to a store, and what one would find there."""

    def __init__(self, store=None, **options):
        self.store = store or MemoryStore(**options)

    @property
    def content(self):
        return self.store._content

    def put(self, tenant_id, value, bad=False):
        record = {"orm_config": {"plain": {"value": value, "bad": bad}}}
        return self.commit(Op(tenant_id, "A", codec.encode(tenant_id, record, SERIALIZER)))

    def delete(self, tenant_id):
        return self.commit(Op(tenant_id, DELETED))

    def commit(self, *ops):
        return self.store.commit(list(ops), request_id=uuid.uuid4().hex)

    def truth(self):
        """Tenant -> value, of those that are not deleted; a bad record's is ``REFUSED``."""
        found = {}
        for tenant_id, stored in self.content.records.items():
            if stored.state != DELETED:
                plain = codec.decode(tenant_id, stored.body, SERIALIZER)["orm_config"]["plain"]
                found[tenant_id] = REFUSED if plain["bad"] else plain["value"]
        return found

    def trim(self, keep):
        self.content.log = deque(list(self.content.log)[-keep:] if keep else [], maxlen=self.content.log.maxlen)

    def snapshot(self):
        content = self.content
        return content.epoch, content.rev, content.chain, list(content.log), dict(content.records)

    def roll_back(self, snapshot):
        """Come back with an older state, as a server does whose disk lost the latest writes."""
        content = self.content
        content.epoch, content.rev, content.chain, log, records = snapshot
        content.log, content.records = deque(log, maxlen=content.log.maxlen), dict(records)
        content._requests.clear()

    def lose(self, tenant_ids):
        """Forget tenants without deleting them, as half a restore does."""
        for tenant_id in tenant_ids:
            del self.content.records[tenant_id]
