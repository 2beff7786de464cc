"""One database of MongoDB, one place in Elasticsearch: two tenants never come to it, however their records spell it."""

import copy

import pytest
from django.conf import settings as django_settings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("pymongo")
pytest.importorskip("elasticsearch")

from tenant_router.exceptions import RecordInvalid
from tenant_router.lifecycle import Writer, moves
from tenant_router.lifecycle.validation import Validation
from tenant_router.secrets import conceal_record
from tests.fixtures_mongo import require_orm
from tests.tenants import Tenants

SEEDS = "m1.test,m2.test:27018"
MONGO = {
    "default": {"NAME": "main", "HOST": SEEDS},
    "central": {"CONN_URL": "mongodb://m1.test/Central"},
}
ES = {
    "default": {"HOSTS": ["http://e1.test:9200", "http://e2.test:9200"]},
    "central": {"HOSTS": ["http://c.test:9200"]},
}


@pytest.fixture
def stores(fresh_runtime, monkeypatch):
    """A function that makes a runtime with MongoDB by both libraries and Elasticsearch; nothing of it is opened."""
    require_orm("pymodm_orm")
    require_orm("mongoengine_orm")

    def make(**options):
        orms = copy.deepcopy(django_settings.TENANT_ROUTER_ORM_SETTINGS)
        for orm_id, key in (("pymodm_orm", "MONGO"), ("mongoengine_orm", "MONGO"), ("es_orm", "ES")):
            own = {"RESERVED_CONN_ALIASES": {"central"}, **options.get(orm_id, {})}
            orms[orm_id] = {"SETTINGS_KEY": f"{key}_SETTINGS", "OPTIONS": own}
        monkeypatch.setattr(django_settings, "MONGO_SETTINGS", MONGO, raising=False)
        monkeypatch.setattr(django_settings, "ES_SETTINGS", ES, raising=False)
        monkeypatch.setattr(django_settings, "TENANT_ROUTER_ORM_SETTINGS", orms)
        made = fresh_runtime()
        Tenants(made, None).delete("nobody.test")
        made.synchronise()
        return made

    return make


@pytest.fixture
def both(stores):
    return stores()


def record(number, pymodm=None, mongoengine=None, es=None):
    """A record whose other databases are its own; ``es`` is on a cluster of its own."""
    orms = {
        "django_orm": {"NAME": f"{number}.db"},
        "pymodm_orm": pymodm or {"NAME": f"p{number}"},
        "mongoengine_orm": mongoengine or {"NAME": f"e{number}"},
        "es_orm": es or {"HOSTS": [f"http://own{number}.test"], "INDEX_PREFIX": ""},
    }
    return conceal_record({"orm_config": {orm_id: {"default": config} for orm_id, config in orms.items()}})


def clashes(runtime, *records):
    """What is wrong with the records beside each other."""
    named = {f"t{number}.test": each for number, each in enumerate(records)}
    assert [fault for tenant_id, each in named.items() for fault in Validation(runtime).refusals(tenant_id, each)] == []
    return [(path.split(".orm_config.")[-1], what) for path, what in Validation(runtime).clashes(named, {})]


ONE_MONGO = [
    {"NAME": "x"},
    {"NAME": "X"},
    {"NAME": "x", "HOST": "m1.test"},
    {"NAME": "x", "HOST": "m1.test:27017,m1.test:27017"},
    {"NAME": "x", "HOST": "m1.test:027017"},
    {"NAME": "x", "HOST": ["M1.test."]},
    {"NAME": "x", "HOST": "m1.test", "PORT": "027017"},
    {"NAME": "x", "HOST": "m2.test", "PORT": 27018},  # which the settings have beside m1
    {"NAME": "x", "HOST": "other.test,m1.test"},
    {"CONN_URL": "mongodb://m1.test/x"},
    {"CONN_URL": "mongodb://u:p@M2.test:27018,extra.test:1/X?replicaSet=r"},
    {"CONN_URL": "mongodb://m1%2Etest/x"},
]
LOCAL_MONGO = [
    {"NAME": "x", "HOST": host}
    for host in ("localhost", "127.0.0.1", "[::1]", "LOCALHOST.:27017", "127.1", "0x7f.1", "0.0.0.0", None, "")
]
ONE_ES = [
    {"HOSTS": [host], "INDEX_PREFIX": "x-"}
    for host in (
        "http://e1.test:9200", "http://e1.test", "https://e1.test:9200", "http://E1.TEST.:09200/", "http://u:p@e1.test",
        {"host": "e1.test"}, {"host": "E1.test", "port": "09200"}, {"host": "e1.test", "path_prefix": "/"},
        "http://e2.test:9200",
    )
]  # fmt: skip
ONE_ES += [{"INDEX_PREFIX": "x-"}, {"HOSTS": ["http://extra.test", "http://e2.test"], "INDEX_PREFIX": "x-"}]
LOCAL_ES = [
    {"HOSTS": [f"http://{host}:9200"], "INDEX_PREFIX": ""}
    for host in ("localhost", "127.0.0.1", "[::1]", "127.1", "[::ffff:127.0.0.1]", "LOCALHOST.")
]


@pytest.mark.parametrize("spelt", ONE_MONGO, ids=str)
def test_one_database_of_mongodb_however_it_is_spelt(both, spelt):
    for other in ONE_MONGO:
        found = clashes(both, record(0, pymodm=spelt), record(1, pymodm=other))
        assert [path for path, _ in found] == ["pymodm_orm.default"]
        assert "names the database of tenant 't0.test'" in found[0][1]


