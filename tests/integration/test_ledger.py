"""The ledger of the fleet's databases: who is not connected to, and what keeps it true."""

import importlib
import io
import pathlib
import sys

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate, pre_migrate
from django.test import override_settings

from tenant_router.context_decorators import tenant_context_bind
from tests.app.models import Note

ALL = ("--exclude-reserved-aliases",)


def migrate_all(*arguments):
    """What it shows, and the aliases that it connected to."""
    out, connected = io.StringIO(), []

    def hear(connection, **known):
        connected.append(connection.database.alias if getattr(connection, "database", None) else connection.alias)

    connections.close_all()
    connection_created.connect(hear)
    try:
        call_command("migrate_all", *arguments, stdout=out)
    finally:
        connection_created.disconnect(hear)
    return out.getvalue(), sorted({*connected})


def as_tenant(tenant_id, *command):
    with tenant_context_bind(tenant_id):
        call_command(*command, verbosity=0)


BOTH = ["a.test_default", "b.test_default"]


def test_who_is_up_to_date_is_not_connected_to(two):
    # ``two`` were migrated by ``migrate``, which tells the ledger, too
    assert migrate_all(*ALL) == ("django_orm: 2 of 2 tenants are up to date\n", [])
    assert migrate_all(*ALL, "--plan")[1] == []
    assert migrate_all(*ALL, "--tenant-id", "a.test")[1] == []
    assert migrate_all(*ALL, "--verify")[1] == BOTH
    assert migrate_all(*ALL, "--sample", "100%")[1] == BOTH
    assert migrate_all(*ALL, "--sample", "0")[1] == []


@pytest.mark.parametrize("share", ["101", "-1%", "nan", "x"])
def test_a_share_that_is_none_is_a_usage_error(two, share):
    with pytest.raises(CommandError, match="sample"):
        migrate_all("--sample", share)


def test_a_new_tenant_and_one_that_was_migrated_backwards_are_looked_at(two):
    as_tenant("a.test", "migrate", "app", "zero")
    two.put("c.test")
    two.runtime.reflector.synchronise()
    assert migrate_all(*ALL)[1] == ["a.test_default", "c.test_default"]
    assert migrate_all(*ALL)[1] == []
    with tenant_context_bind("a.test"):
        assert Note.objects.count() == 0


def test_another_database_of_the_same_alias_is_looked_at(two):
    two.arrived("a.test", two.put("a.test", two.record("elsewhere")))
    assert migrate_all(*ALL)[1] == ["a.test_default"]
    assert migrate_all(*ALL)[1] == []
    two.arrived("a.test", two.put("a.test"))
    assert migrate_all(*ALL)[1] == ["a.test_default"]


def test_a_database_that_was_lost_is_found_by_looking(two):
    pathlib.Path(two.record("a.test")["orm_config"]["django_orm"]["default"]["NAME"]).unlink()
    assert migrate_all(*ALL)[1] == []
    assert migrate_all(*ALL, "--verify")[1] == BOTH
    with tenant_context_bind("a.test"):
        assert Note.objects.count() == 0


@pytest.fixture
def failing_receiver():
    """Something that a project does after each migration, and that fails for one tenant, last of all."""

    def fail(using, sender, **kwargs):
        if using == "a.test_default" and sender.label == "app":
            raise RuntimeError("no permissions today")

    post_migrate.connect(fail, weak=False, dispatch_uid="fails")
    yield
    post_migrate.disconnect(dispatch_uid="fails")


def test_what_is_done_after_a_migration_is_a_part_of_it(two, failing_receiver):
    with pytest.raises(CommandError, match=r"a\.test_default"):
        migrate_all(*ALL, "--verify")
    post_migrate.disconnect(dispatch_uid="fails")
    assert migrate_all(*ALL)[1] == ["a.test_default"]
    assert migrate_all(*ALL)[1] == []


def test_a_migration_that_fails_half_way_backwards_leaves_nothing_noted(two, monkeypatch):
    from django.db.migrations.executor import MigrationExecutor

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MigrationExecutor, "unapply_migration", killed)
        with pytest.raises(KeyboardInterrupt):
            as_tenant("a.test", "migrate", "app", "zero")
    assert migrate_all(*ALL)[1] == ["a.test_default"]


