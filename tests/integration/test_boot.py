"""How a process starts, and how it does not: settings that are wrong, stores that are away."""

import os
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from django.apps import apps
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings

from tenant_router import runtime
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import BootError, ConfigurationError, StoreUnavailable, TenantMisconfigured
from tenant_router.managers import tenant_context_manager
from tenant_router.reactive import boot
from tests.servers import RedisServer, short_directory
from tests.tenants import Tenants

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = "tests.integration.test_boot"
REDIS = "tenant_router.config_store.backends.redis.RedisStore"
CANARY = "canary-password"
NOBODYS_PORT = 1  # which nobody listens on
# seconds for a server that stops at once, on a machine that may stand still meanwhile; one that waits needs LONG
SOON, LONG = 20.0, 60.0
RAN: list = []


def first():
    RAN.append(("first", runtime.is_installed()))


def second():
    RAN.append(("second", runtime.is_installed()))


not_callable = "a string"


# --- bootstrap callables ---


def _ready():
    apps.get_app_config("tenant_router").ready()


@pytest.fixture
def uninstalled(fresh_runtime):
    """Nothing of ours is installed, as before ``django.setup()``."""
    fresh_runtime().uninstall()
    RAN.clear()
    from tenant_router.conf import conf

    conf.forget()


def test_callables_run_once_in_order_after_the_bootstrap(uninstalled):
    with override_settings(TENANT_ROUTER_BOOTSTRAP_SETTINGS=[f"{HERE}.second", f"{HERE}.first"]):
        _ready()
        assert RAN == [("second", True), ("first", True)]
        _ready()
        assert len(RAN) == 2


@pytest.mark.parametrize(
    ("path", "what"),
    [("no.such.thing", "cannot import"), ("nodots", "cannot import"), (f"{HERE}.not_callable", "not a callable")],
)
def test_a_callable_that_cannot_be_had_is_named_and_none_runs(uninstalled, path, what):
    with override_settings(TENANT_ROUTER_BOOTSTRAP_SETTINGS=[f"{HERE}.first", path]):
        with pytest.raises(
            ConfigurationError, match=f"TENANT_ROUTER_BOOTSTRAP_SETTINGS.*{path}.*{what}|{what}.*{path}"
        ):
            _ready()
    assert RAN == []
    assert not runtime.is_installed()


def test_a_string_is_no_list_of_callables(uninstalled):
    """Defect (p) of the prototype: a string was taken for a class and called."""
    with override_settings(TENANT_ROUTER_BOOTSTRAP_SETTINGS=f"{HERE}.first"):
        with pytest.raises(ConfigurationError, match="is not a sequence of dotted paths"):
            _ready()
    assert RAN == []


def test_what_a_callable_raises_is_not_swallowed(uninstalled):
    with override_settings(TENANT_ROUTER_BOOTSTRAP_SETTINGS=["tests.integration.test_boot.fails"]):
        with pytest.raises(ZeroDivisionError):
            _ready()


def fails():
    return 1 / 0


def test_ready_twice_keeps_the_one_runtime(uninstalled):
    _ready()
    installed = runtime.get()
    _ready()
    assert runtime.get() is installed


def test_ready_reads_no_store(uninstalled, redis_server):
    """Build-time commands run where the store is not reachable."""
    with _store({"HOST": "127.0.0.1", "PORT": NOBODYS_PORT}):
        _ready()
        assert runtime.get().reflector.head is None
        assert runtime.get().reflector._thread is None


# --- servers ---


def _store(location, **options):
    store = {"BACKEND": REDIS, "LOCATION": location, "OPTIONS": {"BOOT_TIMEOUT": 1, **options}}
    return override_settings(TENANT_ROUTER_CONFIG_STORE_SETTINGS=store)


def _refused(make):
    started = time.monotonic()
    with pytest.raises(BootError) as caught:
        make().serve("web")
    line = str(caught.value)
    assert "\n" not in line
    assert "'tests'" in line
    return line, time.monotonic() - started


def test_a_server_whose_store_is_unreachable_stops_within_its_time(fresh_runtime):
    with _store({"HOST": "127.0.0.1", "PORT": NOBODYS_PORT}):
        line, seconds = _refused(fresh_runtime)
    assert "cannot be read" in line
    assert 0.9 < seconds < SOON  # without the option it waits for half a minute


def test_a_server_whose_store_does_not_answer_stops(fresh_runtime):
    with short_directory() as directory:
        server = RedisServer(directory)
        server.start()
        server.pause()
        try:
            with _store({"URL": server.url}):
                line, seconds = _refused(fresh_runtime)
        finally:
            server.stop()
    assert "cannot be read" in line
    assert seconds < SOON


