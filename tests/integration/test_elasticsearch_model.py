"""Random requests with hostile references, by every method of the client, on the real node, against an oracle.

A tenant has indices of its own, and around them lie indices with canaries: another tenant's, a central one, and some
whose names are what JSON's numbers and words become as text. What must hold: no answer shows anything of a canary's,
and none was changed or even read, which the node counts.
"""

import asyncio
import enum
import inspect
import json
import os
import re
import uuid
from collections import UserString
from datetime import date
from decimal import Decimal

import pytest

pytest.importorskip("elasticsearch", reason="the client of Elasticsearch is not installed")

from elastic_transport import SerializationError, TransportError
from elasticsearch import ApiError, helpers
from elasticsearch.dsl import AttrDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantMismatch
from tenant_router.orm_backends.es_orm import RequestRefused, get_async_client, get_client
from tests.fixtures_elasticsearch import all_apis

SCHEDULES = int(os.environ.get("TENANT_ROUTER_SCHEDULES", "200"))
AT_ONCE = 25  # requests between two looks at the canaries
ID = "00000000-0000-4000-8000-000000000001"
# What a name becomes that is no text: 2024, 0.00001, true, null, a date, a UUID; and the server's own default.
NAMED_LIKE_VALUES = ["2024", "1e-05", "true", "null", "2024-01-01", ID, "shapes"]
FOREIGN = "foreign-canary"


class Text(str):
    __slots__ = ()


class Canaries:
    """The indices that are none of the tenant's, and what the node says of them."""

    def __init__(self, es):
        self.plain, self.word = es.plain(), f"canary{uuid.uuid4().hex[:8]}"
        self.of_b = f"{es.b}~books"
        self.names = [*NAMED_LIKE_VALUES, f"{FOREIGN}-{self.word}", self.of_b]
        document = {"word": self.word, self.word: [1], "shape": {"type": "point", "coordinates": [1, 1]}, "n": [1, 2]}
        lines = [line for name in self.names for line in ({"index": {"_index": name, "_id": "1"}}, document)]
        assert not self.plain.bulk(operations=lines)["errors"]
        self.plain.indices.put_alias(index=self.of_b, name=f"alias-{self.word}")
        self.plain.indices.refresh(index=self.names)

    def state(self):
        """Everything that a request of the tenant could have changed or used."""
        documents = self.plain.search(index=self.names, size=100, seq_no_primary_term=True, version=True)
        rows = sorted((h["_index"], h["_id"], h["_version"], str(h["_source"])) for h in documents["hits"]["hits"])
        about = self.plain.indices.get(index=self.names, flat_settings=True).body
        return rows, about, self.central(), self.used()

    def used(self):
        """How often the node has read or written each; asked last, because the questions before count as well."""
        stats = self.plain.indices.stats(index=self.names, metric=["get", "search", "indexing"])["indices"]
        return {
            name: (
                of["total"]["get"]["total"],
                of["total"]["search"]["query_total"],
                of["total"]["indexing"]["index_total"],
            )
            for name, of in stats.items()
        }

    def central(self):
        """All other names on the cluster, but those that belong to other tests, which run at the same time."""
        found = self.plain.indices.get(index="*", expand_wildcards="all", filter_path="*.aliases")
        return sorted(name for name in found.body if not re.search(r"[0-9a-f]{8}|~", name))

    def close(self):
        self.plain.indices.delete(index=self.names, ignore_unavailable=True)
        self.plain.close()


# --- what is asked for ---

STRINGS = [*NAMED_LIKE_VALUES, FOREIGN, "*", "_all", "2*", "", "-2024", "*,-books", "books,2024", "..", "2024/_search"]
STRINGS += [
    "%32024",
    "<2024>",
    "x:2024",
    ".ds-2024",
    " 2024",
    "2024 ",
    "BOOKS",
    "*,2024",
    "../2024",
    "+2024",
    "*~books",
]
STRINGS += ["books", "shelf", ["books", "2024"], ["*", "-*"]]
ABSENT = object()
VALUES = [2024, 0.00001, True, None, date(2024, 1, 1), uuid.UUID(ID), Text("2024"), ("2024",), {}, [2024], [["2024"]]]
VALUES += [AttrDict({"index": "2024"}), ABSENT]
MORE = [5, 1.5, 2024.0, 10**30, False, Decimal("1.5"), b"2024", UserString("2024"), frozenset(["2024"]), [], [None]]
MORE += [{"2024": 1}, {"value": 2024}, {"value": True}, [True], [{"value": "2024"}]]


