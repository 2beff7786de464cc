"""What a process tells of itself: its line in the fleet's status, and whether the bound tenant's databases answer."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping

from tenant_router import __version__
from tenant_router.managers.registry import TenantContextManager
from tenant_router.orm_backends.base import BaseOrmManager
from tenant_router.reactive.fleet import REFUSALS_TOLD, Member
from tenant_router.reactive.reflector import Reflector


def describe(role: str, reflector: Reflector, registry: TenantContextManager) -> Member:
    """This process in its ``role``, as the fleet's status shows it."""
    head = reflector.head
    refusals = {tenant_id: refusal.revision for tenant_id, refusal in [*registry.refusals.items()]}
    refusals.update(registry.wrong_databases)
    latest = sorted(refusals.items(), key=lambda item: -item[1])[:REFUSALS_TOLD]
    return Member(
        host=socket.gethostname(),
        pid=os.getpid(),
        role=role,
        version=__version__,
        epoch=head.epoch if head else "",
        revision=head.rev if head else 0,
        chain=head.chain if head else "",
        state=reflector.state,
        tenants=len(registry.get_known_ids()),
        loaded=len(registry.prepared),
        refused=len(refusals),
        refusals=dict(latest),
    )


def check_health(orms: Mapping[str, BaseOrmManager]) -> Iterator[tuple[str, str, Exception | None]]:
    """Ask each database of the bound tenant; ``(orm, template alias, what went wrong)``."""
    for manager in orms.values():
        for alias in manager.template_aliases:
            try:
                manager.check_health(alias)
            except Exception as error:  # of any driver
                yield manager.orm_id, alias, error
            else:
                yield manager.orm_id, alias, None
