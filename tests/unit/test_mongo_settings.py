import socket

import pytest

pytest.importorskip("pymongo")

from tenant_router.exceptions import ConfigurationError, RecordInvalid
from tenant_router.orm_backends.mongo import settings
from tenant_router.orm_backends.mongo.manager import MongoManager

TEMPLATE = {"NAME": "main", "USER": None, "PASS": None, "HOST": "db.test", "PORT": "27018"}
CANARY = "canary-Pa55"


class Manager(MongoManager):
    """A manager of no library in particular."""


def faults(config, template=TEMPLATE):
    with pytest.raises(RecordInvalid) as found:
        settings.build(template, config)
    return dict(found.value.problems)


def test_what_a_record_leaves_out_comes_from_the_template():
    target = settings.build(TEMPLATE, {"NAME": "one"})
    assert (target.name, target.hosts) == ("one", ("db.test:27018",))
    assert target.arguments["host"] == "mongodb://db.test:27018/"


def test_a_url_replaces_the_address_and_keeps_the_templates_options():
    template = {**TEMPLATE, "OPTIONS": {"appName": "shop", "maxPoolSize": 5}}
    target = settings.build(template, {"CONN_URL": "mongodb://one.test,two.test:1/its?replicaSet=r"})
    assert (target.name, target.hosts) == ("its", ("one.test:27017", "two.test:1"))
    assert target.arguments["appname"] == "shop"
    assert target.arguments["replicaset"] == "r"


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"CONN_URL": "mongodb://evil.test:27018/its"},
        {"CONN_URL": "mongodb+srv://db.test/its"},
        {"CONN_URL": "mongodb://db.test/its"},
        {"NAME": "its", "HOST": "evil.test"},
        {"NAME": "its", "HOST": ["db.test", "evil.test"]},
        {"NAME": "its", "HOST": None},
        {"NAME": "its", "PORT": 27019},
    ],
)
def test_other_hosts_do_not_get_the_templates_credentials(elsewhere):
    options = {
        "authSource": "admin",
        "authMechanism": "SCRAM-SHA-1",
        "tlsCertificateKeyFile": "/etc/k.pem",
        "appName": "shop",
    }
    template = {**TEMPLATE, "USER": "u", "PASS": CANARY, "OPTIONS": options}
    arguments = settings.build(template, elsewhere).arguments
    assert arguments.keys() & {"username", "password", "authsource", "authmechanism", "tlscertificatekeyfile"} == set()
    assert arguments["appname"] == "shop"
    assert CANARY not in str(dict(arguments))


@pytest.mark.parametrize(
    "same",
    [
        {"NAME": "its"},
        {"NAME": "its", "HOST": "DB.test.", "PORT": 27018},
        {"NAME": "its", "HOST": "db.test:027018"},
        {"CONN_URL": "mongodb://db.test:27018/its"},
    ],
)
def test_the_templates_hosts_get_them_however_they_are_spelt(same):
    target = settings.build({**TEMPLATE, "USER": "u", "PASS": "p"}, same)
    assert (target.arguments["username"], target.arguments["password"]) == ("u", "p")


def test_the_templates_credentials_belong_to_the_templates_database():
    """So that all tenants of one user have one client."""
    template = {**TEMPLATE, "USER": "u", "PASS": "p"}
    built = [settings.build(template, {"NAME": name}) for name in ("one", "two")]
    assert {target.arguments["authsource"] for target in built} == {"main"}
    assert len({target.cluster_key for target in built}) == 1
    repeated = settings.build(template, {"NAME": "three", "USER": "u", "PASS": "p"})
    assert repeated.cluster_key == built[0].cluster_key
    own = settings.build(template, {"NAME": "three", "USER": "v", "PASS": "p"})
    assert own.arguments["authsource"] == "three"
    nameless = settings.build({"USER": "u", "PASS": "p"}, {"NAME": "one"})
    assert nameless.arguments["authsource"] == "admin"


