"""``settings.DATABASES`` means what ``connections`` means, lists what the project wrote, and shows no password."""

import copy
import io
import json
import pprint
from contextlib import nullcontext

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections, router
from django.test import RequestFactory, override_settings
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter

from tenant_router.conf import conf
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantMismatch
from tests.app.models import Note

CANARY = "canary-of-a-password"


@pytest.fixture
def secret(project):
    """Two tenants whose databases have a password, as has their template."""
    engine = {"ENGINE": "django.db.backends.postgresql", "NAME": "template", "HOST": "nowhere.invalid"}
    tenants = project(
        {
            "default": {**engine, "PASSWORD": f"{CANARY}-template", "OPTIONS": {"passfile": CANARY}},
            "central": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:", "PASSWORD": CANARY},
        },
        reserved={"central"},
    )
    for letter in "ab":
        given = {"NAME": letter, "PASSWORD": f"{CANARY}-{letter}"}
        tenants.arrived(
            f"{letter}.test", tenants.put(f"{letter}.test", {"orm_config": {"django_orm": {"default": given}}})
        )
    return tenants


def test_it_resolves_and_lists_static_aliases(secret):
    raw = {"default": "template", "central": ":memory:"}
    assert {alias: settings.DATABASES[alias]["NAME"] for alias in settings.DATABASES} == raw
    assert settings.DATABASES["a.test_default"]["NAME"] == "a"
    for letter in "ab":
        with tenant_context_bind(f"{letter}.test"):
            # as django-celery-results does it
            assert settings.DATABASES[router.db_for_write(Note)]["ENGINE"] == "django.db.backends.postgresql"
            for found in (settings.DATABASES["default"], settings.DATABASES.get(f"{letter}.test_default")):
                assert found is connections["default"].settings_dict
                assert (found["NAME"], found["PASSWORD"]) == (letter, f"{CANARY}-{letter}")
            assert list(settings.DATABASES) == list(settings.DATABASES.keys()) == ["default", "central"]
            assert [found["NAME"] for found in settings.DATABASES.values()] == [letter, ":memory:"]
            assert {alias: found["NAME"] for alias, found in settings.DATABASES.items()}["default"] == letter
            assert settings.DATABASES.copy()["default"]["NAME"] == letter
            assert json.loads(json.dumps(settings.DATABASES))["default"]["NAME"] == letter
            assert len(settings.DATABASES) == 2
            assert f"{letter}.test_default" in settings.DATABASES
            with pytest.raises(TenantMismatch):
                settings.DATABASES["a.test_default" if letter == "b" else "b.test_default"]
    assert "nobody_default" not in settings.DATABASES
    assert settings.DATABASES.get("nobody_default", 5) == 5
    with pytest.raises(KeyError):
        settings.DATABASES["nobody_default"]


def test_templates_are_read_as_the_project_wrote_them(secret):
    with tenant_context_bind("a.test"):
        templates = conf.templates_of(conf.orms[0])
        assert templates["default"]["NAME"] == "template"
        assert type(templates) is type(copy.deepcopy(settings.DATABASES)) is dict
        assert copy.deepcopy(settings.DATABASES)["default"]["NAME"] == "template"


def test_what_is_written_into_it_is_seen_by_the_connections(secret):
    settings.DATABASES["added"] = {**settings.DATABASES["central"], "NAME": "added"}
    assert connections["added"].settings_dict["NAME"] == connections.settings["added"]["NAME"] == "added"
    settings.DATABASES["central"]["TIME_ZONE"] = "Europe/Vienna"
    assert connections.settings["central"]["TIME_ZONE"] == "Europe/Vienna"
    del settings.DATABASES["added"]


def _shown():
    yield repr(settings.DATABASES)
    yield pprint.pformat(settings.DATABASES)
    yield f"{settings.DATABASES}"
    yield repr(connections.settings)
    yield repr(SafeExceptionReporterFilter().get_safe_settings())
    for arguments in ({}, {"all": True}, {"output": "unified"}):
        output = io.StringIO()
        call_command("diffsettings", stdout=output, **arguments)
        yield output.getvalue()
    try:
        found = settings.DATABASES  # noqa: F841 - a variable of the frame that the report shows
        raise ValueError("boom")
    except ValueError as error:
        for page in ("get_traceback_html", "get_traceback_text"):
            reporter = ExceptionReporter(RequestFactory().get("/"), type(error), error, error.__traceback__)
            yield getattr(reporter, page)()


@pytest.mark.parametrize("tenant_id", [None, "a.test"])
def test_nothing_shows_a_password(secret, tenant_id):
    with override_settings(DEBUG=True), tenant_context_bind(tenant_id) if tenant_id else nullcontext():
        for text in _shown():
            assert CANARY not in text


def test_uninstalling_leaves_what_was_there(secret):
    secret.runtime.uninstall()
    assert type(settings.DATABASES) is dict
    assert settings.DATABASES is connections.settings
    assert settings.DATABASES["default"]["PASSWORD"] == f"{CANARY}-template"
