"""``migrate_all``: what fails is named, counted per database and stops nothing; what is shown on a terminal."""

import io
import os
import pty
import threading

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from tenant_router.management.migrating import Migration
from tenant_router.orm_backends.base import BaseOrmManager, BaseOrmMigrationAsst
from tests.fixtures_orm import SQLITE

HERE = "tests.integration.test_migrate_all"


class Raising(BaseOrmMigrationAsst):
    """Migrates the first database and then fails as a whole."""

    def perform_migrate(self):
        self.run.report(f"{self.run.contexts[0].id}_default", None)
        raise self.options.get("error", RuntimeError)("no\nserver")


class Leaving(Raising):
    def perform_migrate(self):
        raise SystemExit(3)


class Failing(BaseOrmMigrationAsst):
    """Reports a failure of each tenant's database, under the alias that the Django ORM has, too."""

    def perform_migrate(self):
        for context in self.run.contexts:
            self.run.report(f"{context.id}_default", ValueError("bad"))


class OtherManager(BaseOrmManager):
    """An ORM that can be migrated and nothing else."""

    def prepare(self, tenant_id, config, previous):
        return {}

    def retire(self, previous, current):
        pass


@pytest.fixture
def both(project, monkeypatch):
    """A function: tenants of a project with two ORMs, the other's assistant being ``assistant``, which comes first."""
    from django.conf import settings

    from tests.tenants import Tenants

    def make(assistant, fresh_runtime, first=True):
        made = project({"default": {**SQLITE}, "central": {**SQLITE, "NAME": ":memory:"}}, reserved={"central"})
        django_orm = settings.TENANT_ROUTER_ORM_SETTINGS
        other = {
            "other_orm": {
                "MANAGER": f"{HERE}.OtherManager",
                "SETTINGS_KEY": "DATABASES",
                "OPTIONS": {"MIGRATION_ASST": {"CLASS": f"{HERE}.{assistant}"}, "RESERVED_CONN_ALIASES": {"central"}},
            }
        }
        both = {**other, **django_orm} if first else {**django_orm, **other}
        monkeypatch.setattr(settings, "TENANT_ROUTER_ORM_SETTINGS", both)
        tenants = Tenants(fresh_runtime(), made.directory)
        for name in ("a.test", "b.test"):
            record = tenants.record(name)
            record["orm_config"]["other_orm"] = {"default": {}}
            tenants.put(name, record)
        return tenants

    return make


def migrate(*arguments):
    """What is printed, and the error."""
    out = io.StringIO()
    try:
        call_command("migrate_all", *arguments, stdout=out)
    except CommandError as error:
        return out.getvalue().splitlines(), str(error)
    return out.getvalue().splitlines(), None


def test_an_assistant_that_raises_stops_nothing_and_is_reported(both, fresh_runtime):
    both("Raising", fresh_runtime)
    shown, error = migrate()
    assert "other_orm: FAILED RuntimeError: no server" in shown
    assert {"a.test_default (django_orm): ok", "b.test_default (django_orm): ok", "central (django_orm): ok"} <= {
        *shown
    }
    assert error == "1 of the migrations failed: other_orm"


def test_an_assistant_that_leaves_stops_nothing_either(both, fresh_runtime):
    both("Leaving", fresh_runtime)
    shown, error = migrate()
    assert "other_orm: FAILED SystemExit: 3" in shown
    assert "b.test_default (django_orm): ok" in shown
    assert error == "1 of the migrations failed: other_orm"


def test_failures_are_counted_per_database(both, fresh_runtime):
    tenants = both("Failing", fresh_runtime, first=False)
    (tenants.directory / "a.test.db").mkdir()  # which the Django ORM cannot open
    _, error = migrate()
    failed = "a.test_default (django_orm), a.test_default (other_orm), b.test_default (other_orm)"
    assert error == f"3 of the migrations failed: {failed}"


def test_whom_a_failure_concerns(both, fresh_runtime):
    tenants = both("Raising", fresh_runtime)
    contexts = [tenants.runtime.registry.get_in_any_state(name) for name in ("a.test", "b.test")]
    migration = Migration(tenants.runtime, _Out(), plan=False, reserved=False, verbosity=0)
    migration.run(contexts)
    assert (migration.migrated("a.test"), migration.migrated("b.test")) == (True, False)


class _Out(io.StringIO):
    _out = None


# --- migrations ---


