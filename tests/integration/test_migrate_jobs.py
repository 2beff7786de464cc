"""``migrate_all`` for several tenants at once: how many, on which server, and what is told of it."""

import io
import json
import threading
import time

import pytest
from django.core.management import CommandError, call_command
from django.db.models.signals import pre_migrate

from tenant_router.context_decorators import tenant_context_bind
from tests.app.models import Note

TENANTS = [f"t{number}.test" for number in range(6)]


@pytest.fixture
def six(tenants):
    for tenant_id in TENANTS:
        tenants.put(tenant_id)
    tenants.runtime.reflector.synchronise()
    return tenants


@pytest.fixture
def watched():
    """How many migrations run, at most; a function of the tenant's alias may do something in each of them."""

    class Watch:
        running = most = 0
        lock = threading.Lock()

        def __call__(self, sender, using, **kwargs):
            if sender.label != "app":
                return
            with self.lock:
                self.running += 1
                self.most = max(self.most, self.running)
            try:
                self.act(using)
            finally:
                with self.lock:
                    self.running -= 1

        def act(self, alias):
            time.sleep(0.02)

    watch = Watch()
    pre_migrate.connect(watch, weak=False, dispatch_uid="watch")
    yield watch
    pre_migrate.disconnect(dispatch_uid="watch")


def migrate_all(*arguments):
    out = io.StringIO()
    try:
        call_command("migrate_all", "--exclude-reserved-aliases", *arguments, stdout=out)
    except CommandError as error:
        return out.getvalue(), str(error)
    return out.getvalue(), ""


def test_several_are_migrated_at_once(six, watched, tmp_path):
    both = threading.Barrier(2)  # passed by two at once, and by nobody alone
    watched.act = lambda alias: both.wait(60)
    shown, error = migrate_all("--jobs", "2", "--report", str(tmp_path / "report.json"))
    assert error == ""
    assert sorted(shown.splitlines()) == [f"{tenant_id}_default (django_orm): ok" for tenant_id in TENANTS]
    report = json.loads((tmp_path / "report.json").read_text())
    expected = [
        {"alias": f"{tenant_id}_default", "orm_id": "django_orm", "outcome": "ok", "error": ""} for tenant_id in TENANTS
    ]
    assert report == {"databases": expected, "left": []}
    for tenant_id in TENANTS:
        with tenant_context_bind(tenant_id):
            assert Note.objects.count() == 0


@pytest.mark.parametrize("arguments", [(), ("--jobs", "4", "--jobs-per-server", "1")])
def test_a_server_is_asked_for_no_more_than_it_is_said(six, watched, arguments):
    assert migrate_all(*arguments)[1] == ""
    assert watched.most == 1


def test_too_many_failures_end_the_run(six, watched, tmp_path):
    def fail(alias):
        raise ValueError("no price")

    watched.act = fail
    _, error = migrate_all("--max-failures", "1", "--report", str(tmp_path / "report.json"))
    assert error == (
        "2 of the migrations failed: t0.test_default (django_orm), t1.test_default (django_orm); "
        "4 tenants were not begun"
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert [one["error"] for one in report["databases"]] == ["ValueError: no price"] * 2
    assert report["left"] == TENANTS[2:]
    watched.act = lambda alias: None
    assert migrate_all("--jobs", "3")[1] == ""


def test_lines_of_several_say_whose_they_are(six):
    shown, _ = migrate_all("--jobs", "3", "-v", "2")
    applied = [line for line in shown.splitlines() if "Applying app.0001_initial" in line]
    assert sorted(line.partition(" | ")[0] for line in applied) == [f"{tenant_id}_default" for tenant_id in TENANTS]


@pytest.mark.parametrize("wrong", ["0", "-1", "x"])
def test_a_number_of_jobs_that_is_none(six, wrong):
    with pytest.raises(CommandError, match="jobs"):
        call_command("migrate_all", "--jobs", wrong)
