"""The typed view of our settings: each default, and each fault with its hint."""

import copy

import pytest
from django.conf import settings
from django.test import override_settings

from tenant_router import conf as module
from tenant_router.conf import Conf
from tenant_router.conf.problems import problems
from tenant_router.exceptions import ConfigurationError

STORE, ORMS = module.STORE, module.ORMS


def _given(name):
    return copy.deepcopy(getattr(settings, name))


def _faults(**changed):
    with override_settings(**changed):
        return list(problems())


def _one(**changed):
    (fault,) = _faults(**changed)
    return fault


@pytest.fixture
def without():
    """A function that takes settings out."""
    with pytest.MonkeyPatch.context() as patch, override_settings():

        def remove(*names):
            for name in names:
                delattr(settings, name)

        yield remove
        patch.undo()


# --- values and defaults ---


def test_the_settings_of_the_tests_have_no_fault():
    assert _faults() == []


def test_defaults_are_those_of_the_documents():
    with override_settings(**{STORE: {"BACKEND": "x.Y"}}):
        conf = Conf()
        assert dict(conf.store) == {"BACKEND": "x.Y", "LOCATION": {}, "OPTIONS": {}}
        assert conf.store_options["BOOT_TIMEOUT"] == 30
        assert conf.store_options["EAGER_MAX"] == 5_000
        assert conf.serializer["CLASS"] == "tenant_router.config_store.serializers.pickle.PickleSerializer"


def test_optional_settings_may_be_absent(without):
    without(module.MIDDLEWARE, module.CACHES)
    conf = Conf()
    assert conf.middleware["TENANT_ID_RESOLVER"] == "tenant_router.middleware.resolve_by_host"
    assert set(conf.middleware["WHITELIST_ROUTES"]) == set()
    assert set(conf.reserved_caches) == set()
    assert tuple(conf.bootstrap) == ()
    assert list(problems()) == []


def test_reading_changes_nothing_in_the_settings():
    before = {name: _given(name) for name in (STORE, ORMS, module.MIDDLEWARE, module.CACHES)}
    conf = Conf()
    for part in ("store", "store_options", "serializer", "orms", "middleware", "reserved_caches", "bootstrap"):
        getattr(conf, part)
    assert {name: getattr(settings, name) for name in before} == before


def test_settings_are_read_once_until_they_are_forgotten():
    conf = Conf()
    assert conf.service == "tests"
    with override_settings(TENANT_ROUTER_SERVICE_NAME="other"):
        assert conf.service == "tests"
        conf.forget()
        assert conf.service == "other"


def test_a_missing_setting_is_named(without):
    without("TENANT_ROUTER_SERVICE_NAME", STORE, ORMS)
    for part, name in (("service", "SERVICE_NAME"), ("store", "CONFIG_STORE_SETTINGS"), ("orms", "ORM_SETTINGS")):
        with pytest.raises(ConfigurationError, match=f"TENANT_ROUTER_{name} is not set.*manage.py check"):
            getattr(Conf(), part)


def test_an_orm_whose_settings_are_missing_is_named():
    with override_settings(**{ORMS: {"django_orm": {"SETTINGS_KEY": "NOWHERE"}}}):
        conf = Conf()
        with pytest.raises(ConfigurationError, match=r"django_orm.*NOWHERE"):
            conf.templates_of(conf.orms[0])


# --- faults ---


@pytest.mark.parametrize("name", ["TENANT_ROUTER_SERVICE_NAME", STORE, ORMS])
def test_a_mandatory_setting_that_is_missing_is_a_fault(without, name):
    without(name)
    (fault,) = problems()
    assert fault.where == name
    assert fault.hint


@pytest.mark.parametrize("name", [STORE, ORMS, "TENANT_ROUTER_SERVICE_NAME"])
@pytest.mark.parametrize("value", [None, "", {}, []])
def test_an_empty_mandatory_setting_is_a_fault(name, value):
    fault = _one(**{name: value})
    assert fault.where == name
    assert fault.hint