def test_a_records_url_is_asked_first_for_credentials():
    target = settings.build({**TEMPLATE, "USER": "u", "PASS": "p"}, {"CONN_URL": f"mongodb://v:{CANARY}@h/d"})
    assert (target.arguments["username"], target.arguments["password"]) == ("v", CANARY)


def test_fields_of_a_record_replace_those_of_a_templates_url():
    template = {"CONN_URL": "mongodb://u:p@one.test:1234/main?tls=true"}
    target = settings.build(template, {"NAME": "its", "HOST": "two.test"})
    assert (target.name, target.hosts, target.arguments["tls"]) == ("its", ("two.test:1234",), True)


def test_credentials_belong_to_the_database_unless_authsource_says_otherwise():
    config = {"NAME": "its", "USER": "u", "PASS": "p"}
    assert settings.build(TEMPLATE, config).arguments["authsource"] == "its"
    config["OPTIONS"] = {"authSource": "admin"}
    assert settings.build(TEMPLATE, config).arguments["authsource"] == "admin"
    config["OPTIONS"] = {"authMechanism": "MONGODB-X509"}
    assert "authsource" not in settings.build(TEMPLATE, {**config, "PASS": None}).arguments


def test_waits_are_bounded_and_both_sides_may_say_otherwise():
    arguments = settings.build({**TEMPLATE, "OPTIONS": {"socketTimeoutMS": 7}}, {"NAME": "n"}).arguments
    assert (arguments["sockettimeoutms"], arguments["serverselectiontimeoutms"]) == (7, 3000)
    arguments = settings.build(TEMPLATE, {"NAME": "n", "OPTIONS": {"SERVERSELECTIONTIMEOUTMS": 5}}).arguments
    assert arguments["serverselectiontimeoutms"] == 5


def test_a_socket_file_and_an_ipv6_address():
    assert settings.build({"HOST": "/run/m.sock"}, {"NAME": "n"}).arguments["host"] == "mongodb://%2Frun%2Fm.sock/"
    assert settings.build({}, {"NAME": "n", "HOST": "[::1]"}).hosts == ("[::1]:27017",)
    assert settings.build({}, {"CONN_URL": "mongodb://[::1]:5/n"}).hosts == ("[::1]:5",)


