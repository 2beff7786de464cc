"""Records of Elasticsearch: what is refused, what is shared, and what is never shown."""

import copy
import json
import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("elasticsearch", reason="the client of Elasticsearch is not installed")

from django.core.management import CommandError, call_command
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tenant_router.config_store import codec
from tenant_router.config_store.base import StoredRecord, digest_of
from tenant_router.config_store.serializers.json import JSONSerializer
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import ConfigurationError, RecordInvalid, TenantUnavailable
from tenant_router.lifecycle import Writer
from tenant_router.managers import tenant_context_manager
from tenant_router.managers.registry import TenantContextManager
from tenant_router.orm_backends.es_orm import get_client, shared_client
from tenant_router.orm_backends.es_orm.client_pool import ClientPool
from tenant_router.orm_backends.es_orm.manager import EsOrmManager
from tenant_router.orm_backends.loader import SHIPPED
from tenant_router.orm_backends.places import Places
from tenant_router.reactive.building import Builder
from tenant_router.reactive.pipeline import Pipeline
from tenant_router.reactive.refusals import of_tenants
from tenant_router.secrets import conceal_record
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
    assert scope.prefix == "t1~"
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
        ({}, {}, "t1~"),
        ({}, {"INDEX_PREFIX": "own-"}, "own-"),
        ({}, {"INDEX_PREFIX": "", "HOSTS": ["http://own.test"]}, ""),
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
    assert list(manager().locations("t1", {"default": {**config, "INDEX_PREFIX": "own-"}})) == []


def test_a_tenant_id_too_long_for_a_prefix():
    long, other = "x" * 253, "x" * 252 + "y"
    prefix = prepared({}, tenant_id=long).prefix
    assert re.fullmatch("~[0-9a-f]{16}~", prefix)
    assert prepared({}, tenant_id=long).prefix == prefix != prepared({}, tenant_id=other).prefix
    assert prepared({}, tenant_id="x" * 120).prefix == "x" * 120 + "~"
    assert prepared({"INDEX_PREFIX": "short-"}, tenant_id=long).prefix == "short-"


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
    scope = prepared({}, {"HOSTS": HOSTS, "OPTIONS": {"ssl_assert_fingerprint": CANARY, "node_class": CANARY}})
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


def pairs(configs):
    """Those who would see each other's indices, in both directions."""
    made = manager()
    found = [(t, place) for t, config in configs.items() for _, place in made.locations(t, {"default": config})]
    places = Places(made.nested_locations, found)
    return {(tenant, other) for tenant, place in found for other in places.others(tenant, place)}


def both(*couples):
    return {*couples, *((other, one) for one, other in couples)}


def own(prefix, **more):
    return {"INDEX_PREFIX": prefix, **more}


def test_no_two_default_prefixes_overlap():
    ids = ["shop", "shop-eu", "shop.eu", "shop_eu", "shop-eu-1", "shop2", "s", "sh-op", "x" * 253, "x" * 252, "x" * 120]
    assert pairs({tenant_id: {} for tenant_id in ids}) == set()


def test_prefixes_that_begin_with_another_tenants():
    assert pairs({"acme": own("acme-"), "acme-eu": {}, "other": {}, "acme2": {}}) == both(("acme", "acme-eu"))
    assert pairs({"a": own("x-"), "b": own("x-")}) == both(("a", "b"))
    assert pairs({"a": own("b~"), "b": {}}) == both(("a", "b"))
    assert pairs({"a": own(""), "b": {}, "c": own("z-")}) == both(("a", "b"), ("a", "c"))
    chain = {"a": own("a-"), "b": own("a-b-"), "c": own("a-b-c-"), "d": own("a-d-"), "e": own("a.b-")}
    assert pairs(chain) == both(("a", "b"), ("a", "c"), ("b", "c"), ("a", "d"))


def test_on_different_clusters_prefixes_may_be_alike():
    elsewhere = {"HOSTS": [{"host": "other.test", "port": 9200}]}
    assert pairs({"acme": own("acme-"), "acme-eu": elsewhere}) == set()
    same = {"HOSTS": ["http://user:pass@ES.test:9200"], "OPTIONS": {"api_key": "k"}}
    assert pairs({"acme": own("acme-"), "acme-eu": same}) == both(("acme", "acme-eu"))
    more = {"HOSTS": ["http://es.test:9200", "http://es2.test:9200"]}
    assert pairs({"acme": own("acme-"), "acme-eu": more}) == both(("acme", "acme-eu"))


@given(st.data())
def test_the_places_that_overlap_are_found_whatever_comes_and_goes(data):
    names, wheres = st.text("ab-", max_size=5), st.sampled_from(["h", "h2", "ha"])
    nested = data.draw(st.booleans())
    places, model = Places(nested), {}
    for _ in range(data.draw(st.integers(1, 15))):
        owner, place = data.draw(st.sampled_from("xyz")), (data.draw(names), data.draw(wheres))
        if data.draw(st.integers(0, 3)):
            places.add(owner, place)
            model.setdefault(owner, set()).add(place)
        else:
            places.discard(owner)
            model.pop(owner, None)
        expected = {
            other
            for other, theirs in model.items()
            for name, where in theirs
            if other != owner
            and where == place[1]
            and (name == place[0] or (nested and (name.startswith(place[0]) or place[0].startswith(name))))
        }
        assert set(places.others(owner, place)) == expected