MISSPELT = [
    ({"TENANT_ROUTER_SERVICENAME": "x"}, "TENANT_ROUTER_SERVICENAME", "Did you mean TENANT_ROUTER_SERVICE_NAME?"),
    (
        {"TENANT_ROUTER_CACHES_SETTINGS": {}},
        "TENANT_ROUTER_CACHES_SETTINGS",
        "Did you mean TENANT_ROUTER_CACHE_SETTINGS?",
    ),
    ({"TENANT_ROUTER_QQQ": 1}, "TENANT_ROUTER_QQQ", "TENANT_ROUTER_"),
    ({STORE: {"BACKEND": "x", "OPTION": {}}}, f"{STORE}['OPTION']", "Did you mean OPTIONS?"),
    ({STORE: {"BACKEND": "x", "OPTIONS": {"SERIALISER": {}}}}, f"{STORE}['OPTIONS']['SERIALISER']", "SERIALIZER"),
    (
        {STORE: {"BACKEND": "x", "OPTIONS": {"SERIALIZER": {"KLASS": "x"}}}},
        f"{STORE}['OPTIONS']['SERIALIZER']['KLASS']",
        "Did you mean CLASS?",
    ),
    (
        {module.MIDDLEWARE: {"WHITELISTED_ROUTES": []}},
        f"{module.MIDDLEWARE}['WHITELISTED_ROUTES']",
        "Did you mean WHITELIST_ROUTES?",
    ),
    ({module.CONTEXT: {"CARRY": True}}, f"{module.CONTEXT}['CARRY']", "CARRY_INTO_EXECUTORS"),
    ({module.CACHES: {"RESERVED_ALIAS": []}}, f"{module.CACHES}['RESERVED_ALIAS']", "Did you mean RESERVED_ALIASES?"),
    ({ORMS: {"django_orm": {"SETTINGS_KEY": "DATABASES", "OPTION": {}}}}, f"{ORMS}['django_orm']['OPTION']", "OPTIONS"),
    (
        {module.CACHES: {"RESERVED_ALIASES": ["centrall"]}},
        f"{module.CACHES}['RESERVED_ALIASES']",
        "Did you mean central?",
    ),
]


@pytest.mark.parametrize(("changed", "where", "hint"), MISSPELT, ids=[row[1] for row in MISSPELT])
def test_a_misspelt_name_is_a_fault_with_what_may_be_meant(changed, where, hint):
    fault = _one(**changed)
    assert fault.where == where
    assert hint in fault.hint


def test_a_misspelt_mandatory_key_is_missing_and_unknown():
    faults = _faults(**{STORE: {"BAKEND": "x"}})
    assert {fault.where for fault in faults} == {f"{STORE}['BAKEND']", f"{STORE}['BACKEND']"}
    faults = _faults(**{ORMS: {"django_orm": {"SETTING_KEY": "DATABASES"}}})
    assert {fault.where for fault in faults} == {
        f"{ORMS}['django_orm']['SETTING_KEY']",
        f"{ORMS}['django_orm']['SETTINGS_KEY']",
    }


def _store(**more):
    return {STORE: {"BACKEND": "x", **more}}


def _options(**more):
    return _store(OPTIONS=more)


