"""The system checks: every fault has an id and says what to do."""

import re
from pathlib import Path

import pytest
from django.conf import settings
from django.core import checks
from django.test import override_settings

from tenant_router.checks import check_positions, check_routes, check_settings
from tenant_router.conf import conf

ROUTER = "tenant_router.orm_backends.django_orm.router.DjangoOrmRouter"
MIDDLEWARE = "tenant_router.middleware.TenantContextMiddleware"
STORE = "TENANT_ROUTER_CONFIG_STORE_SETTINGS"
ORMS = "TENANT_ROUTER_ORM_SETTINGS"


@pytest.fixture
def found(fresh_runtime):
    """A function that runs our checks under changed settings and returns what they find."""
    fresh_runtime()

    def run(**changed):
        with override_settings(**changed):
            conf.forget()
            try:
                return [*check_settings(), *check_positions()]
            finally:
                conf.forget()

    return run


def _ids(messages):
    return [message.id.removeprefix("tenant_router.") for message in messages]


def test_a_right_project_has_nothing_to_report(found):
    assert found() == []


def test_the_checks_are_registered():
    registered = checks.registry.registry.registered_checks
    assert {check_settings, check_positions} <= set(registered)


def test_a_faulty_setting_is_e001_with_its_hint(found):
    (message,) = found(TENANT_ROUTER_SERVICENAME="x")
    assert message.id == "tenant_router.E001"
    assert message.hint == "Did you mean TENANT_ROUTER_SERVICE_NAME?"
    assert message.is_serious()


@pytest.mark.parametrize(
    ("value", "where", "hint"),
    [
        ({"CELERY_COMANDS": []}, "['CELERY_COMANDS']", "Did you mean CELERY_COMMANDS?"),
        ({"CELERY_COMMANDS": "migrate"}, "['CELERY_COMMANDS']", "Give it as a set or frozenset or list or tuple."),
        ({"CELERY_COMMANDS": [1]}, "['CELERY_COMMANDS']", "List strings only."),
        (["migrate"], " is a list", "Its keys are CELERY_COMMANDS."),
    ],
)
def test_wrong_settings_of_the_fleet(found, value, where, hint):
    (message,) = found(TENANT_ROUTER_FLEET_SETTINGS=value)
    assert f"TENANT_ROUTER_FLEET_SETTINGS{where}" in message.msg
    assert (message.id, message.hint) == ("tenant_router.E001", hint)


def _orm(**options):
    return {ORMS: {"django_orm": {"SETTINGS_KEY": "DATABASES", "OPTIONS": options}}}


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({ORMS: {"some_orm": {"SETTINGS_KEY": "DATABASES"}}}, "some_orm.*has no 'MANAGER'"),
        ({ORMS: {"django_orm": {"SETTINGS_KEY": "DATABASES", "MANAGER": "no.such.M"}}}, "cannot import 'no.such.M'"),
        (
            {ORMS: {"django_orm": {"SETTINGS_KEY": "DATABASES", "MANAGER": "builtins.dict"}}},
            "no subclass of BaseOrmManager",
        ),
        (_orm(RESERVED_CON_ALIASES={"central"}), "RESERVED_CON_ALIASES.*known options: .*RESERVED_CONN_ALIASES"),
        (_orm(RESERVED_CONN_ALIASES={"centrall"}), "names 'centrall', which has no settings"),
        (_orm(RESERVED_CONN_ALIASES=None), "OPTIONS.*refuses"),
        (_orm(RESERVED_CONN_ALIASES={"central"}, MAX_OPEN_CONNECTIONS="many"), "OPTIONS.*refuses"),
        ({"TENANT_ROUTER_MIDDLEWARE_SETTINGS": {"TENANT_ID_RESOLVER": "no.such.f"}}, "TENANT_ID_RESOLVER.*'no.such.f'"),
        ({"TENANT_ROUTER_BOOTSTRAP_SETTINGS": ["no.such.f"]}, "BOOTSTRAP.*cannot import 'no.such.f'"),
        ({"TENANT_ROUTER_BOOTSTRAP_SETTINGS": ["tenant_router.log.MASK"]}, "BOOTSTRAP.*is a str, not a callable"),
    ],
)
def test_what_cannot_be_loaded_is_e002(found, changed, what):
    messages = [message for message in found(**changed) if message.id == "tenant_router.E002"]
    assert len(messages) == 1
    assert re.search(what, messages[0].msg)