def test_comparing_many_prefixes_costs_a_little_for_each():
    """Each with each would be 400 million comparisons."""
    made, looked = manager(), 0
    found = [(f"t{n}", place) for n in range(20_000) for _, place in made.locations(f"t{n}", {"default": {}})]

    class Counting(str):
        def startswith(self, *args):
            nonlocal looked
            looked += 1
            return super().startswith(*args)

    places = Places(True, ((owner, (Counting(prefix), node)) for owner, (prefix, node) in found))
    assert not any(any(places.others(owner, place)) for owner, place in found)
    assert len(found) / 2 < looked <= 2 * len(found)


def test_bad_records_have_no_location():
    for config, _ in BAD:
        list(manager().locations("t1", {"default": config}))
        pairs({"a": config, "b": config})


@pytest.mark.parametrize("hosts", [None, ["http://ES.test:9200"], ["http://x.test", "http://es.test:9200/"]])
def test_nobody_has_all_of_a_cluster_on_which_others_are(hosts):
    config = own("") if hosts is None else own("", HOSTS=hosts)
    assert faults(config) == ["INDEX_PREFIX"]
    settings = {"default": {"HOSTS": ["http://es.other"]}, "central": {"HOSTS": HOSTS}}
    reserved = EsOrmManager("es_orm", settings, {"RESERVED_CONN_ALIASES": {"central"}})
    with pytest.raises(RecordInvalid, match="'central'" if hosts else "'default'"):
        reserved.prepare("t1", {"default": config}, None)
    assert prepared({}, {"HOSTS": HOSTS, "INDEX_PREFIX": ""}).prefix == ""
    allowing = manager(ALLOW_SHARED_DATABASES=True)
    assert allowing.prepare("t1", {"default": config}, None)["default"].scope.prefix == ""


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


OVERLAPPING = [
    ({"INDEX_PREFIX": "same-"}, {"INDEX_PREFIX": "same-"}),
    ({"INDEX_PREFIX": "same-"}, {"INDEX_PREFIX": "same-eu-"}),
    ({"INDEX_PREFIX": "same-eu-"}, {"INDEX_PREFIX": "same-"}),
    ({"INDEX_PREFIX": "two~"}, {}),
    ({"INDEX_PREFIX": "", "HOSTS": ["http://127.0.0.1:2"]}, {"HOSTS": ["http://127.0.0.1:3", "http://127.0.0.1:2/"]}),
]


def written(tenants, **configs):
    """A writer who has validated these tenants, and its plan."""
    writer = Writer(tenants.runtime)
    records = {t: conceal_record(tenants.record(t, es=config)) for t, config in configs.items()}
    return writer, writer.plan(records, {}, flush=False)


@pytest.mark.parametrize(("first", "second"), OVERLAPPING)
def test_prefixes_that_overlap_are_refused_in_one_load(es_project, tmp_path, first, second):
    tenants = es_project(hosts=["http://127.0.0.1:1"])
    with pytest.raises((CommandError, RecordInvalid), match=r"two.*names indices of tenant 'one'.*ALLOW_SHARED"):
        load(tenants, {"one": first, "two": second}, tmp_path)
    load(tenants, {"one": first}, tmp_path)
    with pytest.raises((CommandError, RecordInvalid), match="names indices of tenant 'one'"):
        load(tenants, {"two": second}, tmp_path)
    load(tenants, {"one": {"INDEX_PREFIX": "away-"}, "two": second}, tmp_path)


@pytest.mark.parametrize(("first", "second"), OVERLAPPING)
def test_of_two_writers_at_once_whose_prefixes_overlap_one_is_refused(es_project, first, second):
    tenants = es_project(hosts=["http://127.0.0.1:1"])
    one, plan = written(tenants, one=first)
    other, later = written(tenants, two=second)
    one.commit(plan)
    with pytest.raises(RecordInvalid, match="names indices of tenant 'one'"):
        other.commit(later)


def refused(tenant_id):
    with pytest.raises(TenantUnavailable, match="names indices of tenant"), tenant_context_bind(tenant_id):
        pass


def bindable(tenant_id):
    try:
        with tenant_context_bind(tenant_id):
            return True
    except TenantUnavailable:
        return False


def in_another_process(tenants):
    """Whom a process that starts now refuses."""
    orms, caches, serializer = tenants.runtime.orms, tenants.runtime.caches, tenants.runtime.serializer
    pipeline = Pipeline(TenantContextManager(), Builder(orms, caches, serializer, lambda record: ()), 100)
    index = of_tenants(tenants.runtime.store.index())
    shuffled = dict(sorted(index.items(), reverse=True))
    assert pipeline.reconcile({}, shuffled, tenants.runtime.store.get_many)
    return set(pipeline.registry.refusals)