class Odd(str, enum.Enum):
    """Keys that JSON writes as text, and that dictionaries do not find by it."""

    own = "_index"
    index = "index"


KEYS = {"plain": str, "subclass": Text, "enum": lambda key: next((odd for odd in Odd if odd.value == key), key)}


class Hole:
    """``hole("index", id="1")``: an object in which ``value`` stands for the name of an index, or nothing does."""

    def __init__(self, value, kind="plain"):
        self.value, self.key = value, KEYS[kind]

    def __call__(self, key, **others):
        return others if self.value is ABSENT else {self.key(key): self.value, **others}


def _query(make):
    """Where a query stands."""
    return [
        lambda c, o: c.search(index="books", body=json.dumps({"query": make(o)})),
        lambda c, o: c.count(index="books", query={"bool": {"filter": [AttrDict(make(o))]}}),
        lambda c, o: c.search(index="books", size=0, aggs={"params": {"filters": {"filters": {"script": make(o)}}}}),
    ]


LIKE = {"min_term_freq": 1, "min_doc_freq": 1, "fields": ["word"]}
LOOKUP = {"type": "lookup", "input_field": "n", "target_field": "n", "fetch_fields": ["word"]}
PLACES = [
    *_query(lambda o: {"terms": {"n": o("index", id="1", path="n")}}),
    *_query(lambda o: {"terms": {"params": o("index", id="1", path="n")}}),
    *_query(lambda o: {"geo_shape": {"shape": {"indexed_shape": o("index", id="1", path="shape")}}}),
    *_query(lambda o: {"geo_shape": {"script": {"indexed_shape": o("index", id="1")}}}),
    *_query(lambda o: {"more_like_this": {"like": [o("_index", _id="1")], **LIKE}}),
    *_query(lambda o: {"percolate": o("index", id="1", field="q")}),
    *_query(lambda o: {"term": o("_index")}),
    *_query(lambda o: {"prefix": {"_index": o("value")}}),
    lambda c, o: c.search(index="books", runtime_mappings={"r": o("target_index", **LOOKUP)}, fields=["r"]),
    lambda c, o: c.search(index="books", body={"indices_boost": [{o.value: 2} if _is_key(o.value) else o.value]}),
    lambda c, o: c.search(index="books", sort=[o("_index")]),
    lambda c, o: c.search(pit=o("id")),
    lambda c, o: c.search(index=o.value),
    lambda c, o: c.search(index=[o.value, "books"]),
    lambda c, o: c.mget(docs=[o("_index", _id="1")]),
    lambda c, o: c.mget(index="books", docs=[AttrDict(o("_index", _id="1"))]),
    lambda c, o: c.mget(body=json.dumps({"docs": [o("_index", _id="1")]})),
    lambda c, o: c.mtermvectors(docs=[o("_index", _id="1")]),
    lambda c, o: c.termvectors(index="books", body=o("_index", doc={"n": 1})),
    *[
        lambda c, o, verb=verb: c.bulk(
            operations=[{verb: o("_index", _id="1")}, {"doc": {"n": 1}}][: 1 + (verb != "delete")]
        )
        for verb in ("index", "create", "update", "delete")
    ],
    lambda c, o: c.bulk(operations=json.dumps({"delete": o("_index", _id="1")}) + "\n"),
    lambda c, o: c.bulk(index="books", operations=iter([json.dumps({"index": o("_index", _id="1")}).encode(), b"{}"])),
    lambda c, o: c.bulk(index="books", operations=(AttrDict({"index": o("_index", _id="1")}), AttrDict({"n": 1}))),
    lambda c, o: c.msearch(searches=[o("index"), {}]),
    lambda c, o: c.msearch(index="books", searches=[json.dumps(o("index")), {"query": {"match_all": {}}}]),
    lambda c, o: c.rank_eval(
        index="books",
        requests=[{"id": "1", "request": {"query": {"match_all": {}}}, "ratings": [o("_index", _id="1", rating=1)]}],
        metric={"precision": {}},
    ),
    lambda c, o: c.reindex(source=o("index"), dest={"index": "copy"}),
    lambda c, o: c.reindex(source={"index": "books"}, dest=o("index")),
    lambda c, o: c.indices.update_aliases(actions=[{"add": o("index", alias="x")}]),
    lambda c, o: c.indices.update_aliases(actions=[{"add": o("indices", alias="x")}]),
    lambda c, o: c.indices.update_aliases(actions=[{"remove": o("aliases", index="*")}]),
    lambda c, o: c.indices.update_aliases(actions=[{"remove_index": o("index")}]),
    lambda c, o: c.indices.put_index_template(name="t", index_patterns=o.value),
    lambda c, o: c.indices.put_index_template(name="t", index_patterns="x", composed_of=o.value),
    lambda c, o: c.indices.put_template(name="t", index_patterns=o.value),
    lambda c, o: c.indices.put_settings(index="books", settings={"index.lifecycle.rollover_alias": o.value}),
    lambda c, o: c.indices.modify_data_stream(actions=[{"add_backing_index": o("index", data_stream="d")}]),
    lambda c, o: c.indices.clone(index="books", target=o.value),
    lambda c, o: c.indices.put_alias(index="books", name=o.value),
    lambda c, o: c.indices.delete(index=o.value),
    lambda c, o: c.indices.get(index=o.value),
    lambda c, o: c.get(index=o.value, id="1"),
    lambda c, o: c.index(index=o.value, id="1", document={}),
    lambda c, o: c.delete(index=o.value, id="1"),
    lambda c, o: c.open_point_in_time(index=o.value, keep_alive="1s"),
    lambda c, o: c.scroll(scroll_id=o.value),
    lambda c, o: c.clear_scroll(scroll_id=o.value),
    lambda c, o: c.cat.indices(index=o.value),
    lambda c, o: c.perform_request(
        "GET", "/_search", params={"index": o.value}, headers={"accept": "application/json"}
    ),
]
HELPED = [
    lambda c, o: helpers.bulk(c, [o("_index", _id="1", n=1)]),
    lambda c, o: helpers.bulk(c, [o("_index", _id="1", _op_type="delete")], index="books"),
    lambda c, o: list(
        helpers.parallel_bulk(c, [o("_index", _id="1", _op_type="update", doc={"n": 1})], thread_count=2)
    ),
    lambda c, o: list(helpers.scan(c, index=o.value)),
    lambda c, o: helpers.reindex(c, o.value, "copy"),
]


