"""Migrated databases to copy, and the project on the real servers."""

import shutil
import uuid
from contextlib import ExitStack

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.test import override_settings

from tenant_router import runtime
from tenant_router.conf import conf
from tenant_router.context_decorators import tenant_context_bind
from tests.processes import Project
from tests.tenants import Tenants


@pytest.fixture(scope="session")
def blank_sqlite(tmp_path_factory):
    """A migrated SQLite file, to be copied for tenants."""
    directory = tmp_path_factory.mktemp("blank")
    conf.forget()
    if runtime.is_installed():
        runtime.get().uninstall()
    made = runtime.install()
    try:
        Tenants(made, directory).put("blank.test")
        with tenant_context_bind("blank.test"):
            call_command("migrate", verbosity=0)
        connections.close_all()
    finally:
        made.uninstall()
    return directory / "blank.test.db"


@pytest.fixture(scope="session")
def sqlite_file(blank_sqlite, tmp_path_factory):
    """A function that makes a migrated SQLite file of that name."""
    directory = tmp_path_factory.mktemp("databases")

    def make(name):
        return shutil.copy(blank_sqlite, directory / f"{name}-{uuid.uuid4().hex[:6]}.db")

    return make


@pytest.fixture(scope="session")
def pg_environment(postgres_server):
    """What makes the template a PostgreSQL database."""
    return {
        "TESTS_ENGINE": "django.db.backends.postgresql",
        "TESTS_PG_HOST": postgres_server.host,
        "TESTS_PG_USER": postgres_server.user,
    }


@pytest.fixture(scope="session")
def pg_database(postgres_server, pg_environment, redis_server, tmp_path_factory):
    """A function that makes a migrated PostgreSQL database and returns its name."""
    blank = f"blank_{uuid.uuid4().hex[:6]}"
    postgres_server.create_database(blank)
    project = Project(redis_server, tmp_path_factory.mktemp("pg"), **pg_environment)
    project.put("blank.test", project.record(blank))
    project.manage("migrate_all", "--exclude-reserved-aliases")

    def make(name):
        database = f"{name}_{uuid.uuid4().hex[:6]}"
        with postgres_server.connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {database} TEMPLATE {blank} STRATEGY file_copy")
        return database

    return make


@pytest.fixture
def runtime_on(fresh_runtime):
    """A function that makes this process one of a project's: its runtime reads the project's store."""
    with ExitStack() as stack:

        def make(project, **options):
            store = {
                **settings.TENANT_ROUTER_CONFIG_STORE_SETTINGS,
                "BACKEND": "tenant_router.config_store.backends.redis.RedisStore",
                "LOCATION": {"URL": project.url},
            }
            store["OPTIONS"] = {**store["OPTIONS"], "IDLE": 0.3, **options}
            stack.enter_context(
                override_settings(TENANT_ROUTER_SERVICE_NAME=project.service, TENANT_ROUTER_CONFIG_STORE_SETTINGS=store)
            )
            return fresh_runtime()

        yield make


@pytest.fixture
def quick_two(tenants, sqlite_file):
    """Two tenants with tables, ``a.test`` and ``b.test``, in a fraction of the time that migrating takes."""
    for tenant_id in ("a.test", "b.test"):
        file = sqlite_file(tenant_id)
        tenants.put(tenant_id, {"orm_config": {"django_orm": {"default": {"NAME": str(file)}}}})
        tenants.arrived(tenant_id)
    return tenants
