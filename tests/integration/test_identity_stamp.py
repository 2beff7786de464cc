"""Whose a database is: stamped by ``tenant adopt``, compared at each new connection, on every path to it."""

import asyncio
import io
import json
import subprocess
import uuid

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.db.backends.signals import connection_created
from django.test import Client, override_settings

from tenant_router.config_store import codec
from tenant_router.config_store.base import ACTIVE, Op
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import WrongDatabase
from tenant_router.lifecycle import Writer
from tests import asgi_client
from tests.app.models import Note


def adopt(*arguments):
    out = io.StringIO()
    call_command("tenant", "adopt", *arguments, stdout=out)
    return out.getvalue()


@pytest.fixture
def stamped(on_postgres):
    """Two tenants whose databases say whose they are; each has one note, its database's name."""
    databases = on_postgres()
    databases.create("a", "b", "empty")
    for name in ("a", "b"):
        databases.put(f"{name}.test", name)
        adopt(f"{name}.test")
        databases.tenants.arrived(f"{name}.test", stored(databases, f"{name}.test").rev)
    return databases


def stored(databases, tenant_id):
    return Writer(databases.tenants.runtime).record(tenant_id)


def lead(databases, tenant_id, database, **settings):
    """Have a tenant's record, and what it is stamped with, lead to another database."""
    runtime = databases.tenants.runtime
    incarnation = codec.incarnation_of(stored(databases, tenant_id).body)
    body = codec.encode(tenant_id, databases.record(database, **settings), runtime.serializer, incarnation)
    revision = runtime.store.commit([Op(tenant_id, ACTIVE, body)], request_id=uuid.uuid4().hex)
    databases.tenants.arrived(tenant_id, revision)


def swap(databases, **settings):
    """Swap the records of the two tenants (the store alone would refuse two that share a database for a moment)."""
    lead(databases, "a.test", "empty")
    lead(databases, "b.test", "a", **settings)
    lead(databases, "a.test", "b", **settings)


def test_a_stamped_tenant_is_served_and_pays_one_statement_for_each_connection(stamped):
    for name in ("a", "b"):
        with tenant_context_bind(f"{name}.test"):
            assert [*Note.objects.values_list("text", flat=True)] == [name]
            with connection.cursor() as cursor:
                cursor.execute("SELECT service, tenant, alias FROM tenant_router_identity")
                assert cursor.fetchall() == [(stamped.tenants.runtime.conf.service, f"{name}.test", "default")]


def raw():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def by_alias():
    return [*Note.objects.using("a.test_default")]


async def in_a_loop():
    return [note async for note in Note.objects.all()]


def use_and_fail(use, path):
    use()
    pytest.fail(f"{path} is open")


PATHS = {
    "a query": lambda: [*Note.objects.all()],
    "a write": lambda: Note.objects.create(text="x"),
    "raw SQL": raw,
    "an own alias": by_alias,
    "asynchronously": lambda: asyncio.run(in_a_loop()),
    "migrate": lambda: call_command("migrate", verbosity=0),
    "a transaction": lambda: connection.ensure_connection(),
    "dumpdata": lambda: call_command("dumpdata", "app.note", stdout=io.StringIO()),
    "inspectdb": lambda: call_command("inspectdb", stdout=io.StringIO()),
    "dbshell": lambda: call_command("dbshell"),
}


@pytest.mark.parametrize("settings", [{}, {"OPTIONS": {"pool": True}}], ids=["alone", "pool"])
def test_swapped_records_are_refused_before_the_first_statement_on_every_path(stamped, settings, monkeypatch):
    swap(stamped, **settings)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("psql was started"))
    heard = []
    connection_created.connect(lambda **known: heard.append(known), weak=False, dispatch_uid="heard")
    try:
        for path, use in PATHS.items():
            with tenant_context_bind("a.test"), pytest.raises((WrongDatabase, CommandError), match=r"tenant 'b\.test'"):
                use_and_fail(use, path)
    finally:
        connection_created.disconnect(dispatch_uid="heard")
    assert heard == []
    with pytest.raises(WrongDatabase):
        by_alias()


@pytest.mark.parametrize("path", ["/notes/", "/notes/async/"])
def test_the_tenant_alone_is_answered_503_and_the_fleet_hears_of_it(stamped, path):
    swap(stamped)
    with override_settings(ROOT_URLCONF="tests.app.urls"):
        client = Client(raise_request_exception=False)
        assert client.get(path, headers={"host": "a.test"}).status_code == 503
        assert asgi_client.get(path, {"host": "a.test"}).status_code == 503
        assert stamped.tenants.runtime.describe().refusals == {"a.test": stored(stamped, "a.test").rev}
        lead(stamped, "b.test", "empty")
        lead(stamped, "a.test", "a")
        assert client.get(path, headers={"host": "a.test"}).status_code == 200
    assert stamped.tenants.runtime.describe().refusals == {}


