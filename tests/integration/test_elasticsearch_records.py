"""Records of Elasticsearch: what is refused, what is shared, and what is never shown."""

import copy
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("elasticsearch", reason="the client of Elasticsearch is not installed")

from django.core.management import CommandError, call_command

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import ConfigurationError, RecordInvalid
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.es_orm import get_client, shared_client
from tenant_router.orm_backends.es_orm.client_pool import ClientPool
from tenant_router.orm_backends.es_orm.manager import EsOrmManager
from tenant_router.orm_backends.loader import SHIPPED
from tests.tenants import eventually

HOSTS = [{"host": "es.test", "port": 9200}]
CANARY = "canary-c0ffee"


def manager(template=None, **options):
    return EsOrmManager("es_orm", {"default": template or {"HOSTS": HOSTS}}, options)


def prepared(config, template=None, tenant_id="t1"):
    return manager(template).prepare(tenant_id, {"default": config}, None)["default"].scope


def faults(config, template=None, tenant_id="t1"):
    with pytest.raises(RecordInvalid) as error:
        manager(template).prepare(tenant_id, {"default": config}, None)
    return [path.removeprefix("orm_config.es_orm.default.") for path, _ in error.value.problems]


def test_it_ships():
    assert SHIPPED["es_orm"].endswith(".EsOrmManager")


def test_what_a_record_leaves_out_comes_from_its_template():
    template = {"HOSTS": HOSTS, "OPTIONS": {"request_timeout": 3, "http_compress": True}}
    scope = prepared({"OPTIONS": {"request_timeout": 1}}, template)
    assert scope.prefix == "t1-"
    assert scope.shared.cluster.hosts == ("http://es.test:9200",)
    assert scope.shared.cluster.options == {"request_timeout": 1, "http_compress": True}
    assert prepared({}).shared.cluster.options == {"request_timeout": 10.0}


@pytest.mark.parametrize(
    ("hosts", "urls"),
    [
        ([{"host": "a", "port": "9201"}], ["http://a:9201"]),
        ([{"host": "a", "scheme": "https", "path_prefix": "/x/"}], ["https://a:9200/x"]),
        (["https://a", "http://b"], ["https://a:443", "http://b:9200"]),
        (["http://u:p%40@a:1/x/"], ["http://u:p%40@a:1/x"]),
        ([{"host": "::1", "port": 1}], ["http://[::1]:1"]),
    ],
)
def test_hosts(hosts, urls):
    assert list(prepared({"HOSTS": hosts}).shared.cluster.hosts) == urls


@pytest.mark.parametrize(
    ("template", "config", "prefix"),
    [
        ({}, {}, "t1-"),
        ({}, {"INDEX_PREFIX": "own-"}, "own-"),
        ({}, {"INDEX_PREFIX": ""}, ""),
        ({"INDEX_PREFIX": "app-{tenant}-"}, {}, "app-t1-"),
        ({"INDEX_PREFIX": ""}, {}, ""),
        ({"INDEX_PREFIX": "app-{tenant}-"}, {"INDEX_PREFIX": "{tenant}-x-"}, "t1-x-"),
    ],
)
def test_prefixes(template, config, prefix):
    assert prepared(config, {"HOSTS": HOSTS, **template}).prefix == prefix


def test_credentials_of_a_record_replace_those_of_its_template():
    template = {"HOSTS": HOSTS, "OPTIONS": {"basic_auth": ["u", "p"]}}
    assert prepared({"OPTIONS": {"api_key": "k"}}, template).shared.cluster.options["api_key"] == "k"
    assert "basic_auth" not in prepared({"OPTIONS": {"api_key": "k"}}, template).shared.cluster.options
    assert prepared({}, template).shared.cluster.options["basic_auth"] == ("u", "p")