def test_another_release_is_another_fingerprint(two):
    permissions = [("may_print", "May print")]
    original = Note._meta.permissions
    with override_settings(MIGRATION_MODULES={"unknown": "nothing"}):  # so that it is computed anew
        Note._meta.permissions = permissions
        try:
            assert migrate_all(*ALL)[1] == BOTH
            assert migrate_all(*ALL)[1] == []
        finally:
            Note._meta.permissions = original
    assert migrate_all(*ALL)[1] == BOTH


def test_a_signal_that_somebody_else_sends_is_borne(two):
    with tenant_context_bind("a.test"):
        for app in apps.get_app_configs():
            pre_migrate.send(app, app_config=app)
            post_migrate.send(app, app_config=app)
    assert migrate_all(*ALL)[1] == []


def test_a_store_without_notes_has_no_ledger(two, monkeypatch):
    monkeypatch.setattr(type(two.runtime.store), "keeps_notes", False)
    assert migrate_all(*ALL)[1] == BOTH
    assert migrate_all(*ALL)[1] == BOTH


def test_many_tenants_are_read_by_pages(two, monkeypatch):
    monkeypatch.setattr("tenant_router.fleet.ledger.MANY", 1)
    monkeypatch.setattr("tenant_router.fleet.ledger.INDEX_PAGE", 1)
    assert migrate_all(*ALL)[1] == []


KILLED = """
from django.db import migrations

def killed(apps, editor):
    {body}

class Migration(migrations.Migration):
    atomic = {atomic}
    dependencies = [("app", "0001_initial")]
    operations = [migrations.RunPython(killed)]
"""


@pytest.fixture
def second_migration(two, tmp_path, monkeypatch):
    """A function that gives the application a second migration."""
    folder = tmp_path / "killed_migrations"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "0001_initial.py").write_text("from tests.app.migrations.0001_initial import Migration")
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(body, atomic):
        (folder / "0001_initial.py").write_text(
            "from importlib import import_module\n"
            "Migration = import_module('tests.app.migrations.0001_initial').Migration\n"
        )
        (folder / "0002_prices.py").write_text(KILLED.format(body=body, atomic=atomic))
        sys.modules.pop("killed_migrations.0002_prices", None)
        importlib.invalidate_caches()
        return override_settings(MIGRATION_MODULES={"app": "killed_migrations"})

    yield make
    for name in [name for name in sys.modules if name.startswith("killed_migrations")]:
        del sys.modules[name]


INTERRUPT = "raise KeyboardInterrupt"


def test_what_cannot_be_rolled_back_and_was_killed_is_left_to_the_operator(two, second_migration):
    with second_migration(INTERRUPT, atomic=False):
        with pytest.raises(CommandError, match="interrupted"):
            migrate_all(*ALL)
        out = io.StringIO()
        with pytest.raises(CommandError, match=r"1 of the migrations failed: a\.test_default"):
            # whose migration would interrupt this run, too
            call_command("migrate_all", *ALL, "--tenant-id", "a.test", stdout=out)
        assert "FAILED MigrationInterrupted: INTERRUPTED: app.0002_prices was killed in the middle" in out.getvalue()
        as_tenant("a.test", "migrate", "app", "0002", "--fake")
        assert migrate_all(*ALL, "--tenant-id", "a.test")[1] == []


def test_what_is_rolled_back_is_tried_again(two, second_migration):
    with second_migration(INTERRUPT, atomic=True), pytest.raises(CommandError, match="interrupted"):
        migrate_all(*ALL)
    with second_migration("pass", atomic=True):
        assert migrate_all(*ALL)[1] == BOTH


def test_what_failed_and_said_so_is_tried_again(two, second_migration):
    with second_migration("raise ValueError('no price')", atomic=False), pytest.raises(CommandError, match="2 of the"):
        migrate_all(*ALL)
    with second_migration("pass", atomic=False):
        assert migrate_all(*ALL)[1] == BOTH
