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

from tenant_router import runtime  # noqa: E402 - settings come first
from tenant_router.config_store import codec  # noqa: E402
from tenant_router.config_store.base import ACTIVE, Op  # noqa: E402


def make_tenant() -> None:
    """Have ``bench.test`` served."""
    installed = runtime.get()
    record = {"orm_config": {"django_orm": {"default": {"NAME": ":memory:"}}}}
    op = Op("bench.test", ACTIVE, codec.encode("bench.test", record, installed.serializer))
    installed.store.commit([op], request_id="bench")