@pytest.mark.parametrize(
    "changed",
    [
        {"BACKEND": "no.such.Store"},
        {"BACKEND": "builtins.dict"},
        {"BACKEND": "tenant_router.config_store.backends.redis.RedisStore", "LOCATION": {"HOTS": "x"}},
        {"OPTIONS": {"SERIALIZER": {"CLASS": "no.such.Serializer"}}},
        {"OPTIONS": {"SERIALIZER": {"CLASS": "builtins.dict"}}},
    ],
    ids=str,
)
def test_a_store_that_cannot_be_made_is_e002(found, changed):
    from tenant_router import runtime

    runtime.get().uninstall()
    messages = found(**{STORE: {**getattr(settings, STORE), **changed}})
    assert "E002" in _ids(messages)


def test_the_app_must_be_first(found):
    names = list(settings.INSTALLED_APPS)
    (message,) = found(INSTALLED_APPS=[names[1], names[0], *names[2:]])
    assert message.id == "tenant_router.E010"
    assert names[1] in message.msg
    assert "first" in message.hint


def test_the_app_may_be_named_by_its_configuration(found):
    names = list(settings.INSTALLED_APPS)
    assert found(INSTALLED_APPS=["tenant_router.apps.TenantRouterConfig", *names[1:]]) == []


def test_the_middleware_must_be_there_and_first(found):
    others = [name for name in settings.MIDDLEWARE if name != MIDDLEWARE]
    assert _ids(found(MIDDLEWARE=others)) == ["W011"]
    (message,) = found(MIDDLEWARE=[others[0], MIDDLEWARE, *others[1:]])
    assert message.id == "tenant_router.E011"
    assert "number 2" in message.msg
    assert message.hint


def test_the_router_must_be_there_and_last(found):
    other = "tests.app.routers.CentralRouter"
    assert _ids(found(DATABASE_ROUTERS=[])) == ["E012"]
    assert _ids(found(DATABASE_ROUTERS=[other])) == ["E012"]
    assert _ids(found(DATABASE_ROUTERS=[ROUTER, other])) == ["W012"]
    assert found(DATABASE_ROUTERS=[ROUTER]) == []


def test_the_router_is_not_asked_for_without_the_django_orm(found):
    changed = {ORMS: {"own": {"SETTINGS_KEY": "DATABASES", "MANAGER": "no.such.M"}}, "DATABASE_ROUTERS": []}
    assert _ids(found(**changed)) == ["E002"]


def test_the_default_serializer_is_pointed_out(found):
    store = {"BACKEND": "tenant_router.config_store.backends.memory.MemoryStore"}
    (message,) = found(**{STORE: store})
    assert message.id == "tenant_router.W010"
    assert "JSONSerializer" in message.hint
    chosen = {"SERIALIZER": {"CLASS": "tenant_router.config_store.serializers.pickle.PickleSerializer"}}
    assert found(**{STORE: {**store, "OPTIONS": chosen}}) == []


@pytest.mark.parametrize(
    "value", [None, 5, [], {"BACKEND": "x", "OPTIONS": 5}, {"BACKEND": "x", "OPTIONS": {"SERIALIZER": 5}}]
)
def test_no_check_stumbles_over_faulty_settings(found, value):
    messages = found(**{STORE: value, ORMS: value, "TENANT_ROUTER_MIDDLEWARE_SETTINGS": value})
    assert set(_ids(messages)) == {"E001"}


def test_every_error_and_warning_says_what_to_do(found):
    names = list(settings.INSTALLED_APPS)
    changed = {
        "INSTALLED_APPS": names[1:] + names[:1],
        "MIDDLEWARE": [],
        "DATABASE_ROUTERS": [],
        STORE: {"BACKEND": "tenant_router.config_store.backends.memory.MemoryStore"},
    }
    messages = found(**changed)
    assert set(_ids(messages)) == {"E010", "W011", "E012", "W010"}
    assert all(message.hint for message in messages)