def test_a_database_that_says_nothing_is_refused_once_its_tenant_is_stamped(stamped):
    lead(stamped, "a.test", "empty")
    with tenant_context_bind("a.test"), pytest.raises(WrongDatabase, match="does not say whose it is"):
        Note.objects.count()
    assert adopt("a.test") == f"a.test: 1 database stamped, revision {stored(stamped, 'a.test').rev}\n"
    with tenant_context_bind("a.test"):
        assert Note.objects.get().text == "empty"


def test_somebody_elses_dump_is_refused_and_adopted_with_consent_alone(stamped):
    with tenant_context_bind("a.test"), connection.cursor() as cursor:
        cursor.execute("UPDATE tenant_router_identity SET tenant = 'c.test', incarnation = %s", ["0" * 32])
    connections.close_all()
    with tenant_context_bind("a.test"), pytest.raises(WrongDatabase, match=r"tenant 'c\.test'"):
        Note.objects.count()
    with pytest.raises(CommandError, match=r"is that of tenant 'c\.test' of service .*: give --yes"):
        adopt("a.test")
    with tenant_context_bind("a.test"), pytest.raises(WrongDatabase):
        Note.objects.count()
    adopt("a.test", "--yes")
    with tenant_context_bind("a.test"):
        assert Note.objects.get().text == "a"


def test_an_adoption_that_was_interrupted_goes_on(stamped, monkeypatch):
    stamped.create("c")
    stamped.put("c.test", "c")

    def interrupted(self, plan, progress=None):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "commit", interrupted)
        with pytest.raises(CommandError, match="interrupted"):
            adopt("c.test")
    with tenant_context_bind("c.test"):
        assert Note.objects.get().text == "c"
    adopt("c.test")
    stamped.tenants.arrived("c.test", stored(stamped, "c.test").rev)
    assert adopt("c.test") == adopt("c.test")
    with tenant_context_bind("c.test"), connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM tenant_router_identity")
        assert cursor.fetchone() == (1,)


def config_file(databases, folder, record):
    """A configuration file with one tenant."""
    made = folder / "config.json"
    config = {"a.test": {databases.tenants.runtime.conf.service: record}}
    made.write_text(json.dumps({"mapping_metadata": {}, "tenant_config": config}))
    return str(made)


def test_loading_the_configuration_again_keeps_the_stamp(stamped, tmp_path):
    config = {
        name: {stamped.tenants.runtime.conf.service: stamped.record(name[0], CONN_MAX_AGE=5)} for name in ("a.test",)
    }
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"mapping_metadata": {}, "tenant_config": config}))
    before = codec.incarnation_of(stored(stamped, "a.test").body)
    call_command("load_tenant_config", "-f", file, stdout=io.StringIO())
    assert before == codec.incarnation_of(stored(stamped, "a.test").body) != ""


@pytest.mark.parametrize(("database", "said"), [("empty", None), ("b", "that of tenant 'b.test'")])
def test_a_move_stamps_an_empty_database_and_takes_nobodys(stamped, tmp_path, database, said):
    if said:
        lead(stamped, "b.test", "empty")
    with stamped.server.connect(stamped.name(database)) as plain:
        plain.execute("DROP TABLE app_note")
    file = config_file(stamped, tmp_path, stamped.record(database))
    out = io.StringIO()
    try:
        call_command("load_tenant_config", "-f", file, "--migrate", stdout=out)
    except CommandError:
        assert said
        assert said in out.getvalue()
    else:
        assert said is None
    stamped.tenants.arrived("a.test", stored(stamped, "a.test").rev)
    with tenant_context_bind("a.test"):
        assert Note.objects.filter(text="a").exists() is bool(said)


def test_a_pooled_connection_is_compared_once(stamped):
    lead(stamped, "a.test", "a", OPTIONS={"pool": True})
    counts = []
    for _ in range(3):
        with tenant_context_bind("a.test"):
            Note.objects.count()
            counts.append(connection.connection._tr_incarnation)
    assert len({*counts}) == 1


def test_the_shell_of_the_right_database_is_begun(stamped, monkeypatch):
    begun = []
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: begun.append(args))
    with tenant_context_bind("a.test"):
        call_command("dbshell")
    assert len(begun) == 1
