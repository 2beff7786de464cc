"""``TenantTestRunner``: a project's own suite has the same outcomes as with plain Django, test by test.

The suite is that of ``tests/suite_project``, in processes of its own; ``tests/suite_project/run`` runs it with every
option, start method and database.
"""

import json
import os
import pickle
import subprocess
import sys
import textwrap

import pytest

from tenant_router import exceptions
from tests.suite_project import running

# The projects of the tests about bad input: Django's own apps, one template, one test.
TINY = """
    SECRET_KEY = "tiny"
    DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
    INSTALLED_APPS = ["tenant_router", "django.contrib.auth", "django.contrib.contenttypes"]
    MIDDLEWARE = ["tenant_router.middleware.TenantContextMiddleware"]
    DATABASE_ROUTERS = ["tenant_router.orm_backends.django_orm.router.DjangoOrmRouter"]
    TENANT_ROUTER_SERVICE_NAME = "tiny"
    TENANT_ROUTER_CONFIG_STORE_SETTINGS = {"BACKEND": "tenant_router.config_store.backends.memory.MemoryStore"}
    TENANT_ROUTER_ORM_SETTINGS = {"django_orm": {"SETTINGS_KEY": "DATABASES"}}
    TENANT_ROUTER_TEST_SETTINGS = {"OTHER_TENANT_IDS": ["b"]}
    TEST_RUNNER = "tenant_router.testing.TenantTestRunner"
    SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": "real.sqlite3"}
    DATABASES = {"default": {**SQLITE}}
"""
ONE_TEST = """
    from django.contrib.auth.models import User
    from django.db import connections
    from tenant_router.testing import TenantTestCase

    class One(TenantTestCase):
        databases = "__all__"

        def test_one(self):
            User.objects.create(username="ada")
            self.assertEqual(User.objects.count(), 1)
            with self.tenant("b"):
                print("at b:", User.objects.count())
            print({alias: connections[alias].alias for alias in connections})
"""
NO_DATABASE = """
    from django.test import SimpleTestCase

    class One(SimpleTestCase):
        def test_one(self):
            self.assertEqual(self.client.get("/").status_code, 404)
"""


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The outcomes with plain Django; all tests pass."""
    found = running.django("plain", tmp_path_factory.mktemp("plain"))
    assert len(found) > 90
    assert set(found.values()) == {"ok", "skipped"}, found.output
    return found


@pytest.mark.parametrize("mode", ["template", "tenant"])
def test_same_outcomes(plain, tmp_path, mode):
    routed = running.django(mode, tmp_path, others="b.test")
    assert plain.differing(routed) == running.EXPECTED[mode], routed.output


def test_strict_says_what_fails_in_production(tmp_path):
    label = "shop.tests.test_connections.Threads"
    found = running.django("strict", tmp_path, labels=(label,))
    assert {test for test in found if found[test] == "ERROR"} == {test for test in running.UNBOUND if label in test}
    assert "no tenant is bound here" in found.output


@pytest.mark.parametrize(("mode", "start_method"), [("template", "fork"), ("tenant", "spawn")])
def test_parallel_processes(tmp_path, mode, start_method):
    labels = ("shop.tenant_tests.test_tenants.Named", "shop.tenant_tests.test_tenants.Transactions")
    args = {"labels": labels, "others": "b.test c.test", "start_method": start_method}
    found = running.django(mode, tmp_path, "--parallel", "2", **args)
    assert len(found) > 10
    assert set(found.values()) == {"ok"}, found.output


@pytest.mark.parametrize("mode", ["template", "tenant"])
def test_databases_are_kept_as_django_keeps_them(tmp_path, mode):
    """The second run finds what the first left; what fails then (for flushed rows) fails plainly, too."""
    label, ended = "shop.tests.test_cases", {}
    for name, others in (("plain", ""), (mode, "b.test c.test")):
        extra = {"labels": (label,), "database": "file", "others": others}
        ended[name] = [running.django(name, tmp_path / name, "--keepdb", **extra) for _ in range(2)]
    for plainly, routed in zip(ended["plain"], ended[mode], strict=True):
        assert len(plainly) > 30
        assert plainly.differing(routed) == running.EXPECTED[mode], routed.output
    kept = {path.name for path in (tmp_path / mode).glob("test_default.sqlite3_*")}
    assert len(kept) == 2
    assert "Applying shop" not in ended[mode][1].output


def test_own_runner_mixed_in(tmp_path):
    args = ("--shop", "big", "--parallel", "2")
    found = running.django(
        "template",
        tmp_path,
        *args,
        labels=("shop.tests.test_connections.Overridden", "shop.tests.test_connections.Migrating"),
        runner="own",
    )
    assert "skipped" not in found.values()
    assert set(found.values()) == {"ok"}, found.output


# --- no real database ---

REAL = ("acme", "acme-documents", "acme-replica", "default", "documents", "central")
AUDIT = """
    import os, sys

    def audit(event, args):
        if event in ("sqlite3.connect", "socket.connect", "open"):
            with_log(event, args[-1] if event == "socket.connect" else args[0])

    def with_log(event, what):
        os.write(log, f"{event} {what}\\n".encode())

    log = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    sys.addaudithook(audit)