def test_a_server_whose_store_is_empty_stops_at_once_and_says_what_to_do(fresh_runtime, redis_server):
    redis_server.client().flushall()
    with _store({"URL": redis_server.url}, BOOT_TIMEOUT=LONG):
        line, seconds = _refused(fresh_runtime)
    assert "load_tenant_config" in line
    assert seconds < SOON


def test_a_server_with_a_wrong_password_stops_at_once_and_does_not_show_it(fresh_runtime):
    with short_directory() as directory:
        server = RedisServer(directory, "--requirepass", "right")
        server.start()
        try:
            with _store({"HOST": "127.0.0.1", "PORT": server.port, "PASSWORD": CANARY}, BOOT_TIMEOUT=LONG):
                line, seconds = _refused(fresh_runtime)
        finally:
            server.stop()
    assert CANARY not in line
    assert seconds < SOON


def test_a_server_waits_for_a_store_that_starts_late(fresh_runtime):
    with short_directory() as directory:
        server = RedisServer(directory, "--appendonly", "yes")
        with _store({"URL": server.url}, BOOT_TIMEOUT=LONG):
            made = fresh_runtime()
            server.start()
            Tenants(made, None).delete("nobody.test")  # an empty store is not waited for
            server.stop()
            late = threading.Timer(0.5, server.start)
            late.start()
            try:
                made.serve("web")
                late.join()
                assert made.reflector.ready
            finally:
                late.join()
                made.uninstall()
                server.stop()


def test_the_middleware_makes_the_process_a_server(fresh_runtime):
    fresh_runtime()  # its store is empty
    with pytest.raises(BootError, match="load_tenant_config"):
        WSGIHandler()


def test_a_server_refuses_to_be_bound_to_one_tenant(tenants, monkeypatch):
    tenants.put("a.test")
    monkeypatch.setenv("TENANT_ID", "a.test")
    with pytest.raises(BootError, match="TENANT_ID is set"):
        WSGIHandler()


def test_a_script_has_a_live_registry_at_its_first_access(fresh_runtime, tmp_path):
    made = fresh_runtime()
    Tenants(made, tmp_path).put("a.test")
    assert tenant_context_manager.get_tenant_ids() == ["a.test"]
    assert made.reflector._thread.is_alive()


def test_a_script_whose_store_is_down_hears_one_clear_error(fresh_runtime):
    with _store({"HOST": "127.0.0.1", "PORT": NOBODYS_PORT}):
        fresh_runtime()
        with pytest.raises(StoreUnavailable):
            tenant_context_manager.get_tenant_ids()


def test_a_script_whose_store_is_empty_hears_what_to_do(fresh_runtime):
    fresh_runtime()
    with pytest.raises(BootError, match="load_tenant_config"):
        tenant_context_manager.contains("a.test")


def test_without_the_app_the_middleware_says_what_is_missing(uninstalled):
    with pytest.raises(ConfigurationError, match="INSTALLED_APPS"):
        WSGIHandler()


# --- processes with wrong settings ---

FAULTS = {
    "no service name": "del TENANT_ROUTER_SERVICE_NAME",
    "misspelt key": "TENANT_ROUTER_CONFIG_STORE_SETTINGS = {'BAKEND': 'x'}",
    "no such backend": "TENANT_ROUTER_CONFIG_STORE_SETTINGS = {'BACKEND': 'no.such.Store'}",
    "wrong option": "TENANT_ROUTER_ORM_SETTINGS['django_orm']['OPTIONS']['RESERVED'] = 1",
    "option of a wrong type": "TENANT_ROUTER_ORM_SETTINGS['django_orm']['OPTIONS']['MAX_OPEN_CONNECTIONS'] = 'many'",
    "no such callable": "TENANT_ROUTER_BOOTSTRAP_SETTINGS = ['no.such.callable']",
}