def test_a_srv_url_is_not_resolved(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", None)
    target = settings.build({}, {"CONN_URL": "mongodb+srv://cluster.test/its"})
    assert (target.arguments["host"], target.name) == ("mongodb+srv://cluster.test/", "its")


@pytest.mark.parametrize(
    ("config", "key", "what"),
    [
        ({}, "NAME", "missing"),
        ({"NAME": ""}, "NAME", "missing"),
        ({"NAME": 5}, "NAME", "is a int"),
        ({"NAME": True}, "NAME", "is a bool"),
        ({"NAME": f"a.{CANARY}"}, "NAME", "forbids"),
        ({"NAME": f"{CANARY} b"}, "NAME", "forbids"),
        ({"NAME": f"{CANARY}\n"}, "NAME", "control"),
        ({"NAME": CANARY * 9}, "NAME", "63 bytes"),
        ({"NAME": "Admin"}, "NAME", "own"),
        ({"NAME": "n", "PASSWORD": CANARY}, "PASSWORD", "is no setting"),
        ({"NAME": "n", "PORT": "x" + CANARY}, "PORT", "is no port"),
        ({"NAME": "n", "PORT": 70000}, "PORT", "is no port"),
        ({"NAME": "n", "HOST": f"x@{CANARY}"}, "HOST", "is no list"),
        ({"NAME": "n", "HOST": ["a", 1]}, "HOST", "is no list"),
        ({"NAME": "n", "OPTIONS": [1]}, "OPTIONS", "is a list"),
        ({"NAME": "n", "OPTIONS": {"noSuch": CANARY}}, "OPTIONS.noSuch", "is not allowed"),
        ({"NAME": "n", "OPTIONS": {"connect": True}}, "OPTIONS.connect", "not allowed"),
        ({"NAME": "n", "OPTIONS": {"maxPoolSize": CANARY}}, "OPTIONS.maxPoolSize", "is no whole number"),
        ({"NAME": "n", "PASS": CANARY}, "PASS", "without USER"),
        ({"NAME": "n", "USER": CANARY}, "USER", "without PASS"),
        ({"CONN_URL": f"mongodb://u:{CANARY}@h"}, "CONN_URL", "names no database"),
        ({"CONN_URL": f"mongodb://u:{CANARY}@h/"}, "CONN_URL", "names no database"),
        ({"CONN_URL": f"postgres://u:{CANARY}@h/d"}, "CONN_URL", "must begin with mongodb://"),
        ({"CONN_URL": CANARY}, "CONN_URL", "must begin"),
        ({"CONN_URL": f"mongodb://u:{CANARY}@h:port/d"}, "CONN_URL", "is no MongoDB URL"),
        ({"CONN_URL": f"mongodb://u:{CANARY}:{CANARY}@h/d"}, "CONN_URL", "is no MongoDB URL"),
        (
            {"CONN_URL": f"mongodb://h/d?w={CANARY}&noSuch={CANARY}"},
            "CONN_URL",
            "parameter 'nosuch', which is not allowed",
        ),
        ({"CONN_URL": "mongodb://h/admin"}, "CONN_URL", "own"),
        ({"CONN_URL": "mongodb://h/d", "HOST": CANARY}, "CONN_URL", "and HOST cannot both"),
    ],
)
def test_bad_records_are_refused_by_key_and_without_values(config, key, what):
    found = faults(config)
    assert what in found[key]
    assert CANARY not in str(found)


def test_every_fault_is_listed():
    config = {"NAME": "a b", "PORT": "x", "USER": 1, "OPTIONS": {"no": 1, "maxPoolSize": "x"}, "MORE": 1}
    assert set(faults(config)) == {"NAME", "PORT", "USER", "OPTIONS.no", "OPTIONS.maxPoolSize", "MORE"}


def test_one_client_serves_what_differs_in_the_database_only():
    options = {"OPTIONS": {"authSource": "admin"}, "USER": "u", "PASS": "p"}
    one = settings.build(TEMPLATE, {"NAME": "one", **options})
    two = settings.build(TEMPLATE, {"NAME": "two", **options})
    assert one.cluster_key == two.cluster_key
    for changed in ({"PASS": "q"}, {"HOST": "other"}, {"OPTIONS": {"authSource": "admin", "tls": True}}):
        assert settings.build(TEMPLATE, {"NAME": "two", **options, **changed}).cluster_key != one.cluster_key


def test_locations_tell_databases_apart_as_a_server_does():
    where = settings.locations(TEMPLATE, {"NAME": "One"})
    assert where == settings.locations({}, {"CONN_URL": "mongodb://u:p@DB.test:27018/one"}) != []
    assert where != settings.locations(TEMPLATE, {"NAME": "two"})
    assert settings.locations(TEMPLATE, {"NAME": 5}) == []


def test_no_repr_shows_a_secret():
    manager = Manager("x_orm", {"default": {**TEMPLATE, "USER": "u", "PASS": CANARY}}, {})
    parts = manager.prepare("a.test", {"default": {"NAME": "n"}}, None)
    assert "db.test:27018" in repr(parts)
    assert CANARY not in repr(parts)
    assert CANARY not in repr(parts["default"].target)


def test_wrong_templates_stop_the_process():
    with pytest.raises(ConfigurationError, match=r"central.PORT is no port number; other.CONN_URL must begin") as found:
        Manager("x_orm", {"central": {"PORT": CANARY}, "other": {"CONN_URL": CANARY}}, {})
    assert CANARY not in str(found.value)


@pytest.mark.parametrize(
    "config",
    [
        {"NAME": "\ud800"},
        {"NAME": "x", "PORT": "\u00b2"},
        {"NAME": "x", "OPTIONS": {"serverselectiontimeoutms": 10**400}},
        {"CONN_URL": "mongodb://\ud800/x"},
    ],
)
def test_what_json_can_have_and_the_rest_of_the_world_cannot_is_refused(config):
    assert len(faults(config)) == 1
    assert settings.locations(TEMPLATE, config) == [] or "OPTIONS" in config