MIGRATIONS = {
    "0001_initial": "operations = []",
    "0002_prices": "operations = [migrations.RunPython(fails)]",
}


@pytest.fixture
def failing(two, tmp_path, monkeypatch):
    """A function that gives the application a second migration, whose body is given; two tenants are migrated."""
    folder = tmp_path / "failing_migrations"
    folder.mkdir()
    (folder / "__init__.py").write_text("")

    def make(body):
        for name, operations in MIGRATIONS.items():
            before = [("app", "0001_initial")] if name != "0001_initial" else []
            (folder / f"{name}.py").write_text(
                "from django.db import migrations\n"
                f"def fails(apps, editor):\n    {body}\n"
                "class Migration(migrations.Migration):\n"
                f"    dependencies = {before}\n    {operations}\n"
            )
        monkeypatch.syspath_prepend(str(tmp_path))
        return override_settings(MIGRATION_MODULES={"app": "failing_migrations"})

    yield make
    import sys

    for name in [name for name in sys.modules if name.startswith("failing_migrations")]:
        del sys.modules[name]


ONLY_A = "if 'a.test' in str(editor.connection.settings_dict['NAME']): "


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise ValueError('no\\n\\tprice')", "ValueError: no price"),
        ("raise KeyError", "KeyError"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
    ],
)
def test_a_failing_migration_is_named(failing, body, said):
    with failing(ONLY_A + body):
        shown, error = migrate("--exclude-reserved-aliases", "-v0")
        verbose, _ = migrate("--exclude-reserved-aliases", "-v2")
    line = f"a.test_default (django_orm): FAILED app.0002_prices: {said}"
    assert line in shown
    assert "b.test_default (django_orm): ok" in shown
    assert error == "1 of the migrations failed: a.test_default (django_orm)"
    assert verbose[verbose.index(line) - 1] == "  Applying app.0002_prices..."  # whole lines, also of what was begun


def test_a_plan_names_the_tenant_before_its_plan(failing):
    with failing("pass"):
        shown, _ = migrate("--plan", "--exclude-reserved-aliases")
    begins = [number for number, line in enumerate(shown) if line == "Planned operations:"]
    assert [shown[number - 1] for number in begins] == ["a.test_default (django_orm):", "b.test_default (django_orm):"]
    assert sum("app.0002_prices" in line for line in shown) == 2
    assert not any(line.endswith(": ok") for line in shown)


# --- on a terminal ---


@pytest.fixture
def screen():
    """A terminal's both ends: a stream to write to, and a function that returns what it showed when that is closed."""
    master, slave = pty.openpty()
    stream, pieces = os.fdopen(slave, "w"), []

    def read():
        try:
            while piece := os.read(master, 65536):
                pieces.append(piece)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()

    def shown():
        stream.close()
        reader.join(60)
        return b"".join(pieces).decode()

    yield stream, shown
    if not stream.closed:
        shown()
    os.close(master)


def test_a_failure_stands_above_the_bar(failing, screen, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream, shown = screen
    with failing(ONLY_A + "raise ValueError('no price')"), pytest.raises(CommandError):
        call_command("migrate_all", "--exclude-reserved-aliases", stdout=stream)
    text = shown()
    failure = "a.test_default (django_orm): FAILED app.0002_prices: ValueError: no price"
    before, found, after = text.partition(f"{failure}\r\n")
    assert found, text
    assert before.endswith("\x1b[2K"), text  # the bar's line was taken away before
    assert "100%" in after
    assert ": ok" not in text


@pytest.mark.parametrize("state", ["S", "P"])
def test_who_is_not_served_is_migrated_too(tenants, state):
    tenants.put("a.test", state=state)
    shown, error = migrate("--exclude-reserved-aliases")
    assert (shown, error) == (["a.test_default (django_orm): ok"], None)


def test_a_pipe_gets_plain_lines(two):
    shown, _ = migrate("--exclude-reserved-aliases", "--verify")
    assert shown == ["a.test_default (django_orm): ok", "b.test_default (django_orm): ok"]


# --- interrupted ---


class Interrupted(Raising):
    def perform_migrate(self):
        self.run.report("a.test_default", None)
        raise KeyboardInterrupt


def test_an_interruption_is_one_line(both, fresh_runtime):
    both("Interrupted", fresh_runtime)
    shown, error = migrate()
    assert error == "interrupted: 1 database(s) are migrated; run it again to go on"
    assert shown == ["a.test_default (other_orm): ok"]
