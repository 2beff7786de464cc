"""Test cases that use several tenants, and a client that speaks to one of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from django.core.management import call_command
from django.db import connections, transaction
from django.test import AsyncClient, Client, TestCase, TransactionTestCase

from tenant_router import identity
from tenant_router.conf import conf
from tenant_router.context import TenantContext
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.middleware import TEST_KEY
from tenant_router.orm_backends.django_orm.connections import TenantConnectionHandler


def tenant_client(tenant_id: str, **defaults: Any) -> Client:
    """A test client whose requests are the tenant's, whatever the project resolves tenants by."""
    return Client(**{TEST_KEY: tenant_id, **defaults})


def tenant_async_client(tenant_id: str, **defaults: Any) -> AsyncClient:
    """:func:`tenant_client` for async tests."""
    return AsyncClient(**{TEST_KEY: tenant_id, **defaults})


def copies(tenant_ids: Sequence[str], declared: Any) -> list[tuple[str, str]]:
    """Each tenant with each template alias that ``declared`` holds."""
    assert isinstance(connections, TenantConnectionHandler)
    return [
        (tenant_id, alias) for tenant_id in tenant_ids for alias in connections._manager.templates if alias in declared
    ]


def enter_atomics(tenant_ids: Sequence[str], declared: Any) -> dict[str, Any]:
    """Open the transaction of a test on the tenants' databases, as ``TestCase`` does on the templates'."""
    atomics: dict[str, Any] = {}
    for tenant_id, template in copies(tenant_ids, declared):
        alias = identity.alias_for(tenant_id, template)
        atomics[alias] = transaction.atomic(using=alias)
        atomics[alias]._from_testcase = True  # so that on_commit, durable blocks and our own guard know it
        atomics[alias].__enter__()
    return atomics


def rollback_atomics(atomics: dict[str, Any]) -> None:
    """Roll back what :func:`enter_atomics` opened."""
    for alias in reversed(list(atomics)):
        transaction.set_rollback(True, using=alias)
        atomics[alias].__exit__(None, None, None)


def flush(tenant_ids: Sequence[str], declared: Any) -> None:
    """Empty the tenants' databases."""
    for tenant_id, template in copies(tenant_ids, declared):
        with tenant_context_bind(tenant_id):
            call_command("flush", verbosity=0, interactive=False, database=template, allow_cascade=True)


class _WithTenants:
    """``tenants``: the other test tenants that the class uses; all of ``OTHER_TENANT_IDS`` unless it says so."""

    tenants: ClassVar[Sequence[str] | None] = None

    @classmethod
    def _tenants(cls) -> Sequence[str]:
        return tuple(conf.tests["OTHER_TENANT_IDS"]) if cls.tenants is None else cls.tenants

    def tenant(self, tenant_id: str) -> AbstractContextManager[TenantContext]:
        """``with self.tenant("b"):`` runs as that tenant."""
        return tenant_context_bind(tenant_id)

    def tenant_client(self, tenant_id: str, **defaults: Any) -> Client:
        """A client of that tenant."""
        return tenant_client(tenant_id, **defaults)


class TenantTestCase(_WithTenants, TestCase):
    """``django.test.TestCase`` whose transactions cover the other test tenants' databases too."""

    @classmethod
    def _enter_atomics(cls) -> dict[str, Any]:
        atomics: dict[str, Any] = super()._enter_atomics()  # type: ignore[misc]
        cls_atomics = enter_atomics(cls._tenants(), cls.databases)
        return {**atomics, **cls_atomics}

    @classmethod
    def _rollback_atomics(cls, atomics: dict[str, Any]) -> None:
        others = {alias: atomic for alias, atomic in atomics.items() if alias not in cls._databases_names()}  # type: ignore[attr-defined]
        rollback_atomics(others)
        super()._rollback_atomics(atomics)  # type: ignore[misc]


class TenantTransactionTestCase(_WithTenants, TransactionTestCase):
    """``django.test.TransactionTestCase`` that empties the other test tenants' databases too."""

    def _fixture_teardown(self) -> None:
        super()._fixture_teardown()  # type: ignore[misc]
        flush(self._tenants(), self.databases)