@pytest.mark.parametrize(
    ("options", "id", "what"),
    [
        ({"ROUTER_OPTS": {"MIGRATE_STRATGY": "x.y"}}, "E001", r"ROUTER_OPTS'\]\['MIGRATE_STRATGY'\] is not known"),
        ({"ROUTER_OPTS": {"MIGRATE_STRATEGY": 5}}, "E001", r"MIGRATE_STRATEGY'\] is a int"),
        ({"ROUTER_OPTS": ["x"]}, "E001", r"ROUTER_OPTS'\] is a list, not a dictionary"),
        ({"ROUTER_OPTS": {"MIGRATE_STRATEGY": "no.such.f"}}, "E002", r"MIGRATE_STRATEGY'\].*cannot import 'no.such.f'"),
        ({"ROUTER_OPTS": {"MIGRATE_STRATEGY": "tenant_router.log.MASK"}}, "E002", "is a str, not a callable"),
        ({"MIGRATION_ASST": {}}, "E002", r"MIGRATION_ASST'\] of 'django_orm' is not {'CLASS': <dotted path>"),
        ({"MIGRATION_ASST": "x.Y"}, "E002", "is not {'CLASS': <dotted path>"),
        ({"MIGRATION_ASST": {"CLASS": "no.such.C"}}, "E002", "MIGRATION_ASST'.*No module named 'no'"),
        (
            {"MIGRATION_ASST": {"CLASS": "builtins.dict"}},
            "E002",
            "dict' is no subclass of BaseOrmMigrationAsst",
        ),
        ({"MIGRATION_ASST": {"CLASS": "builtins.len"}}, "E002", "MIGRATION_ASST'.*is wrong: TypeError"),
        ({"MIGRATION_ASST": {"CLASS": "builtins.dict", "OPTION": {}}}, "E002", "is not {'CLASS'"),
    ],
    ids=str,
)
def test_options_of_the_django_orm(found, options, id, what):
    (message,) = found(**_orm(RESERVED_CONN_ALIASES={"central"}, **options))
    assert message.id == f"tenant_router.{id}"
    assert re.search(what, message.msg)


# --- routes ---


WHITELIST = "TENANT_ROUTER_MIDDLEWARE_SETTINGS"


@pytest.fixture
def unmatched(fresh_runtime):
    """A function that returns the whitelisted names of which the check says that they match nothing."""
    fresh_runtime()

    def run(*names, **changed):
        with override_settings(**{WHITELIST: {"WHITELIST_ROUTES": set(names)}}, **changed):
            conf.forget()
            try:
                messages = check_routes()
            finally:
                conf.forget()
        assert {message.id for message in messages} <= {"tenant_router.W013"}
        return [re.search("names '(.*?)', and", message.msg)[1] for message in messages]

    return run


def test_every_spelling_of_a_route_that_there_is_matches(unmatched):
    assert unmatched(*settings.TENANT_ROUTER_MIDDLEWARE_SETTINGS["WHITELIST_ROUTES"]) == []
    assert unmatched("tests.app.views.whoami", "whoami/", "admin:login", "admin/login/") == []


def test_a_whitelisted_route_that_matches_nothing_is_w013(unmatched):
    assert unmatched("health", "/whoami/", "login", "tests.app.views.nobody") == [
        "/whoami/",
        "login",
        "tests.app.views.nobody",
    ]


def test_routes_below_a_language(unmatched):
    urls = {"ROOT_URLCONF": "tests.unit.urls_of_languages", "USE_I18N": True}
    languages = {"LANGUAGES": [("en", "English"), ("de", "German")], "LANGUAGE_CODE": "en"}
    assert unmatched("en/about/", "de/about/", "fr/about/", "about", **urls, **languages) == ["fr/about/"]


# --- what is documented ---


def test_every_id_is_documented_and_no_other_is():
    root = Path(__file__).parents[2]
    used = set[str]()
    for file in (root / "tenant_router" / "checks").glob("*.py"):
        used |= set(re.findall(r'id="tenant_router\.([EW]\d{3})"', file.read_text("utf-8")))
    table = (root / "docs" / "settings.md").read_text("utf-8").partition("## Checks")[2]
    assert used == set(re.findall(r"^\| `([EW]\d{3})` \|", table, re.MULTILINE))
