"""A configured Django with one tenant, ``bench.test``, on SQLite in memory; no server is needed."""

from __future__ import annotations

import django
from django.conf import settings

SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}

settings.configure(
    INSTALLED_APPS=["tenant_router", "django.contrib.contenttypes", "django.contrib.auth"],
    DATABASES={"default": SQLITE},
    DATABASE_ROUTERS=["tenant_router.orm_backends.django_orm.router.DjangoOrmRouter"],
    TENANT_ROUTER_SERVICE_NAME="bench",
    TENANT_ROUTER_CONFIG_STORE_SETTINGS={"BACKEND": "tenant_router.config_store.backends.memory.MemoryStore"},
    TENANT_ROUTER_ORM_SETTINGS={"django_orm": {"SETTINGS_KEY": "DATABASES"}},
)
django.setup()

from tenants import register_here  # noqa: E402 - settings come first


def make_tenant() -> None:
    """Have ``bench.test`` served."""
    register_here({"bench.test": {"orm_config": {"django_orm": {"default": {"NAME": ":memory:"}}}}})
