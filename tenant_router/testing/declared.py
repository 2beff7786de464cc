"""The databases that a test class declares: a template's name covers each test tenant's copy of it.

Django compares connection aliases with ``databases`` when it decides what a test may touch
(``django/test/testcases.py``: ``_validate_databases``, ``_deferredSkip``).
"""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.test import SimpleTestCase

from tenant_router import identity
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.django_orm.connections import TenantConnectionHandler


class Declared(frozenset[str]):
    """Aliases; a tenant's alias counts as its template's."""

    def __contains__(self, alias: object) -> bool:
        if super().__contains__(alias):
            return True
        return isinstance(alias, str) and any(super(Declared, self).__contains__(name) for name in _templates_of(alias))


def install() -> None:
    """Have test classes declare by template; idempotent."""
    if "_tenant_router_original" not in vars(SimpleTestCase):
        original = SimpleTestCase.__dict__["_validate_databases"].__func__
        case: Any = SimpleTestCase
        case._tenant_router_original = original
        case._validate_databases = classmethod(lambda cls: Declared(original(cls)))


def uninstall() -> None:
    """Undo :func:`install`."""
    case: Any = SimpleTestCase
    if "_tenant_router_original" in vars(case):
        case._validate_databases = classmethod(case._tenant_router_original)
        del case._tenant_router_original


def _templates_of(alias: str) -> list[str]:
    if not isinstance(connections, TenantConnectionHandler):
        return []
    return [
        template
        for tenant_id, template in identity.candidates(alias, connections._manager.templates)
        if tenant_context_manager.contains(tenant_id)
    ]
