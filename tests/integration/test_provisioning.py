"""``tenant create``: record, databases, migrations and first data by one command that goes on wherever it was killed."""

import io
import json
import os
import threading
import uuid

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections
from psycopg import sql

from tenant_router import lifecycle
from tenant_router.config_store import codec
from tenant_router.config_store.base import ACTIVE, DELETED, PROVISIONING, packed_state
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import Locked, ProvisioningError
from tenant_router.fleet.ledger import Ledger
from tenant_router.fleet.locks import Locks
from tenant_router.lifecycle import Writer, begun, seeding
from tenant_router.orm_backends.django_orm import database_names
from tenant_router.orm_backends.django_orm.postgresql_server import PostgresServer as Server
from tenant_router.orm_backends.django_orm.sqlite_files import SqliteFiles
from tests.app.models import Note
from tests.processes import MANAGE
from tests.tenants import eventually

ID = "acme.example.com"
STEPS = (begun.RECORD, begun.CREATE, begun.STAMP, begun.MIGRATE, begun.SEED, begun.ACTIVATE)


def create(*arguments, tenant_id=ID):
    out = io.StringIO()
    call_command("tenant", "create", tenant_id, *arguments, stdout=out)
    return out.getvalue()


class OnPostgres:
    """A project whose new tenants have databases on a real PostgreSQL; all its names begin with ``prefix``."""

    def __init__(self, project, server, **options):
        self.server, self.prefix = server, f"p{uuid.uuid4().hex[:8]}"
        template = {"ENGINE": "django.db.backends.postgresql", "NAME": "template-must-not-be-opened"}
        template |= {"HOST": server.host, "USER": server.user, **options.pop("template", {})}
        names = {"NAME_PATTERN": self.prefix + "_{tenant}", "REFERENCE_DATABASE": f"{self.prefix}_reference"}
        self.tenants = project({"default": template}, **names | options)
        self.store = self.tenants.runtime.store

    def query(self, statement, *values, database="postgres"):
        with self.server.connect(database) as plain:
            return plain.execute(statement, values or None).fetchall()

    def made(self):
        """The databases and roles there are of this project but for the reference."""
        statement = "SELECT {} FROM {} WHERE {} LIKE %s"
        like = self.prefix + "%"
        databases = self.query("SELECT datname FROM pg_database WHERE datname LIKE %s", like)
        roles = self.query("SELECT rolname FROM pg_roles WHERE rolname LIKE %s", like)
        unfinished = self.query("SELECT datname FROM pg_database WHERE datname LIKE 'tenant_router%%'")
        return sorted(name for (name,) in databases + roles + unfinished if not name.endswith("_reference"))

    def end(self):
        with self.server.connect("postgres") as plain:
            found = "SELECT datname FROM pg_database WHERE datname LIKE %s OR datname LIKE 'tenant_router%%'"
            for (name,) in plain.execute(found, [self.prefix + "%"]).fetchall():
                plain.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
            for (name,) in plain.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE %s", [self.prefix + "%"]):
                plain.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


class OnSqlite:
    """A project whose new tenants have files in ``folder``."""

    def __init__(self, project, folder, **options):
        self.folder = folder
        template = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "template.db")}
        self.tenants = project({"default": template}, **options)
        self.store = self.tenants.runtime.store

    def made(self):
        return sorted(one.name for one in self.folder.iterdir() if "reference" not in one.name)


@pytest.fixture
def on_server(project, postgres_server):
    """A function that makes a project on PostgreSQL with these options of its ORM."""
    made = []

    def make(**options):
        made.append(OnPostgres(project, postgres_server, **options))
        return made[-1]

    yield make
    connections.close_all()
    for one in made:
        one.tenants.runtime.uninstall()
        one.end()


@pytest.fixture(params=["postgresql", "sqlite"])
def place(request, project, tmp_path):
    """A project on either."""
    if request.param == "postgresql":
        return request.getfixturevalue("on_server")()
    (tmp_path / "databases").mkdir()
    return OnSqlite(project, tmp_path / "databases")


def state(place, tenant_id=ID):
    entry = place.store.index().get(tenant_id)
    return entry and packed_state(entry)


def notes(place):
    return place.store.scan_notes(begun.BOOK, "", 10)[1]


def stored(place, tenant_id=ID):
    return Writer(place.tenants.runtime).record(tenant_id)


def settings_of(place, tenant_id=ID):
    place.tenants.arrived(tenant_id, stored(place, tenant_id).rev)
    with tenant_context_bind(tenant_id):
        return dict(connection.settings_dict)


@pytest.fixture
def fixture_file(tmp_path):
    """A fixture whose one note has no key: it would be there twice if it was loaded twice."""
    file = tmp_path / "first.json"
    file.write_text(json.dumps([{"model": "app.note", "fields": {"text": "first"}}]))
    return str(file)


def texts(tenant_id=ID):
    with tenant_context_bind(tenant_id):
        return [*Note.objects.values_list("text", flat=True)]


def test_one_command_creates_a_tenant_that_is_served(place, fixture_file):
    assert create("--seed", fixture_file) == f"{ID} is active at revision {stored(place).rev}\n"
    assert (state(place), notes(place)) == (ACTIVE, {})
    place.tenants.arrived(ID, stored(place).rev)
    assert texts() == ["first"]
    incarnation = codec.incarnation_of(stored(place).body)
    with tenant_context_bind(ID), connection.cursor() as cursor:
        cursor.execute("SELECT tenant, incarnation FROM tenant_router_identity")
        assert cursor.fetchall() == [(ID, incarnation)]
        assert seeding._MARK not in connection.introspection.table_names(cursor)
    assert len(place.made()) == 1