WRONG = [
    ({"TENANT_ROUTER_SERVICE_NAME": 5}, "SERVICE_NAME"),
    ({"TENANT_ROUTER_SERVICE_NAME": "with space"}, "SERVICE_NAME"),
    ({"TENANT_ROUTER_SERVICE_NAME": "with{brace}"}, "SERVICE_NAME"),
    ({STORE: "redis"}, STORE),
    ({STORE: {"BACKEND": 5}}, "'BACKEND'"),
    ({STORE: {"BACKEND": None}}, "'BACKEND'"),
    (_store(LOCATION="redis://x"), "'LOCATION'"),
    (_store(OPTIONS=[]), "'OPTIONS'"),
    (_options(CLIENT_KWARGS="x"), "'CLIENT_KWARGS'"),
    (_options(SERIALIZER="x.JSONSerializer"), "'SERIALIZER'"),
    (_options(SERIALIZER={"CLASS": dict}), "'CLASS'"),
    (_options(SERIALIZER={"OPTIONS": []}), "'OPTIONS'"),
    (_options(BOOT_TIMEOUT="5"), "'BOOT_TIMEOUT'"),
    (_options(BOOT_TIMEOUT=True), "'BOOT_TIMEOUT'"),
    (_options(BOOT_TIMEOUT=None), "'BOOT_TIMEOUT'"),
    (_options(EAGER_MAX=1.5), "'EAGER_MAX'"),
    (_options(IDLE="3"), "'IDLE'"),
    (_options(RESYNC=[]), "'RESYNC'"),
    (_options(MAX_SHRINK="20%"), "'MAX_SHRINK'"),
    ({ORMS: ["django_orm"]}, ORMS),
    ({ORMS: {"django_orm": "DATABASES"}}, "'django_orm'"),
    ({ORMS: {"django_orm": {"SETTINGS_KEY": 5}}}, "'SETTINGS_KEY'"),
    ({ORMS: {"django_orm": {"SETTINGS_KEY": "NOWHERE"}}}, "'SETTINGS_KEY'"),
    ({ORMS: {"django_orm": {"SETTINGS_KEY": "INSTALLED_APPS"}}}, "'SETTINGS_KEY'"),
    ({ORMS: {"django_orm": {"SETTINGS_KEY": "DATABASES", "MANAGER": 5}}}, "'MANAGER'"),
    ({ORMS: {"django_orm": {"SETTINGS_KEY": "DATABASES", "OPTIONS": []}}}, "'OPTIONS'"),
    ({module.MIDDLEWARE: []}, module.MIDDLEWARE),
    ({module.MIDDLEWARE: None}, module.MIDDLEWARE),
    ({module.MIDDLEWARE: {"WHITELIST_ROUTES": "health"}}, "'WHITELIST_ROUTES'"),
    ({module.MIDDLEWARE: {"WHITELIST_ROUTES": [5]}}, "'WHITELIST_ROUTES'"),
    ({module.MIDDLEWARE: {"TENANT_ID_RESOLVER": print}}, "'TENANT_ID_RESOLVER'"),
    ({module.CACHES: set()}, module.CACHES),
    ({module.CONTEXT: {"CARRY_INTO_EXECUTORS": 1}}, "'CARRY_INTO_EXECUTORS'"),
    ({module.CACHES: {"RESERVED_ALIASES": "central"}}, "'RESERVED_ALIASES'"),
    ({module.CACHES: {"RESERVED_ALIASES": {1}}}, "'RESERVED_ALIASES'"),
    ({module.BOOTSTRAP: "a.b"}, module.BOOTSTRAP),
    ({module.BOOTSTRAP: [print]}, module.BOOTSTRAP),
    ({module.BOOTSTRAP: None}, module.BOOTSTRAP),
]


@pytest.mark.parametrize(("changed", "where"), WRONG, ids=str)
def test_a_wrong_type_is_a_fault_that_says_where(changed, where):
    fault = _one(**changed)
    assert where in fault.where
    assert fault.what


@pytest.mark.parametrize("share", [0, 1, 0.5])
def test_a_share_may_be_a_whole_number(share):
    assert _faults(**_options(MAX_SHRINK=share)) == []


def test_no_fault_shows_a_value():
    changed = _store(LOCATION={"PASSWORD": "canary"}, OPTIONS={"CLIENT_KWARGS": "canary", "BOOT_TIMEOUT": "canary"})
    assert "canary" not in str(_faults(**changed))


def test_all_faults_are_reported_at_once():
    changed = {STORE: {"BAKEND": 1}, ORMS: [], module.MIDDLEWARE: 5, "TENANT_ROUTER_NO": 1}
    assert len(_faults(**changed)) == 5


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"BOOT": "sometimes"}, "BOOT"),
        ({"BOOT": "last_good", "KEYS": ["k"]}, "LAST_GOOD"),
        ({"LAST_GOOD": "/var/lib/x"}, "KEYS"),
        ({"DURABILITY": "very"}, "DURABILITY"),
        ({"MAX_STALENESS": "1h"}, "MAX_STALENESS"),
        ({"KEYS": "one"}, "KEYS"),
    ],
)
def test_options_of_the_boot_that_do_not_fit_are_named(options, where):
    store = {**settings.TENANT_ROUTER_CONFIG_STORE_SETTINGS, "OPTIONS": options}
    with override_settings(TENANT_ROUTER_CONFIG_STORE_SETTINGS=store):
        assert [problem.where for problem in problems()] == [f"{STORE}['OPTIONS']['{where}']"]