@pytest.fixture
def run(tmp_path):
    """A function that runs Python in a project whose settings end in the given line; its template is a real file."""
    template = tmp_path / "template.db"

    def start(line, *arguments):
        module = f"from tests.settings import *\nDATABASES['default']['NAME'] = {str(template)!r}\n{line}\n"
        (tmp_path / "wrong_settings.py").write_text(module)
        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "wrong_settings"}
        environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(ROOT)])
        finished = subprocess.run(
            [sys.executable, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert not template.exists(), "the template's own database was opened"
        return finished

    return start


MANAGE = str(ROOT / "tests" / "manage.py")
QUERY = "from tests.app.models import Note; print(Note.objects.count())"


@pytest.mark.parametrize("fault", FAULTS)
def test_no_server_and_no_script_starts_with_faulty_settings(run, fault):
    finished = run(FAULTS[fault], "-c", "import django; django.setup(); print('started')")
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.splitlines()[-1].startswith("tenant_router.exceptions.ConfigurationError: ")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("command", [["shell", "-c", QUERY], ["migrate"], ["dbshell"]])
def test_no_command_runs_with_faulty_settings(run, fault, command):
    finished = run(FAULTS[fault], MANAGE, *command)
    assert finished.returncode == 1
    assert finished.stderr == (
        "CommandError: the settings of tenant_router are incomplete: run 'python manage.py check'\n"
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_the_checks_report_faulty_settings(run, fault):
    finished = run(FAULTS[fault], MANAGE, "check")
    assert finished.returncode == 1
    assert "tenant_router.E00" in finished.stderr
    assert "Traceback" not in finished.stderr


EAGER = """
from django.apps import AppConfig
class Eager(AppConfig):
    name = "eager"
    def ready(self):
        from django.db import connection
        from tenant_router.exceptions import TenantRouterError
        try:
            connection.cursor().execute("SELECT 1")
        except TenantRouterError as error:
            print("refused:", type(error).__name__)
"""


@pytest.mark.parametrize(
    ("line", "error"), [("", "TenantContextMissing"), (FAULTS["no service name"], "ConfigurationError")]
)
def test_another_apps_ready_cannot_query_the_template(run, tmp_path, line, error):
    (tmp_path / "eager").mkdir()
    (tmp_path / "eager" / "__init__.py").write_text("")
    (tmp_path / "eager" / "apps.py").write_text(textwrap.dedent(EAGER))
    finished = run(f"INSTALLED_APPS.append('eager')\n{line}", MANAGE, "check")
    assert f"refused: {error}" in finished.stdout


@pytest.mark.parametrize("command", [["check"], ["makemigrations", "--check", "--dry-run"], ["--help"], ["version"]])
def test_commands_that_need_no_tenant_work_without_a_store(run, command):
    location = f"{{'HOST': '127.0.0.1', 'PORT': {NOBODYS_PORT}}}"
    line = f"TENANT_ROUTER_CONFIG_STORE_SETTINGS.update(BACKEND={REDIS!r}, LOCATION={location})"
    finished = run(line, MANAGE, *command)
    assert finished.returncode == 0, finished.stderr


def test_settings_are_read_at_the_first_use_and_not_at_import():
    code = "import tenant_router.conf, tenant_router.context; print('fine')"
    environment = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
    finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert finished.stdout == "fine\n", finished.stderr
    assert settings.configured


# --- bad records ---


@pytest.fixture
def holding(fresh_runtime, tmp_path):
    """A function that makes a runtime, not started yet, whose store holds ``count`` records; those in ``bad`` are."""

    def make(count, bad=()):
        tenants = Tenants(fresh_runtime(), tmp_path)
        for number in range(count):
            record = {"orm_config": {"django_orm": {"default": {"NAME": 5}}}} if number in bad else None
            tenants.put(f"t{number:03}.test", record)
        return tenants.runtime

    return make


@pytest.mark.parametrize(
    ("count", "bad"),
    [(2, {0, 1}), (60, set(range(60))), (100, set(range(0, 100, 5)))],
    ids=["two of two", "all", "a fifth of them"],
)
def test_a_server_that_refuses_most_records_stops(holding, count, bad):
    made = holding(count, bad)
    for _ in range(2):  # trying again does not get it through
        with pytest.raises(BootError, match="records of service 'tests' are refused here") as caught:
            made.serve("web")
    assert f"{len(bad)} of {count} " in str(caught.value)
    assert "orm_config.django_orm.default.NAME" in str(caught.value)


@pytest.mark.parametrize(
    ("count", "bad"),
    [(1, {0}), (2, {0}), (12, set(range(10))), (100, set(range(0, 50, 5)))],
    ids=["one of one", "one", "ten of twelve", "a tenth, half of the sample"],
)
def test_a_few_bad_records_are_their_tenants_matter(holding, count, bad):
    made = holding(count, bad)
    made.serve("web")
    for number in range(count):
        refused = pytest.raises(TenantMisconfigured) if number in bad else nullcontext()
        with refused, tenant_context_bind(f"t{number:03}.test"):
            pass


def test_the_share_of_bad_records_is_a_setting(holding, monkeypatch):
    made = holding(10, range(10))
    monkeypatch.setitem(made.conf.store_options, "MAX_BOOT_NACK", 1.0)
    made.serve("web")


def test_of_many_good_records_a_few_are_looked_at_and_none_is_kept(holding, monkeypatch):
    made, looked_at = holding(100), []
    monkeypatch.setattr(made.pipeline._builder, "_check", lambda record: looked_at.append(record) or [])
    made.serve("web")
    assert len(looked_at) == boot.SAMPLE
    assert made.registry.prepared == {}
