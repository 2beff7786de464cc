"""The databases that new tenants' are copied from: kept as this release wants them, and stamped as nobody's."""

from __future__ import annotations

from collections.abc import Iterator

from tenant_router.exceptions import ProvisioningError, one_line
from tenant_router.fleet.locks import Locks
from tenant_router.lifecycle.migrating import Migrator
from tenant_router.orm_backends.base import BaseOrmManager, BaseOrmProvisioner
from tenant_router.runtime import Runtime
from tenant_router.tenant_context import FixedContext

TENANT = "@reference"  # what stands for a tenant's id


def refresh_reference(runtime: Runtime) -> list[str]:
    """Make and migrate the reference databases of every ORM that can make any; returns what there is now.

    Raises ``ProvisioningError``, ``Locked``, ``StoreError``.
    """
    locks, refreshed = Locks(runtime.store), list[str]()
    for manager, provisioner in provisioners(runtime):
        with locks.holding(f"provision:{TENANT}:{manager.orm_id}"):
            try:
                refreshed += _refresh(runtime, locks, manager, provisioner)
            except Exception as error:
                raise ProvisioningError(
                    f"the reference of {manager.orm_id} is not refreshed: {one_line(error)}"
                ) from error
    return refreshed


def _refresh(runtime: Runtime, locks: Locks, manager: BaseOrmManager, provisioner: BaseOrmProvisioner) -> list[str]:
    context = reference_context(runtime, manager, provisioner)
    with provisioner.refreshing(runtime.conf.service):
        try:
            Migrator(runtime, locks).migrate([manager], context)
        finally:
            manager.retire(context.parts[manager.orm_id], None)
    return [f"{manager.orm_id}.{alias}" for alias in manager.template_aliases]


def provisioners(runtime: Runtime) -> Iterator[tuple[BaseOrmManager, BaseOrmProvisioner]]:
    """Each ORM that makes databases, with what makes them."""
    for manager in runtime.orms.values():
        provisioner = manager.provisioner
        if provisioner is not None and manager.template_aliases:
            yield manager, provisioner


def reference_context(runtime: Runtime, manager: BaseOrmManager, provisioner: BaseOrmProvisioner) -> FixedContext:
    """What is bound while the reference databases of one ORM are migrated."""
    cache = runtime.caches.prepare(TENANT, {}, None)
    return FixedContext(TENANT, 0, {manager.orm_id: provisioner.reference(runtime.conf.service), "cache": cache})