"""


@pytest.fixture
def real(tmp_path, redis_server):
    """A project whose real tenant "acme.test" is within reach, as are the databases of its templates."""
    scratch = tmp_path / "run"
    store = {"store": "tenant_router.config_store.backends.redis.RedisStore", "redis": redis_server.url}
    env = running.environment("template", scratch, **store)
    for name in REAL:
        (scratch / f"{name}.sqlite3").write_bytes(b"real")
    names = {"default": "acme", "documents": "acme-documents", "replica": "acme-replica"}
    record = {"orm_config": {"django_orm": {a: {"NAME": str(scratch / f"{n}.sqlite3")} for a, n in names.items()}}}
    file = tmp_path / "tenant_config.json"
    file.write_text(json.dumps({"tenant_config": {"acme.test": {"suite": record}}, "mapping_metadata": {}}))
    loaded = manage(env, scratch, "load_tenant_config", "--file", str(file))
    assert loaded.returncode == 0, loaded.stderr
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "sitecustomize.py").write_text(textwrap.dedent(AUDIT))
    paths = f"{tmp_path / 'audit'}{os.pathsep}{env['PYTHONPATH']}"
    return {**env, "PYTHONPATH": paths, "AUDIT_LOG": str(tmp_path / "audit.log")}, scratch


def manage(env, scratch, *args):
    command = [sys.executable, "-W", "ignore", running.HERE / "manage.py", *args]
    return subprocess.run(command, env=env, cwd=scratch, capture_output=True, text=True, timeout=120, check=False)


def events(env, kind):
    """What the processes of a run have opened."""
    with open(env["AUDIT_LOG"]) as log:
        return [line.split(" ", 1)[1].strip() for line in log if line.startswith(f"{kind} ")]


def test_a_run_opens_no_real_database_and_no_store(real, redis_server):
    env, scratch = real
    done = manage({**env, "SUITE_OTHERS": "b.test c.test"}, scratch, "test", "shop.tenant_tests", "--parallel", "2")
    assert done.returncode == 0, done.stderr
    assert str(redis_server.port) not in " ".join(events(env, "socket.connect"))
    opened = [*events(env, "sqlite3.connect"), *events(env, "open")]
    assert any("memorydb_default" in name for name in opened)
    assert not [name for name in opened if name.endswith(tuple(f"/{real}.sqlite3" for real in REAL))]
    assert {(scratch / f"{name}.sqlite3").read_bytes() for name in REAL} == {b"real"}


@pytest.mark.parametrize("mode", ["template", "tenant"])
def test_nothing_that_a_test_does_reaches_a_real_database(real, mode):
    env, scratch = real
    env = {**env, "SUITE_MODE": mode, "SUITE_HOLD": "1", "TENANT_ID": "acme.test"}
    done = manage(env, scratch, "test", "shop.hostile_tests", "-v", "2")
    assert done.returncode == 0, done.stderr
    assert "Ran 9 tests" in done.stderr
    opened = [*events(env, "sqlite3.connect"), *events(env, "open")]
    assert not [name for name in opened if name.endswith(tuple(f"/{real}.sqlite3" for real in REAL))]
    assert {(scratch / f"{name}.sqlite3").read_bytes() for name in REAL} == {b"real"}


def test_no_tenant_can_be_chosen(real):
    env, scratch = real
    done = manage(env, scratch, "test", "shop.hostile_tests", "--tenant-id", "acme.test")
    assert done.returncode == 1
    assert "does not take --tenant-id" in done.stderr


# --- what projects look like ---


@pytest.fixture
def tiny(tmp_path):
    """A function that runs the tests of a small project: its settings end with ``settings``."""

    def run(settings="", test=ONE_TEST, *args, **files):
        (tmp_path / "tiny.py").write_text(textwrap.dedent(TINY) + textwrap.dedent(settings))
        (tmp_path / "test_tiny.py").write_text(textwrap.dedent(test))
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        env = {**os.environ, "PYTHONPATH": f"{running.ROOT}{os.pathsep}{tmp_path}", "DJANGO_SETTINGS_MODULE": "tiny"}
        command = [sys.executable, "-W", "ignore", "-m", "django", "test", "--noinput", "test_tiny", *args]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


def test_own_test_runner_is_told_what_to_do(tiny):
    own = "from django.test.runner import DiscoverRunner\nclass Own(DiscoverRunner): pass"
    code, output = tiny("TEST_RUNNER = 'own.Own'", own=own)
    assert code == 1
    assert output.splitlines() == [
        "CommandError: the test runner 'own.Own' binds no tenant: set TEST_RUNNER = "
        "'tenant_router.testing.TenantTestRunner', or a 'class Runner(TenantTestRunner, Own)'"
    ]


def test_default_test_runner_is_told_what_to_do(tiny):
    code, output = tiny("del TEST_RUNNER")
    assert code == 1
    assert output.strip().endswith("set TEST_RUNNER = 'tenant_router.testing.TenantTestRunner'")


@pytest.mark.parametrize("aliases", ["template", "tenant"])
def test_only_reserved_aliases(tiny, aliases):
    settings = f"""
        TENANT_ROUTER_ORM_SETTINGS["django_orm"]["OPTIONS"] = {{"RESERVED_CONN_ALIASES": {{"default"}}}}
        TENANT_ROUTER_TEST_SETTINGS["ALIASES"] = {aliases!r}
    """
    code, output = tiny(settings)
    assert code == 0, output
    assert "at b: 1\n{'default': 'default'}" in output


def test_empty_databases(tiny):
    code, output = tiny("DATABASES = {}", NO_DATABASE.replace('self.client.get("/").status_code', "404"))
    assert code == 0, output


def test_no_default(tiny):
    code, output = tiny("DATABASES = {'main': SQLITE}")
    assert code == 1
    assert "You must define a 'default' database." in output


def test_empty_default(tiny):
    settings = """
        DATABASES = {"default": {}, "main": SQLITE}
        TENANT_ROUTER_ORM_SETTINGS["django_orm"]["OPTIONS"] = {"RESERVED_CONN_ALIASES": {"default"}}
    """
    code, output = tiny(settings, NO_DATABASE.replace('self.client.get("/").status_code', "404"))
    assert code == 0, output


def test_two_templates_on_one_database(tiny):
    settings = """
        DATABASES["second"] = {**SQLITE, "TEST": {"NAME": "test.sqlite3"}}
        DATABASES["default"]["TEST"] = {"NAME": "test.sqlite3"}
    """
    code, output = tiny(settings)
    assert code == 0, output
    assert "at b: 0\n{'default': 'default', 'second': 'second'}" in output


@pytest.mark.parametrize("aliases", ["template", "tenant"])
def test_custom_backend(tiny, tmp_path, aliases):
    backend = """
        from django.db.backends.sqlite3 import base, creation

        class DatabaseCreation(creation.DatabaseCreation):
            def _create_test_db(self, *args, **kwargs):
                print("created by the custom backend for", self.connection.alias)
                return super()._create_test_db(*args, **kwargs)

        class DatabaseWrapper(base.DatabaseWrapper):
            creation_class = DatabaseCreation
    """
    (tmp_path / "custom").mkdir()
    (tmp_path / "custom" / "base.py").write_text(textwrap.dedent(backend))
    settings = f"DATABASES['default']['ENGINE'] = 'custom'\nTENANT_ROUTER_TEST_SETTINGS['ALIASES'] = {aliases!r}"
    code, output = tiny(settings)
    assert code == 0, output
    assert "created by the custom backend for default" in output
    assert "created by the custom backend for b_default" in output


def test_wrong_aliases_setting(tiny):
    code, output = tiny("TENANT_ROUTER_TEST_SETTINGS['ALIASES'] = 'production'")
    assert code == 1
    assert "TENANT_ROUTER_TEST_SETTINGS['ALIASES'] is 'template' or 'tenant', not 'production'" in output


def test_bad_tenant_id(tiny):
    code, output = tiny("TENANT_ROUTER_TEST_SETTINGS['OTHER_TENANT_IDS'] = ['Not an id']")
    assert code == 1
    assert "'Not an id' is no tenant id" in output


def test_unneeded_template_is_no_test_database(tiny):
    test = """
        from unittest import TestCase
        from django.contrib.auth.models import User

        class One(TestCase):
            def test_one(self):
                User.objects.count()
    """
    code, output = tiny("", test)
    assert code == 1
    assert "RealDatabase: database alias 'default' still means 'real.sqlite3', which is no test database" in output


def test_errors_can_be_pickled():
    """A parallel run sends them to the parent process."""
    conflict = pickle.loads(pickle.dumps(exceptions.Conflict("acme.test", 1, 2)))
    assert (conflict.tenant_id, conflict.expected, conflict.have) == ("acme.test", 1, 2)
    invalid = pickle.loads(pickle.dumps(exceptions.RecordInvalid([("a.b", "is bad")])))
    assert (invalid.problems, str(invalid)) == ((("a.b", "is bad"),), "a.b: is bad")
    not_found = pickle.loads(pickle.dumps(exceptions.TenantNotFound("no such", "acme.test")))
    assert not_found.tenant_id == "acme.test"
