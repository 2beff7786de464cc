"""The dotted paths that projects write: they are public, and stay whatever else moves."""

import os
import subprocess
import sys
from pkgutil import resolve_name
from types import ModuleType

import pytest

PATHS = [
    "tenant_router.apps.TenantRouterConfig",
    "tenant_router.cache.patch.TenantAwareCacheHandler",
    "tenant_router.celery.beat",
    "tenant_router.config_store.backends.memory.MemoryStore",
    "tenant_router.config_store.backends.redis.RedisStore",
    "tenant_router.config_store.base",
    "tenant_router.config_store.serializers.base.Serializer",
    "tenant_router.config_store.serializers.json.JSONSerializer",
    "tenant_router.config_store.serializers.pickle.PickleSerializer",
    "tenant_router.context_decorators.carry_tenant",
    "tenant_router.context_decorators.tenant_context_bind",
    "tenant_router.exceptions",
    "tenant_router.fleet.for_each_tenant",
    "tenant_router.log",
    "tenant_router.management.base.TenantCommand",
    "tenant_router.managers.task_local.tls_tenant_manager",
    "tenant_router.managers.tenant_context_manager",
    "tenant_router.middleware.TenantContextMiddleware",
    "tenant_router.middleware.resolve_by_header",
    "tenant_router.middleware.resolve_by_host",
    "tenant_router.orm_backends.base.BaseOrmManager",
    "tenant_router.orm_backends.base.BaseOrmMigrationAsst",
    "tenant_router.orm_backends.django_orm.manager.DjangoOrmManager",
    "tenant_router.orm_backends.django_orm.router.DjangoOrmRouter",
    "tenant_router.orm_backends.es_orm",
    "tenant_router.testing",
]


@pytest.mark.parametrize("path", PATHS)
def test_a_public_path_leads_where_it_says(path):
    found = resolve_name(path)
    home = found.__name__ if isinstance(found, ModuleType) else found.__module__
    assert home.startswith("tenant_router.")


@pytest.mark.parametrize(
    "name",
    ["TenantTestCase", "TenantTestRunner", "TenantTransactionTestCase", "tenant_async_client", "tenant_client"],
)
def test_what_tests_of_projects_import(name):
    assert callable(resolve_name(f"tenant_router.testing.{name}"))


def test_a_start_imports_neither_what_writes_nor_what_works_for_many_tenants():
    """Each module of a room costs every process of a site some of its start."""
    code = (
        "import sys, django; django.setup()\n"
        "unwanted = ('tenant_router.lifecycle', 'tenant_router.management', 'tenant_router.fleet.in_process')\n"
        "assert [name for name in sys.modules if name.startswith(unwanted)] == []\n"
        "from tenant_router.fleet import for_each_tenant\n"
        "assert 'tenant_router.fleet.in_process' in sys.modules\n"
    )
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