@pytest.mark.parametrize("spelt", LOCAL_MONGO, ids=str)
def test_this_machine_is_one_host(both, spelt):
    for other in LOCAL_MONGO:
        assert len(clashes(both, record(0, pymodm=spelt), record(1, pymodm=other))) == 1


@pytest.mark.parametrize(
    "other",
    [{"NAME": "y"}, {"NAME": "x", "HOST": "m1.test", "PORT": 27019}, {"NAME": "x", "HOST": "n.test"},
     {"CONN_URL": "mongodb+srv://m1.test/x"}],
)  # fmt: skip
def test_other_databases_are_no_concern(both, other):
    assert clashes(both, record(0, pymodm={"NAME": "x"}), record(1, pymodm=other)) == []


def test_the_other_librarys_databases_are_databases_too(both):
    one, two = record(0, pymodm={"NAME": "x"}), record(1, mongoengine={"CONN_URL": "mongodb://m2.test:27018/X"})
    assert [path for path, _ in clashes(both, one, two)] == ["mongoengine_orm.default"]
    assert [path for path, _ in clashes(both, two, one)] == ["pymodm_orm.default"]
    # one tenant may use its database by both
    assert clashes(both, record(0, {"NAME": "x"}, {"NAME": "x"}), record(1)) == []


@pytest.mark.parametrize("orm", ["pymodm", "mongoengine"])
@pytest.mark.parametrize("spelt", [{"NAME": "central"}, {"CONN_URL": "mongodb://m2.test:27018/CENTRAL"}])
def test_the_central_database_is_no_tenants(both, orm, spelt):
    found = clashes(both, record(0, **{orm: spelt}))
    assert [path for path, _ in found] == [f"{orm}_orm.default"]
    assert "reserved alias 'central'" in found[0][1]


def test_the_central_cluster_of_elasticsearch_is_no_tenants_as_a_whole(both):
    whole = record(0, es={"HOSTS": ["http://C.test.:09200"], "INDEX_PREFIX": ""})
    assert len(list(Validation(both).faults({"t0.test": whole}, {}))) == 1
    assert clashes(both, record(0, es={"HOSTS": ["http://c.test"], "INDEX_PREFIX": "x-"})) == []


@pytest.mark.parametrize("spelt", ONE_ES, ids=str)
def test_one_cluster_however_it_is_spelt(both, spelt):
    for other in ONE_ES:
        assert [path for path, _ in clashes(both, record(0, es=spelt), record(1, es=other))] == ["es_orm.default"]


@pytest.mark.parametrize("spelt", LOCAL_ES, ids=str)
def test_this_machine_is_one_node(both, spelt):
    for other in LOCAL_ES:
        assert len(clashes(both, record(0, es=spelt), record(1, es=other))) == 1


def test_both_sides_must_allow_that_a_database_is_shared(stores):
    same = {"NAME": "x"}
    shared = {"ALLOW_SHARED_DATABASES": True}
    runtime = stores(pymodm_orm=shared)
    assert clashes(runtime, record(0, pymodm=same), record(1, pymodm=same)) == []
    assert len(clashes(runtime, record(0, pymodm=same), record(1, mongoengine=same))) == 1
    assert len(clashes(runtime, record(0, mongoengine=same), record(1, pymodm=same))) == 1
    runtime = stores(pymodm_orm=shared, mongoengine_orm=shared)
    assert clashes(runtime, record(0, pymodm=same), record(1, mongoengine=same)) == []


def test_a_refused_record_keeps_its_database(both):
    """Its tenant is served as it was: nobody else may come to it meanwhile."""
    bad = record(0, pymodm={"NAME": "x", "OPTIONS": {"tlsCAFile": "/etc/ca.pem"}})
    records = {"a.test": bad}
    assert Validation(both).refusals("a.test", bad)
    assert len(list(Validation(both).clashes({"b.test": record(1, pymodm={"NAME": "X"})}, records))) == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(ONE_MONGO + LOCAL_MONGO), min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_of_many_records_one_has_each_database(both, spelt, random):
    orms = [random.choice(["pymodm", "mongoengine"]) for _ in spelt]
    records = [record(number, **{orm: config}) for number, (orm, config) in enumerate(zip(orms, spelt, strict=True))]
    distinct = {each in LOCAL_MONGO for each in spelt}
    assert len(clashes(both, *records)) == len(spelt) - len(distinct)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (record(0, pymodm={"NAME": "x"}), record(1, mongoengine={"CONN_URL": "mongodb://m2.test:27018/X"})),
        (record(0, es=ONE_ES[0]), record(1, es=ONE_ES[-1])),
    ],
)
def test_the_second_of_two_writers_is_refused(both, one, other):
    first, second = Writer(both), Writer(both)
    plans = [w.plan({t: r}, {}, flush=False) for w, t, r in ((first, "a.test", one), (second, "b.test", other))]
    first.commit(plans[0])
    with pytest.raises(RecordInvalid, match=r"b\.test.*names .* of tenant 'a\.test'"):
        second.commit(plans[1])


def test_a_seed_more_is_no_other_database(both):
    before = record(0, pymodm={"NAME": "x", "HOST": "a.test,b.test"})

    def leads_elsewhere(after):
        return moves.leads_elsewhere(both.orms, "a.test", before, after)

    assert not leads_elsewhere(record(0, pymodm={"NAME": "x", "HOST": "b.test,c.test"}))
    assert leads_elsewhere(record(0, pymodm={"NAME": "x", "HOST": "c.test,d.test"}))
    assert leads_elsewhere(record(0, pymodm={"NAME": "y", "HOST": "a.test,b.test"}))