def _is_key(value):
    try:
        return value is not ABSENT and isinstance(hash(value), int)
    except TypeError:
        return False


APIS = all_apis()
NAMES = {"index", "name", "alias", "target", "new_index", "id"}
DUMMIES = {"document": {"n": 1}, "query": {"match_all": {}}, "text": "x", "field": "n", "fields": "n", "string": "x"}
DUMMIES |= {"mappings": {"properties": {"n": {"type": "long"}}}, "settings": {"index.number_of_replicas": 0}}
PATHS = [
    "/2024/_search",
    "/%32024/_search",
    "/books/../2024/_search",
    "/books/%2e%2e/2024",
    "//2024/_search",
    "/_search",
]
PATHS += ["/books,2024/_search", "/books/_doc/..%2f..%2f2024", "/2024", "/_mget", "/_bulk", "/books/_search/"]
PARAMETERS = [{}, {"index": "2024"}, {"_index": "2024"}, {"source": "{}", "source_content_type": "application/json"}]
TYPES = ["application/json", "application/cbor", "application/yaml", "application/smile", "application/x-ndjson"]
TYPES += ["text/plain", "application/json; charset=utf-16", "application/vnd.elasticsearch+cbor;compatible-with=8"]
DOCS = {"docs": [{"_index": 2024, "_id": "1"}]}
RAW = [None, DOCS, json.dumps(DOCS), "docs: [{_index: 2024, _id: '1'}]", json.dumps(DOCS).encode("utf-16"), "[" * 5000]
RAW += [b"\xa1ddocs\x81\xa2f_index\x19\x07\xe8c_ida1", b":)\n\x00\xfa\xfb", '{"docs": [], ' + json.dumps(DOCS)[1:]]
RAW += ['{"index": {"_index": 2024}}\n{"n": 1}\n', '{"delete": {"_index": true, "_id": "1"}}\n']
FRAMING = [{}, {}, {}, {"Content-Length": "7"}, {"transfer-encoding": "chunked"}]


def by_method(name, values):
    """A method of the client with all that it needs, its names taken from ``values`` in turn."""
    api = APIS[name]
    given = {each: DUMMIES.get(each, "1") for each in api.required}
    given |= dict(zip([each for each in api.parameters if each in NAMES], values, strict=False))
    given = {each: value for each, value in given.items() if value is not ABSENT}
    return lambda client: api.of(client)(**given)


