"""Fixtures: a runtime over other databases than the settings name, on SQLite or on PostgreSQL."""

import copy
import uuid

import pytest
from django.conf import settings
from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import sql

from tenant_router import runtime
from tenant_router.context_decorators import tenant_context_bind
from tests.app.models import Book, Counter, Note, Shelf
from tests.tenants import Tenants

SQLITE = {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": "template-must-not-be-opened",
    "OPTIONS": {"timeout": 60},  # seconds for a lock: a thread that holds one may stand still
}
MODELS = (Note, Counter, Shelf, Book)


def create_tables(tenant_id, alias="default"):
    """Create the tables of the application in one database of a tenant; faster than migrating."""
    with tenant_context_bind(tenant_id), connections[alias].schema_editor() as editor:
        for model in MODELS:
            editor.create_model(model)


def database_of(tenant_id):
    """Where a tenant's default connection leads now."""
    with tenant_context_bind(tenant_id):
        return str(connection.settings_dict["NAME"])


@pytest.fixture
def project(fresh_runtime, monkeypatch, tmp_path):
    """A function that makes a runtime whose project has ``databases`` and ORM ``options``; returns its ``Tenants``."""
    original = dict(getattr(connections.settings, "static", connections.settings))

    def make(databases, reserved=(), store=None, **options):
        uninstall()
        orms = {
            "django_orm": {"SETTINGS_KEY": "DATABASES", "OPTIONS": {"RESERVED_CONN_ALIASES": set(reserved), **options}}
        }
        configured = connections.configure_settings(copy.deepcopy(databases))
        monkeypatch.setattr(settings, "DATABASES", configured)  # one object, as in a process that Django has set up
        monkeypatch.setattr(settings, "TENANT_ROUTER_ORM_SETTINGS", orms)
        if store is not None:
            monkeypatch.setattr(settings, "TENANT_ROUTER_CONFIG_STORE_SETTINGS", store)
        connections.settings = configured
        made = Tenants(fresh_runtime(), tmp_path)
        made.delete("nobody.test")
        made.runtime.synchronise()
        return made

    def uninstall():
        if runtime.is_installed():
            connections.close_all()
            runtime.get().uninstall()
        for alias in list(connections):  # those of reserved aliases would be found by the next project
            # Django's close() leaves a database in memory open; Python 3.13 warns of one that is collected open
            BaseDatabaseWrapper.close(connections[alias])
            del connections[alias]

    yield make
    uninstall()
    connections.settings = original


@pytest.fixture
def three(tenants):
    """Three tenants on SQLite, the ids of two of which begin alike: ``t1``, ``t10``, ``a.test``."""
    for tenant_id in ("t1", "t10", "a.test"):
        tenants.put(tenant_id)
        tenants.arrived(tenant_id)
        create_tables(tenant_id)
    return tenants


class PostgresTenants:
    """Tenants whose databases are on a real PostgreSQL; each database says its own name."""

    def __init__(self, server, tenants, prefix):
        self.server, self.tenants, self._prefix = server, tenants, prefix

    def name(self, database):
        return f"{self._prefix}_{database}"

    def create(self, *databases):
        """Create databases with a table ``app_note`` whose one row is the database's own name."""
        for database in databases:
            self.server.create_database(self.name(database))
            with self.server.connect(self.name(database)) as plain:
                plain.execute("CREATE TABLE app_note (id serial PRIMARY KEY, text varchar(200) UNIQUE)")
                plain.execute("INSERT INTO app_note (text) VALUES (%s)", [database])

    def record(self, database, **settings):
        return {"orm_config": {"django_orm": {"default": {"NAME": self.name(database), **settings}}}}

    def put(self, tenant_id, database, **settings):
        """Point a tenant at a database."""
        revision = self.tenants.put(tenant_id, self.record(database, **settings))
        self.tenants.arrived(tenant_id, revision)

    def sessions(self, *databases):
        """How many server sessions there are to these databases (to all of this project without one)."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND datname LIKE %s"
        with self.server.connect("postgres") as plain:
            names = [self.name(database) for database in databases] or [f"{self._prefix}%"]
            return sum(plain.execute(query, [name.replace("_", r"\_")]).fetchone()[0] for name in names)


@pytest.fixture
def on_postgres(project, postgres_server):
    """A function that makes a project on PostgreSQL, its template's settings given; returns ``PostgresTenants``."""
    made = []

    def make(store=None, max_open=100, **template):
        prefix = f"x{uuid.uuid4().hex[:8]}"
        base = {"ENGINE": "django.db.backends.postgresql", "NAME": "template-must-not-be-opened"}
        default = {**base, "HOST": postgres_server.host, "USER": postgres_server.user, **template}
        tenants = project({"default": default}, store=store, MAX_OPEN_CONNECTIONS=max_open)
        made.append(PostgresTenants(postgres_server, tenants, prefix))
        return made[-1]

    yield make
    if runtime.is_installed():
        connections.close_all()
        runtime.get().uninstall()
    with postgres_server.connect("postgres") as plain:
        for tenants in made:
            pattern = f"{tenants._prefix}%"
            names = plain.execute("SELECT datname FROM pg_database WHERE datname LIKE %s", [pattern]).fetchall()
            for (name,) in names:
                plain.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