BAD = [
    ({"HOSTS": []}, ["HOSTS"]),
    ({"HOSTS": CANARY}, ["HOSTS"]),
    ({"HOSTS": [f"ftp://{CANARY}"]}, ["HOSTS[0]"]),
    ({"HOSTS": [CANARY]}, ["HOSTS[0]"]),
    ({"HOSTS": [f"http://{CANARY}:port"]}, ["HOSTS[0]"]),
    ({"HOSTS": [f"http://a?x={CANARY}"]}, ["HOSTS[0]"]),
    ({"HOSTS": [5]}, ["HOSTS[0]"]),
    ({"HOSTS": [{"host": "a"}, {"host": f"a/{CANARY}", "port": 0}]}, ["HOSTS[1].host", "HOSTS[1].port"]),
    ({"HOSTS": [{"port": CANARY, "scheme": CANARY}]}, ["HOSTS[0].host", "HOSTS[0].port", "HOSTS[0].scheme"]),
    ({"HOSTS": [{"host": "a", "password": CANARY}]}, ["HOSTS[0].password"]),
    ({"HOST": CANARY}, ["HOST"]),
    ({"OPTIONS": CANARY}, ["OPTIONS"]),
    ({"OPTIONS": {"hosts": CANARY}}, ["OPTIONS.hosts"]),
    ({"OPTIONS": {"no_such": CANARY}}, ["OPTIONS.no_such"]),
    ({"OPTIONS": {"headers": {"x-token": CANARY}}}, ["OPTIONS.headers"]),
    ({"OPTIONS": {"api_key": 5, "request_timeout": 0}}, ["OPTIONS.api_key", "OPTIONS.request_timeout"]),
    ({"OPTIONS": {"request_timeout": None}}, ["OPTIONS.request_timeout"]),
    ({"OPTIONS": {"api_key": CANARY, "basic_auth": ["u", CANARY]}}, ["OPTIONS.api_key"]),
    ({"OPTIONS": {"basic_auth": ["u", CANARY, "x"]}}, ["OPTIONS.basic_auth"]),
    *(
        ({"INDEX_PREFIX": prefix}, ["INDEX_PREFIX"])
        for prefix in [
            "Upper-",
            "a..b-",
            "a*-",
            "*",
            "a,b-",
            "<a>-",
            "-a-",
            "_a-",
            "+a-",
            ".a-",
            "a",
            "a b-",
            "a:b-",
            5,
        ]
    ),
    ({"INDEX_PREFIX": "x" * 200 + "-"}, ["INDEX_PREFIX"]),
    ({"INDEX_PREFIX": f"{CANARY}/-", "HOSTS": [], "x": 1}, ["x", "HOSTS", "INDEX_PREFIX"]),
]


@pytest.mark.parametrize(("config", "paths"), BAD, ids=[json.dumps(config)[:60] for config, _ in BAD])
def test_every_fault_is_named_and_no_value_shown(config, paths):
    with pytest.raises(RecordInvalid) as error:
        manager().prepare("t1", {"default": config}, None)
    assert [path for path, _ in error.value.problems] == [f"orm_config.es_orm.default.{path}" for path in paths]
    assert CANARY not in str(error.value)


def test_a_digit_of_another_kind_is_no_port():
    config = {"HOSTS": [{"host": "h", "port": "\u00b2"}]}
    assert faults(config) == ["HOSTS[0].port"]
    assert list(manager().locations({"default": {**config, "INDEX_PREFIX": "own-"}})) == []


def test_a_tenant_id_too_long_for_a_prefix():
    assert faults({}, tenant_id="x" * 253) == ["INDEX_PREFIX"]
    assert prepared({"INDEX_PREFIX": "short-"}, tenant_id="x" * 253).prefix == "short-"


def test_faults_of_several_aliases_come_together():
    both = EsOrmManager("es_orm", {"default": {"HOSTS": HOSTS}, "logs": {"HOSTS": HOSTS}}, {})
    with pytest.raises(RecordInvalid) as error:
        both.prepare("t1", {"default": {"x": 1}, "logs": {"INDEX_PREFIX": "*"}}, None)
    assert [path.split(".")[2] for path, _ in error.value.problems] == ["default", "logs"]


