"""Test cases that use several tenants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from django.core.management import call_command
from django.db import connections, transaction
from django.test import TestCase, TransactionTestCase

from tenant_router.conf import conf
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.orm_backends.django_orm.connections import TenantConnectionHandler
from tenant_router.tenant_context import TenantContext
from tenant_router.testing.clients import TenantAsyncClient, TenantClient, tenant_async_client, tenant_client

TenantAlias = tuple[str, str]  # tenant id, template alias


def tenant_aliases(tenant_ids: Sequence[str], declared: Any) -> list[TenantAlias]:
    """Each tenant paired with each template alias in ``declared``."""
    assert isinstance(connections, TenantConnectionHandler)
    return [
        (tenant_id, alias) for tenant_id in tenant_ids for alias in connections._manager.templates if alias in declared
    ]


def enter_atomics(tenant_ids: Sequence[str], declared: Any) -> dict[TenantAlias, Any]:
    """Open the transaction of a test on the tenants' databases, as ``TestCase`` does on the templates'."""
    atomics: dict[TenantAlias, Any] = {}
    for tenant_id, template in tenant_aliases(tenant_ids, declared):
        atomic: Any = transaction.atomic(using=template)
        atomic._from_testcase = True  # so that on_commit, durable blocks and our own guard know it
        with tenant_context_bind(tenant_id):
            atomic.__enter__()
        atomics[tenant_id, template] = atomic
    return atomics


def rollback_atomics(atomics: dict[TenantAlias, Any]) -> None:
    """Roll back what :func:`enter_atomics` opened."""
    for (tenant_id, template), atomic in reversed(list(atomics.items())):
        with tenant_context_bind(tenant_id):
            transaction.set_rollback(True, using=template)
            atomic.__exit__(None, None, None)


def each_connection(tenant_ids: Sequence[str], declared: Any) -> Iterator[tuple[str, Any]]:
    """The connections of the tenants' databases (mirrors left out), each with its template's alias, bound."""
    for tenant_id, template in tenant_aliases(tenant_ids, declared):
        with tenant_context_bind(tenant_id):
            connection = connections[template]
            if not connection.settings_dict["TEST"]["MIRROR"]:
                yield template, connection


def flush(tenant_ids: Sequence[str], declared: Any, **options: Any) -> None:
    """Empty the tenants' databases. ``options``: those of the command ``flush``."""
    chosen = {"verbosity": 0, "interactive": False, "reset_sequences": False, **options}
    for template, _ in each_connection(tenant_ids, declared):
        call_command("flush", database=template, **chosen)


class _TenantsMixin:
    """``tenants``: the other test tenants that the class uses; all of ``OTHER_TENANT_IDS`` unless it says so."""

    tenants: ClassVar[Sequence[str] | None] = None
    tenants_of_the_test: ClassVar[Sequence[str]] = ()  # read where Django decides what a test may touch

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "tenants" in vars(cls):
            cls.tenants_of_the_test = tuple(cls.tenants or ())

    @classmethod
    def setUpClass(cls) -> None:
        if cls.tenants is None:
            cls.tenants_of_the_test = tuple(conf.tests["OTHER_TENANT_IDS"])
        super().setUpClass()  # type: ignore[misc]

    @staticmethod
    def tenant(tenant_id: str) -> AbstractContextManager[TenantContext]:
        """``with self.tenant("b"):`` runs as that tenant; also in ``setUpTestData``."""
        return tenant_context_bind(tenant_id)

    @staticmethod
    def tenant_client(tenant_id: str, **defaults: Any) -> TenantClient:
        """A client of that tenant."""
        return tenant_client(tenant_id, **defaults)

    @staticmethod
    def tenant_async_client(tenant_id: str, **defaults: Any) -> TenantAsyncClient:
        """An async client of that tenant."""
        return tenant_async_client(tenant_id, **defaults)


class TenantTestCase(_TenantsMixin, TestCase):
    """``django.test.TestCase`` whose transactions cover the other test tenants' databases too.

    ``fixtures`` are loaded for the test tenant; load others in ``setUpTestData``.
    """

    @classmethod
    def _enter_atomics(cls) -> dict[Any, Any]:
        atomics: dict[Any, Any] = super()._enter_atomics()  # type: ignore[misc]
        return {**atomics, **enter_atomics(cls.tenants_of_the_test, cls.databases)}

    @classmethod
    def _rollback_atomics(cls, atomics: dict[Any, Any]) -> None:
        rollback_atomics({key: atomic for key, atomic in atomics.items() if isinstance(key, tuple)})
        super()._rollback_atomics(atomics)  # type: ignore[misc]

    def _fixture_teardown(self) -> None:
        try:
            for _, connection in each_connection(self.tenants_of_the_test, self.databases):
                if self._should_check_constraints(connection):  # type: ignore[attr-defined]
                    connection.check_constraints()
        finally:
            super()._fixture_teardown()  # type: ignore[misc]


class TenantTransactionTestCase(_TenantsMixin, TransactionTestCase):
    """``django.test.TransactionTestCase`` that empties the other test tenants' databases too."""

    @classmethod
    def _fixture_setup(cls) -> None:
        super()._fixture_setup()  # type: ignore[misc]
        for template, connection in each_connection(cls.tenants_of_the_test, cls.databases):
            if cls.reset_sequences:
                cls._reset_sequences(template)  # type: ignore[attr-defined]
            if cls.serialized_rollback and hasattr(connection, "_test_serialized_contents"):
                connection.creation.deserialize_db_from_string(connection._test_serialized_contents)

    def _fixture_teardown(self) -> None:
        super()._fixture_teardown()  # type: ignore[misc]
        quiet = self.available_apps is not None or self.serialized_rollback
        cascade = self.available_apps is not None
        flush(self.tenants_of_the_test, self.databases, allow_cascade=cascade, inhibit_post_migrate=quiet)
