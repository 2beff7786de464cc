"""Checks of what is central and what is the tenants': each conversion gone wrong has an id and a hint."""

import copy

import pytest
from django.conf import settings
from django.core import checks
from django.test import override_settings

from tenant_router.checks import check_conversion
from tenant_router.conf import conf

OURS = "tenant_router.orm_backends.django_orm.router.DjangoOrmRouter"
HERE = "tests.unit.test_conversion_checks"
MIDDLEWARE = "TENANT_ROUTER_MIDDLEWARE_SETTINGS"


class _Central:
    labels: tuple = ()

    def db_for_read(self, model, **hints):
        return "central" if model._meta.label in self.labels else None

    db_for_write = db_for_read


class CentralUsers(_Central):
    labels = ("auth.User",)


class CentralSessions(_Central):
    labels = ("sessions.Session",)


class AllCentral(_Central):
    labels = ("auth.User", "auth.Permission", "contenttypes.ContentType", "sessions.Session")


def _routers(name):
    return {"DATABASE_ROUTERS": [f"{HERE}.{name}", OURS]}


OPTED_OUT = {MIDDLEWARE: {"CENTRAL_SESSIONS": True}}
CENTRAL_CACHE = {"SESSION_ENGINE": "django.contrib.sessions.backends.cache", "SESSION_CACHE_ALIAS": "central"}


@pytest.fixture
def found(fresh_runtime):
    """A function that runs the checks under changed settings and returns the ids of what they find."""

    def run(**changed):
        with override_settings(**changed):
            fresh_runtime()
            messages = check_conversion()
        assert all(message.hint for message in messages)
        return [message.id.removeprefix("tenant_router.") for message in messages]

    yield run
    conf.forget()


def test_a_right_project_has_nothing_to_report(found):
    assert found() == []


def test_the_checks_are_registered():
    assert check_conversion in checks.registry.registry.registered_checks


def test_users_apart_from_their_permissions_are_e020(found):
    assert found(**_routers("CentralUsers")) == ["E020"]
    assert found(**_routers("AllCentral"), **OPTED_OUT) == []


def test_central_sessions_of_tenants_users_are_e021(found):
    assert found(**_routers("CentralSessions"), **OPTED_OUT) == ["E021"]
    assert found(**CENTRAL_CACHE, **OPTED_OUT) == ["E021"]


def test_central_sessions_that_are_valid_at_one_tenant_only_are_w021(found):
    assert found(**_routers("CentralSessions")) == ["W021"]
    assert found(**CENTRAL_CACHE) == ["W021"]
    assert found(**{**CENTRAL_CACHE, "SESSION_ENGINE": "django.contrib.sessions.backends.cached_db"}) == ["W021"]


def test_sessions_elsewhere_are_not_asked_about(found):
    assert found(SESSION_CACHE_ALIAS="central") == []
    assert found(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies", **OPTED_OUT) == []


def test_a_central_page_cache_is_w022(found):
    assert found(CACHE_MIDDLEWARE_ALIAS="central") == ["W022"]


def _template(**changed):
    databases = copy.deepcopy(settings.DATABASES)
    databases["default"].update(changed)
    return databases


@pytest.mark.parametrize(
    ("changed", "ids"),
    [
        ({"CONN_MAX_AGE": 60}, ["W023"]),
        ({"CONN_MAX_AGE": None}, ["W023"]),
        ({"CONN_MAX_AGE": 0}, []),
        ({"OPTIONS": {"pool": True}}, []),
        ({"CONN_MAX_AGE": 5, "OPTIONS": {"pool": True}}, ["W023"]),
    ],
    ids=str,
)
def test_connections_that_stay_open_are_w023(project, changed, ids):
    project(_template(**changed), reserved={"central"})
    assert [message.id.removeprefix("tenant_router.") for message in check_conversion()] == ids


def test_a_central_database_may_keep_its_connections(project):
    databases = _template()
    databases["central"]["CONN_MAX_AGE"] = 60
    project(databases, reserved={"central"})
    assert check_conversion() == []


# Without the admin, whose one site in the process would keep the models of an application that goes with the test.
WITHOUT_ADMIN = [name for name in settings.INSTALLED_APPS if name != "django.contrib.admin"]
BEAT = {"INSTALLED_APPS": [*WITHOUT_ADMIN, "django_celery_beat"]}
BEAT_ROUTERS = {"DATABASE_ROUTERS": ["tenant_router.celery.routers.BeatRouter", OURS]}


def test_periodic_tasks_are_central(found):
    alias = {"TENANT_ROUTER_CELERY_SETTINGS": {"BEAT_ALIAS": "central"}}
    assert found(**BEAT) == ["E022"]
    assert found(**BEAT, **BEAT_ROUTERS) == ["E022"]  # the alias is not named
    assert found(**BEAT, **BEAT_ROUTERS, **alias) == []


def test_the_beat_router_decides_on_its_own_models_only(found):
    from tenant_router.celery.routers import BeatRouter

    with override_settings(TENANT_ROUTER_CELERY_SETTINGS={"BEAT_ALIAS": "central"}):
        conf.forget()
        router = BeatRouter()
        assert router.allow_migrate("central", "django_celery_beat") is True
        assert router.allow_migrate("default", "django_celery_beat") is False
        assert router.allow_migrate("central", "app") is router.allow_migrate("default", "app") is None