def by_hand(method, path, params, body, content_type, framing):
    """A request that no method makes."""
    headers = {"content-type": content_type, "accept": "application/json", **framing}
    return lambda client: client.perform_request(method, path, params=params, headers=headers, body=body)


REFERENCES = st.one_of(
    st.sampled_from(STRINGS),
    st.sampled_from(VALUES + MORE),
    st.lists(st.sampled_from(STRINGS + VALUES + MORE), max_size=2),
)
HOLES = st.builds(Hole, REFERENCES, st.sampled_from(list(KEYS)))
FILLED = st.builds(lambda use, hole: lambda client: use(client, hole), st.sampled_from(PLACES), HOLES)
REQUESTS = st.one_of(
    FILLED,
    FILLED,
    st.builds(by_method, st.sampled_from(sorted(APIS)), st.lists(REFERENCES, min_size=3, max_size=3)),
    st.builds(
        by_hand,
        st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD"]),
        st.sampled_from(PATHS),
        st.sampled_from(PARAMETERS),
        st.sampled_from(RAW),
        st.sampled_from(TYPES),
        st.sampled_from(FRAMING),
    ),
)


# --- what comes of it ---

REFUSALS = (RequestRefused, TenantMismatch, ApiError, TransportError, SerializationError)


def ask(use, client, loop=None):
    """What a request returns or raises, as text. A refusal of the client's own (a wrong type) is one as well."""
    try:
        found = use(client)
        return repr(loop.run_until_complete(found) if inspect.isawaitable(found) else found)
    except (helpers.BulkIndexError, helpers.ScanError) as error:
        return repr(error.args)
    except REFUSALS as error:
        return repr((str(error), getattr(error, "body", "")))
    except Exception as error:
        if "/tenant_router/" in _place(error):  # no refusal, but an error of ours
            raise
        return repr(error)


def _place(error):
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_code.co_filename


@pytest.fixture
def world(es):
    """A tenant ``es.a`` with an index, and canaries around it."""
    with tenant_context_bind(es.a):
        get_client().indices.create(index="books", aliases={"shelf": {}}, settings={"number_of_replicas": 0})
        get_client().index(index="books", id="1", document={"n": [1]}, refresh=True)
    canaries, loop = Canaries(es), asyncio.new_event_loop()
    yield es, canaries, loop
    loop.run_until_complete(loop.shutdown_asyncgens())  # which closes the client of this loop
    loop.close()
    canaries.close()


class Watch:
    """``with watch:`` nothing inside reaches a canary; ``watch.see(answer)``: nothing of one is in it."""

    def __init__(self, world):
        self.es, self.canaries, self.loop = world

    def __enter__(self):
        self.before = self.canaries.state()
        self.bound = tenant_context_bind(self.es.a)
        self.bound.__enter__()
        return self

    def __exit__(self, *error):
        self.bound.__exit__(*error)
        if error[0] is None:
            after, before = self.canaries.state(), self.before
            assert after[:3] == before[:3]
            assert after[3] == {
                name: (gets, queries + 1, writes) for name, (gets, queries, writes) in before[3].items()
            }

    def see(self, answer, *told):
        assert self.canaries.word not in answer, (*told, answer[:1000])


@pytest.mark.filterwarnings("ignore")
def test_no_request_reaches_what_is_not_the_tenants(world):
    _fill_each_place(world)
    sent = []

    @settings(
        max_examples=max(SCHEDULES // 40, 1),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=SCHEDULES <= 200,
    )
    @given(st.lists(st.tuples(REQUESTS, st.booleans()), min_size=AT_ONCE, max_size=AT_ONCE))
    def run(requests):
        with Watch(world) as watch:
            for use, asynchronous in requests:
                answer = ask(use, get_async_client() if asynchronous else get_client(), watch.loop)
                sent.append("refused to a tenant" not in answer)
                watch.see(answer)

    run()
    assert sum(sent) > len(sent) / 10


def _fill_each_place(world):
    """Each place with each value that is no text, and each kind of key: few of them are sent at all."""
    holes = [Hole(value) for value in VALUES] + [Hole("2024", kind) for kind in KEYS] + [Hole(world[1].of_b)]
    with Watch(world) as watch:
        for number, use in enumerate([*PLACES, *HELPED]):
            for hole in holes:
                watch.see(ask(lambda client, use=use, hole=hole: use(client, hole), get_client()), number, hole.value)