def test_wrong_options_of_the_manager():
    with pytest.raises(ConfigurationError, match="TYPO"):
        manager(TYPO=1)
    with pytest.raises(ConfigurationError, match="HOSTS of the reserved alias 'central'"):
        EsOrmManager("es_orm", {"central": {}}, {"RESERVED_CONN_ALIASES": {"central"}})
    with pytest.raises(ConfigurationError, match="'es_orm'"):
        EsOrmManager("other", {"default": {"HOSTS": HOSTS}}, {})


def test_options_that_the_client_refuses_are_told_without_their_values():
    scope = prepared({"OPTIONS": {"ssl_assert_fingerprint": CANARY, "node_class": CANARY}})
    with pytest.raises(ConfigurationError, match=r"es\.test") as error:
        scope.shared.make()
    assert CANARY not in str(error.value)
    assert error.value.__cause__ is None


def test_of_those_who_come_at_once_no_more_are_let_in_than_there_are_places(monkeypatch):
    monkeypatch.setattr(shared_client, "WAIT_FOR_CLIENT", 60.0)
    room = ClientPool._make_room

    def slow(self):
        found = room(self)
        time.sleep(0.05)  # others look meanwhile
        return found

    monkeypatch.setattr(ClientPool, "_make_room", slow)
    pool, inside, most, come = ClientPool(1), [], [], threading.Barrier(4)

    def visit(number):
        shared = pool.get(shared_client.Cluster((f"http://c{number}.test:9200",), {"request_timeout": 60}))
        come.wait(20)
        with shared.sync():
            inside.append(number)
            time.sleep(0.05)
            most.append(len(inside))
            inside.remove(number)
        return shared  # it is not collected before the others have come

    with ThreadPoolExecutor(4) as threads:
        kept = list(threads.map(visit, range(4)))
    assert (max(most), len(kept)) == (1, 4)
    assert len(pool.open()) <= 1


# --- two tenants in one place ---


def pairs(configs, **options):
    found = {tenant_id: {"default": config} for tenant_id, config in configs.items()}
    return sorted((tenant, other) for _, tenant, other in manager(**options).overlaps(found))


def test_prefixes_that_begin_with_another_tenants():
    assert pairs({"acme": {}, "acme-eu": {}, "other": {}, "acme2": {}}) == [("acme-eu", "acme")]
    assert pairs({"a": {"INDEX_PREFIX": "x-"}, "b": {"INDEX_PREFIX": "x-"}}) == [("b", "a")]
    assert pairs({"a": {"INDEX_PREFIX": ""}, "b": {}, "c": {}}) == [("b", "a"), ("c", "a")]
    assert pairs({"a": {}, "a-b": {}, "a-b-c": {}, "a-d": {}, "a.b": {}}) == [
        ("a-b", "a"),
        ("a-b-c", "a-b"),
        ("a-d", "a"),
    ]


def test_on_different_clusters_prefixes_may_be_alike():
    elsewhere = {"HOSTS": [{"host": "other.test", "port": 9200}]}
    assert pairs({"acme": {}, "acme-eu": elsewhere}) == []
    same = {"HOSTS": ["http://user:pass@ES.test:9200"], "OPTIONS": {"api_key": "k"}}
    assert pairs({"acme": {}, "acme-eu": same}) == [("acme-eu", "acme")]


def test_bad_records_have_no_location():
    for config, _ in BAD:
        list(manager().locations({"default": config}))
        pairs({"a": config, "b": config})


def load(tenants, configs, tmp_path):
    records = {tenant_id: {"tests": tenants.record(tenant_id, es=config)} for tenant_id, config in configs.items()}
    path = tmp_path / "tenants.json"
    path.write_text(json.dumps({"mapping_metadata": {}, "tenant_config": records}))
    call_command("load_tenant_config", file=str(path), verbosity=0)


def test_two_tenants_with_one_prefix_are_refused_when_published(es_project, tmp_path):
    tenants = es_project(hosts=["http://127.0.0.1:1"])
    same = {"INDEX_PREFIX": "same-"}
    with pytest.raises((CommandError, RecordInvalid), match="ALLOW_SHARED_DATABASES"):
        load(tenants, {"one": same, "two": same}, tmp_path)
    assert not tenant_context_manager.contains("one")


