"""Helpers for tests that need tenants in the runtime of this process."""

import gc
import time
import uuid
import warnings

from django.core.management import call_command

from tenant_router.config_store import codec
from tenant_router.config_store.base import DELETED, Op
from tenant_router.context_decorators import tenant_context_bind


class Tenants:
    """Writes tenants into the store of ``runtime``, as another process would."""

    def __init__(self, runtime, directory):
        self.runtime, self.directory = runtime, directory

    def record(self, name, **extra):
        """A record whose database is the SQLite file ``name``.db in the test's directory."""
        return {"orm_config": {"django_orm": {"default": {"NAME": str(self.directory / f"{name}.db")}}}, **extra}

    def put(self, tenant_id, record=None, state="A", migrate=False):
        """Create or change a tenant; its database is named after it unless ``record`` says otherwise."""
        record = self.record(tenant_id) if record is None else record
        body = codec.encode(tenant_id, record, self.runtime.serializer)
        revision = self.commit(Op(tenant_id, state, body))
        if migrate:
            self.migrate(tenant_id)
        return revision

    def delete(self, tenant_id):
        return self.commit(Op(tenant_id, DELETED))

    def commit(self, *ops):
        return self.runtime.store.commit(list(ops), request_id=uuid.uuid4().hex)

    def migrate(self, *tenant_ids):
        """Create the tables of these tenants' databases."""
        for tenant_id in tenant_ids:
            self.arrived(tenant_id)
            with tenant_context_bind(tenant_id):
                call_command("migrate", verbosity=0)

    def arrived(self, tenant_id, revision=1):
        """Wait until this process has taken the tenant over at ``revision`` or later, and let go of what was before."""
        pipeline, reflector = self.runtime.pipeline, self.runtime.reflector
        eventually(lambda: pipeline.revision_of(tenant_id) >= revision)
        # A change is announced before what it replaces is let go of; the head moves when all of it is done.
        eventually(lambda: reflector.head and reflector.head.rev >= pipeline.revision_of(tenant_id))
        with pipeline._lock:  # for a record that was looked up, and not brought by the reflector
            pass


def eventually(condition, timeout=60.0):
    """Wait until ``condition()`` is true and return what it returned; fail after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() >= deadline  # before the look: a standstill in between leaves one look more
        found = condition()
        if found:
            return found
        assert not late, f"not true within {timeout} s"
        time.sleep(0.005)


def collect_garbage():
    """Collect what earlier tests left in cycles; a socket among it is their matter and not the caller's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
