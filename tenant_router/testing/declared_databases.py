"""Which databases a test may use: what its class declares in ``databases`` and ``tenants``, and no others.

Django compares connection aliases with ``databases`` when it decides what a test may touch
(``django/test/testcases.py``: ``_validate_databases``, ``_add_databases_failures``). A template's
name covers the test tenant's own alias, and the copies of the other tenants that the test names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connection, connections
from django.test import SimpleTestCase, testcases
from django.test.testcases import _DatabaseFailure
from django.utils.connection import ConnectionProxy

from tenant_router import identity
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.django_orm.connections import TenantConnectionHandler, template_of
from tenant_router.orm_backends.django_orm.databases import Database

TENANTS = "tenants_of_the_test"  # an attribute of test classes: the other tenants that they may touch
_PATCHED = ("_validate_databases", "_add_databases_failures", "_remove_databases_failures")
_MESSAGE = (
    "Database %s to %r are not allowed in this test: it does not name tenant %r. Use a TenantTestCase with "
    "'tenants', or the mark pytest.mark.tenants."
)
_case: Any = SimpleTestCase
_testcases: Any = testcases


class _TemplateNamedConnection(ConnectionProxy):  # type: ignore[type-arg]
    """``connection`` as ``skipUnlessDBFeature`` sees it: a class that it decorates has declared nothing yet."""

    @property
    def alias(self) -> str:
        """The template's alias."""
        return template_of(connections[DEFAULT_DB_ALIAS].alias)


class DeclaredDatabases(frozenset[str]):
    """The aliases of ``databases``; they contain a test tenant's alias where they contain its template."""

    tenant_ids: frozenset[str] = frozenset()

    def __contains__(self, alias: object) -> bool:
        if super().__contains__(alias):
            return True
        return isinstance(alias, str) and any(
            super(DeclaredDatabases, self).__contains__(template)
            for tenant_id, template in _parse_alias(alias)
            if self._may_use(tenant_id)
        )

    def _may_use(self, tenant_id: str) -> bool:
        test = tenant_context_manager.any_host
        return tenant_id in self.tenant_ids or (test is not None and tenant_id == test.id)


def install(others: Callable[[], list[Database]]) -> None:
    """Have test classes declare by template; ``others`` are the other test tenants' databases. Idempotent."""
    if "_tenant_router_originals" in vars(_case):
        return
    originals = {name: vars(_case)[name].__func__ for name in _PATCHED}
    _case._tenant_router_originals = originals
    setattr(_case, TENANTS, ())
    _testcases.connection = _TemplateNamedConnection(connections, DEFAULT_DB_ALIAS)

    def validate(cls: Any) -> DeclaredDatabases:
        found = DeclaredDatabases(originals["_validate_databases"](cls))
        found.tenant_ids = frozenset(getattr(cls, TENANTS))
        return found

    def add(cls: Any) -> None:
        originals["_add_databases_failures"](cls)
        for database, wrapper in _undeclared(others(), cls.databases):
            for name, operation in cls._disallowed_connection_methods:
                message = _MESSAGE % (operation, database.alias, database.tenant_id)
                setattr(wrapper, name, _DatabaseFailure(getattr(wrapper, name), message))

    def remove(cls: Any) -> None:
        originals["_remove_databases_failures"](cls)
        for _, wrapper in _undeclared(others(), cls.databases):
            for name, _ in cls._disallowed_connection_methods:
                setattr(wrapper, name, getattr(wrapper, name).wrapped)

    for name, patched in zip(_PATCHED, (validate, add, remove), strict=True):
        setattr(_case, name, classmethod(patched))


def uninstall() -> None:
    """Undo :func:`install`."""
    if "_tenant_router_originals" in vars(_case):
        for name, original in _case._tenant_router_originals.items():
            setattr(_case, name, classmethod(original))
        del _case._tenant_router_originals
        delattr(_case, TENANTS)
        _testcases.connection = connection


@contextmanager
def declare_tenants(tenant_ids: Iterable[str]) -> Iterator[None]:
    """Have the test classes that are set up within the block declare ``tenant_ids``."""
    before = getattr(_case, TENANTS)
    setattr(_case, TENANTS, tuple(tenant_ids))
    try:
        yield
    finally:
        setattr(_case, TENANTS, before)


def _undeclared(databases: list[Database], declared: DeclaredDatabases) -> Iterator[tuple[Database, Any]]:
    for database in databases:
        if database.alias not in declared:
            with tenant_context_bind(database.tenant_id):
                yield database, connections[database.template]


def _parse_alias(alias: str) -> Iterator[tuple[str, str]]:
    if isinstance(connections, TenantConnectionHandler):
        yield from identity.candidates(alias, connections._manager.templates)