def test_two_tenants_with_one_prefix_can_be_allowed(es_project, tmp_path):
    tenants = es_project(hosts=["http://127.0.0.1:1"], ALLOW_SHARED_DATABASES=True)
    same = {"INDEX_PREFIX": "same-"}
    load(tenants, {"one": same, "two": same}, tmp_path)
    eventually(lambda: tenant_context_manager.contains("two"))


def test_a_bad_record_keeps_the_last_good_one(es_project):
    tenants = es_project(hosts=["http://127.0.0.1:1"])
    tenants.put("one")
    with tenant_context_bind("one") as before:
        pass
    tenants.put("one", tenants.record("elsewhere", es={"HOSTS": [CANARY]}))
    with tenant_context_bind("one") as after:
        assert after is before
    assert "HOSTS[0]" in tenant_context_manager.refusals["one"].reason
    missing = tenants.record("elsewhere")
    del missing["orm_config"]["es_orm"]["default"]
    tenants.put("one", missing)
    with tenant_context_bind("one") as after:
        assert after is before


# --- secrets ---


def test_no_secret_is_shown(es_project, caplog, capsys):
    """Neither in reprs, nor in logs, nor in what a failing request raises."""
    caplog.set_level(logging.DEBUG)
    tenants = es_project(hosts=["http://127.0.0.1:1"])
    secrets = {
        "one": {"HOSTS": [f"http://user:{CANARY}@127.0.0.1:1"]},
        "two": {"OPTIONS": {"api_key": CANARY}},
        "three": {"OPTIONS": {"basic_auth": ["user", CANARY]}},
        "four": {"OPTIONS": {"bearer_auth": CANARY}},
    }
    shown = []
    for tenant_id, config in secrets.items():
        tenants.put(
            tenant_id,
            tenants.record(tenant_id, es={**config, "OPTIONS": {"max_retries": 1, **config.get("OPTIONS", {})}}),
        )
        with tenant_context_bind(tenant_id) as bound:
            session = bound.parts["es_orm"]["default"]
            shown += [repr(session), repr(session.scope.shared), repr(session.scope.shared.cluster), repr(bound)]
            with pytest.raises(Exception) as error:
                get_client().search()
            shown += [str(error.value), repr(error.value)]
    everything = "\n".join([*shown, caplog.text, *capsys.readouterr()])
    assert "127.0.0.1:1" in everything
    assert CANARY not in everything
    import base64

    assert base64.b64encode(f"user:{CANARY}".encode()).decode() not in everything


# --- test runs ---


def test_the_template_itself_prepares_test_tenants():
    for template in (
        {"HOSTS": HOSTS},
        {"HOSTS": HOSTS, "INDEX_PREFIX": "app-{tenant}-", "OPTIONS": {"http_compress": True}},
    ):
        made = manager(copy.deepcopy(template))
        one = made.prepare("test-tenant", dict(made.templates), None)["default"].scope
        two = made.prepare("other-tenant", dict(made.templates), None)["default"].scope
        assert one.prefix.endswith("test-tenant-")
        assert two.prefix.endswith("other-tenant-")
        assert one.shared is two.shared


def test_within_a_test_run(es_project):
    from tenant_router.testing.databases import create_of_orms, destroy_of_orms
    from tenant_router.testing.mode import TestMode
    from tenant_router.testing.orm_databases import Wishes

    tenants = es_project()
    mode = TestMode()
    mode.begin()
    create_of_orms(mode, [""], Wishes())
    try:
        get_client().index(index=tenants.id("x"), document={"a": 1}, refresh=True)
        assert get_client().count(index="*")["count"] >= 1
        assert get_client().indices.exists(index=tenants.id("x"))
        with tenants.plain() as client:
            (found,) = client.indices.get(index=f"*{tenants.id('x')}")
            assert found.startswith("test_")
    finally:
        destroy_of_orms(mode, 0)
        mode.end()
    with tenants.plain() as client:
        assert not client.indices.get(index=f"*{tenants.id('x')}")