@pytest.mark.parametrize(("first", "second"), OVERLAPPING)
def test_of_two_in_the_store_whose_prefixes_overlap_the_later_alone_is_refused(es_project, first, second):
    tenants = es_project(hosts=["http://127.0.0.1:1"])
    tenants.put("one", tenants.record("one", es=first))
    tenants.put("two", tenants.record("two", es=second))
    tenants.put("three")
    refused("two")
    assert bindable("one")
    assert bindable("three")
    assert in_another_process(tenants) == {"two"}
    tenants.put("one", tenants.record("one", es={"INDEX_PREFIX": "away-"}))
    eventually(lambda: bindable("two"))
    assert in_another_process(tenants) == set()
    tenants.put("one", tenants.record("one", es=first))  # which now comes second, and keeps what it had
    with tenant_context_bind("one") as bound:
        assert bound.parts["es_orm"]["default"].scope.prefix == "away-"
    assert bindable("two")
    tenants.arrived("two", tenants.delete("two"))
    eventually(lambda: in_another_process(tenants) == set())
    eventually(lambda: "one" not in tenant_context_manager.refusals)


class Nothing:
    """Caches, for a process that has none."""

    def prepare(self, tenant_id, config, previous):
        return config

    def retire(self, previous, current):
        pass


SERIALIZER = JSONSerializer()
PREFIXES = st.sampled_from(["a-", "a-b-", "a-b-c-", "b-", "a~", None])


class Overlapping(RuleBasedStateMachine):
    """Records that come into the store past its writers, in any order: no two tenants that overlap are ever served."""

    def __init__(self):
        super().__init__()
        self.stored, self.rev = {}, 0
        self.start()

    @rule()
    def start(self):
        """A process begins, with what the store has."""
        builder = Builder({"es_orm": manager()}, Nothing(), SERIALIZER, lambda record: ())
        self.pipeline = Pipeline(TenantContextManager(), builder, 100)
        index = {tenant_id: record.packed for tenant_id, record in self.stored.items()}
        assert self.pipeline.reconcile({}, index, self.fetch)

    @rule(tenant_id=st.sampled_from(["a", "a-b", "c"]), prefix=PREFIXES)
    def put(self, tenant_id, prefix):
        config = {"default": {} if prefix is None else own(prefix)}
        body = codec.encode(tenant_id, {"orm_config": {"es_orm": config}}, SERIALIZER)
        self.rev += 1
        self.stored[tenant_id] = StoredRecord(self.rev, "A", digest_of(body), body)
        self.pipeline.adopt(tenant_id, self.pipeline.registry.index.get(tenant_id), self.stored[tenant_id])

    @rule(tenant_id=st.sampled_from(["a", "a-b", "c"]))
    def delete(self, tenant_id):
        if self.stored.pop(tenant_id, None):
            self.rev += 1
            assert self.pipeline.note(tenant_id, self.pipeline.registry.index[tenant_id], f"{self.rev}:X:")

    @rule()
    def try_again(self):
        """What was refused for another one's sake is tried again, each as often as there are tenants."""
        for _ in self.stored:
            for tenant_id in list(self.pipeline.registry.refusals):
                entry = self.pipeline.registry.index[tenant_id]
                self.pipeline.apply(tenant_id, entry, entry, self.stored[tenant_id])
        served = self.served()
        for tenant_id, refusal in self.pipeline.registry.refusals.items():
            wanted = self.places_of(tenant_id, self.stored[tenant_id].body)
            assert any(overlap(wanted, theirs) for other, theirs in served.items() if other != tenant_id), refusal

    def fetch(self, tenant_ids):
        return {tenant_id: self.stored[tenant_id] for tenant_id in tenant_ids if tenant_id in self.stored}

    def places_of(self, tenant_id, body):
        config = codec.decode(tenant_id, body, SERIALIZER)["orm_config"]["es_orm"]
        return {place for _, place in manager().locations(tenant_id, config)}

    def served(self):
        """The places of whoever can be bound: what is held is bound at its first use."""
        registry = self.pipeline.registry
        prepared = {
            t: {(c.parts["es_orm"]["default"].scope.prefix, "es.test:9200")} for t, c in registry.prepared.items()
        }
        return prepared | {t: self.places_of(t, record.body) for t, record in self.pipeline._held.items()}

    @invariant()
    def no_two_overlap(self):
        served = self.served()
        assert served.keys() | self.pipeline.registry.refusals.keys() == self.stored.keys()
        for one, theirs in served.items():
            assert not any(overlap(theirs, others) for other, others in served.items() if other != one), served


def overlap(some, others):
    return any(a.startswith(b) or b.startswith(a) for a, _ in some for b, _ in others)


@pytest.mark.filterwarnings("ignore")
def test_no_two_that_overlap_are_served_whatever_comes_and_goes():
    run_state_machine_as_test(Overlapping, settings=settings(max_examples=60, stateful_step_count=12, deadline=None))


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
        assert "test-tenant" in one.prefix
        assert "other-tenant" in two.prefix
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
