"""Every API of the installed client is either confined to the tenant or refused; none passes unseen.

Nothing is mocked but the network: a node that records what would be sent.
"""

import enum
import json
import re
import uuid
from collections import UserString
from datetime import date
from decimal import Decimal
from urllib.parse import unquote

import pytest

pytest.importorskip("elasticsearch", reason="the client of Elasticsearch is not installed")

from elastic_transport import ApiResponseMeta, BaseNode, HttpHeaders, SerializationError
from elastic_transport._node import NodeApiResponse

from tenant_router import context
from tenant_router.exceptions import TenantMismatch
from tenant_router.orm_backends.es_orm import RequestRefused, routes
from tenant_router.orm_backends.es_orm.client_pool import ClientPool
from tenant_router.orm_backends.es_orm.clients import Scope, TenantClients, make_client
from tenant_router.orm_backends.es_orm.settings import Cluster
from tenant_router.orm_backends.es_orm.signed_ids import SignedIds
from tenant_router.tenant_context import FixedContext
from tests.fixtures_elasticsearch import NAMES, all_apis

pytestmark = [
    pytest.mark.filterwarnings("ignore::elasticsearch.exceptions.GeneralAvailabilityWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
STRANGER = "t2-secret"
HOSTILE = [
    STRANGER,
    "*",
    "_all",
    "",
    "t2-*",
    "*secret",
    f"-{STRANGER}",
    f"a,{STRANGER}",
    f"*,-{STRANGER}",
    "*,-*",
    f"cluster:{STRANGER}",
    f"*:{STRANGER}",
    f"<{STRANGER}-{{now/d}}>",
    "<t1-{now/d}>",
    "..",
    f"../{STRANGER}",
    f"x/../{STRANGER}",
    f"{STRANGER}/_search",
    f"{STRANGER}?x=y",
    STRANGER.upper(),
    f" {STRANGER}",
    f"x {STRANGER}",
    f"x\n{STRANGER}",
    f"%74%32-{STRANGER}",
    ["a", STRANGER],
    ["*", f"-{STRANGER}"],
    [f"x,{STRANGER}"],
    f".ds-{STRANGER}",
    f"+{STRANGER}",
    "_search",
    "_cat",
]
# What stands for the parameters that must be given and are no names.
LOOKUP = {"terms": {"user": {"index": STRANGER, "id": "1", "path": "x"}}}
DUMMIES = {
    "operations": [{"index": {"_index": STRANGER, "_id": "1"}}, {"a": 1}],
    "searches": [{"index": STRANGER}, {"query": LOOKUP}],
    "document": {"a": 1},
    "actions": [{"add": {"index": STRANGER, "alias": STRANGER}}],
    "query": LOOKUP,
    "source": {"index": STRANGER},
    "dest": {"index": STRANGER},
    "requests": [{"id": "1", "request": {"query": LOOKUP}, "ratings": [{"_index": STRANGER, "_id": "1", "rating": 1}]}],
    "settings": {"index": {"number_of_replicas": 1}},
    "index_patterns": [f"{STRANGER}*"],
    "template": {"aliases": {STRANGER: {"filter": LOOKUP}}},
    "text": "x",
    "docs": [{"_index": STRANGER, "_id": "1"}],
    "field": "f",
    "fields": "f",
    "zoom": 1,
    "x": 1,
    "y": 1,
    "lifecycle": {"data_retention": "1d"},
    "mappings": {"properties": {"a": {"type": "keyword"}}},
    "config": {"fixed_interval": "1h"},
    "knn": {"field": "v", "query_vector": [1], "k": 1, "num_candidates": 1},
}
OWN_DUMMIES = {
    "indices.modify_data_stream": {"actions": [{"add_backing_index": {"data_stream": STRANGER, "index": STRANGER}}]}
}
NAMELESS = {"/", "/_bulk", "/_mget", "/_msearch", "/_mtermvectors", "/_reindex", "/_aliases", "/_analyze"}
NAMELESS |= {"/_data_stream/_modify"}
APIS = all_apis()


def names_of(api):
    """The parameters that can be given as a name: "source" mostly is something else, and settings have names, too."""
    paths = "".join(api.templates)
    return [name for name in api.names if f"{{{name}}}" in paths.replace("_settings/{name}", "")]


class RecordingNode(BaseNode):
    """Answers everything with an empty object, and remembers it."""

    sent = []

    def perform_request(self, method, target, body=None, headers=None, request_timeout=None):
        self.sent.append((method, target, body))
        answer = HttpHeaders({"x-elastic-product": "Elasticsearch", "content-type": "application/json"})
        meta = ApiResponseMeta(200, "1.1", answer, 0.0, self.config)
        return NodeApiResponse(meta, b"{}")

    def close(self):
        pass


@pytest.fixture
def sent():
    RecordingNode.sent.clear()
    return RecordingNode.sent


@pytest.fixture(scope="module")
def client():
    shared = ClientPool(10).get(Cluster(("http://recorded:9200",), {"request_timeout": 5, "node_class": RecordingNode}))
    shared.acquire()
    yield make_client("default", Scope("t1", "default", "t1-", shared))
    shared.release()


@pytest.fixture(autouse=True)
def bound(client):
    """Its tenant, which no store knows."""
    clients = TenantClients("t1", "default", "t1-", client.transport._scope.shared)
    before = context.enter(FixedContext("t1", 1, {"es_orm": {"default": clients}}))
    yield
    context.leave(before)


def call(api, client, **names):
    """Call an API with what it needs; a refusal is returned."""
    given = {name: DUMMIES.get(name, "1") for name in api.required}
    given.update({name: DUMMIES[name] for name in ("docs", "query") if name in {*api.parameters} - api.query})
    given.update(OWN_DUMMIES.get(api.name, {}))
    given.update(names)
    try:
        api.of(client)(**given)
    except (RequestRefused, TenantMismatch) as refusal:
        return refusal
    return None


def assert_confined(api, method, target, body):
    """A request names nothing but what begins with the tenant's prefix."""
    path, _, query = target.partition("?")
    text = "" if body is None else body.decode()
    for place in (unquote(path), unquote(query), text):
        assert not re.search(rf"(?<!t1-){STRANGER}", place, re.IGNORECASE), (api.name, method, target, text)
    segments = path.strip("/").split("/")
    positions = [_name_positions(template, segments) for template in api.templates]
    for position in [p for found in positions if found is not None for p in found]:
        items = unquote(segments[position]).split(",")
        assert all(re.match(r"-?(\.ds-)?t1-", item) for item in items), (api.name, target)
    named = any(re.match(r"-?(\.ds-)?t1-", item) for s in segments for item in unquote(s).split(","))
    assert named or path in NAMELESS, (api.name, target)


def _name_positions(template, segments):
    parts = template.strip("/").split("/")
    same = len(parts) == len(segments) and all(
        p.startswith("{") or p == s for p, s in zip(parts, segments, strict=True)
    )
    if not same:
        return None
    # In /_settings/{name} it is a setting that is named.
    return [n for n, p in enumerate(parts) if p[1:-1] in NAMES and parts[n - 1] != "_settings"]


@pytest.mark.parametrize("name", sorted(name for name, api in APIS.items() if names_of(api)))
def test_an_api_with_an_index_parameter(name, client, sent):
    api = APIS[name]
    for hostile in HOSTILE:
        sent.clear()
        names = dict.fromkeys(names_of(api), hostile)
        try:
            refusal = call(api, client, **names)
        except ValueError:  # the client's own: "Empty value passed for parameter"
            assert not sent
            continue
        assert bool(sent) != bool(refusal), (name, hostile)
        for request in sent:
            assert_confined(api, *request)


@pytest.mark.parametrize("name", sorted(APIS))
def test_an_api_without_names(name, client, sent):
    """Left out, an index is all of the tenant's; whatever else there is, is refused."""
    api = APIS[name]
    names = {key: "mine" for key in names_of(api) if key in api.required}
    refusal = call(api, client, **names)
    assert bool(sent) != bool(refusal)
    for request in sent:
        assert_confined(api, *request)


def confined_apis(client):
    RecordingNode.sent.clear()
    found = set()
    for name, api in APIS.items():
        names = {key: "mine" for key in names_of(api) if key in api.required}
        if call(api, client, **names) is None:
            found.add(name)
    return found


@pytest.mark.parametrize(
    ("name", "kind", "parameter"),
    [
        ("async_search.get", "async", "id"),
        ("async_search.status", "async", "id"),
        ("async_search.delete", "async", "id"),
        ("eql.get", "eql", "id"),
        ("eql.get_status", "eql", "id"),
        ("eql.delete", "eql", "id"),
        ("tasks.get", "task", "task_id"),
        ("reindex_rethrottle", "task", "task_id"),
        ("update_by_query_rethrottle", "task", "task_id"),
        ("delete_by_query_rethrottle", "task", "task_id"),
        ("scroll", "scroll", "scroll_id"),
        ("clear_scroll", "scroll", "scroll_id"),
        ("close_point_in_time", "pit", "id"),
    ],
)
def test_an_id_is_signed_for_its_tenant_its_alias_and_its_kind(name, kind, parameter, client, sent):
    def use(given):
        more = {"requests_per_second": 1} if name.endswith("rethrottle") else {}
        APIS[name].of(client)(**{parameter: given}, **more)

    signed = SignedIds("t1", "default").sign(kind, "node/x+y==:1")
    use(signed)
    assert "node/x+y==:1" in unquote(sent[0][1]) + (sent[0][2] or b"").decode()
    strangers = [SignedIds("t2", "default"), SignedIds("t1", "other"), SignedIds("t", "1/default")]
    forged = [owner.sign(kind, "node/x+y==:1") for owner in strangers]
    forged += [
        SignedIds("t1", "default").sign("other", "node/x+y==:1"),
        "node/x+y==:1",
        signed + "0",
        "0" + signed[1:] + "1",
    ]
    for given in [*forged, "_all", "*"]:
        with pytest.raises((TenantMismatch, RequestRefused)):
            use(given)
    assert len(sent) == 1


def test_what_is_confined(client):
    """The list that the documentation promises; what is not in it is refused."""
    assert confined_apis(client) | SEALED == CONFINED


# These need an id that was signed for the tenant: tested with a real server.
SEALED_NAMES = """
    async_search.delete async_search.get async_search.status clear_scroll close_point_in_time
    delete_by_query_rethrottle eql.delete eql.get eql.get_status reindex_rethrottle scroll tasks.get
    update_by_query_rethrottle
"""
CONFINED_NAMES = """
    async_search.submit bulk cat.aliases cat.component_templates cat.count cat.indices cat.recovery
    cat.segments cat.shards cat.templates cluster.delete_component_template cluster.exists_component_template
    cluster.get_component_template cluster.health cluster.put_component_template count create delete
    delete_by_query eql.search exists exists_source explain field_caps get get_source ilm.explain_lifecycle
    index indices.add_block indices.analyze indices.clear_cache indices.clone indices.create
    indices.create_data_stream indices.data_streams_stats indices.delete indices.delete_alias
    indices.delete_data_lifecycle indices.delete_data_stream indices.delete_index_template
    indices.delete_template indices.disk_usage indices.downsample indices.exists indices.exists_alias
    indices.exists_index_template indices.exists_template indices.explain_data_lifecycle
    indices.field_usage_stats indices.flush indices.forcemerge indices.get indices.get_alias
    indices.get_data_lifecycle indices.get_data_stream indices.get_field_mapping indices.get_index_template
    indices.get_mapping indices.get_settings indices.get_template indices.migrate_to_data_stream
    indices.modify_data_stream indices.open indices.put_alias indices.put_data_lifecycle
    indices.put_index_template indices.put_mapping indices.put_settings indices.put_template indices.recovery
    indices.refresh indices.reload_search_analyzers indices.resolve_index indices.rollover indices.segments
    indices.shard_stores indices.shrink indices.split indices.stats indices.update_aliases
    indices.validate_query info knn_search mget msearch mtermvectors open_point_in_time ping rank_eval reindex
    search search_mvt search_shards terms_enum termvectors update update_by_query
"""
SEALED = set(SEALED_NAMES.split())
CONFINED = SEALED | set(CONFINED_NAMES.split())


def test_every_parameter_of_a_confined_api_is_known(client):
    """A parameter that a new client brings is refused until somebody has looked at it."""
    confined = confined_apis(client) | SEALED
    unknown = {(name, p) for name in confined for p in APIS[name].query if p not in routes.PARAMETERS}
    assert unknown == REFUSED_PARAMETERS


REFUSED_PARAMETERS = set()


@pytest.mark.parametrize(
    "name",
    [
        "Books",
        "ÄRGER",
        "a..b",
        "<a-{now/d}>",
        "a:b",
        "*:b",
        "_a",
        "+a",
        "a b",
        "a#b",
        "a?b",
        "a%2fb",
        'a"b',
        "a\\b",
        ".",
        "-",
        "a,,b",
    ],
)
def test_bad_names_are_refused(name, client, sent):
    for index in (name, [name], f"good,{name}", f"-{name}"):
        with pytest.raises(RequestRefused):
            client.search(index=index)
    with pytest.raises(RequestRefused, match="index name"):
        client.bulk(operations=[{"delete": {"_index": name, "_id": "1"}}])
    assert sent == []


def test_lists_and_patterns_are_prefixed_one_by_one(client, sent):
    client.search(index="a,b*,-bc,*,-*d,.ds-x-1")
    assert sent[-1][1] == "/t1-a,t1-b*,-t1-bc,t1-*,-t1-*d,.ds-t1-x-1/_search"


def test_an_api_that_is_not_in_the_table_is_refused(client, sent):
    for method, path in [
        ("GET", "/_new/api"),
        ("GET", "/mine/_new"),
        ("GET", "/_nodes"),
        ("POST", "/_sql"),
        ("POST", "/_query"),
        ("PATCH", "/mine"),
        ("GET", "/_cluster/state"),
        ("GET", f"//{STRANGER}/_search"),
        ("GET", f"/{STRANGER}/../_search"),
        ("GET", "/mine/_search/"),
        ("DELETE", "/mine/_alias/"),
        ("DELETE", "//_alias/x"),
        ("GET", "//_search"),
        ("GET", "mine/_doc/1/../../x"),
    ]:
        with pytest.raises(RequestRefused):
            client.perform_request(method, path)
    assert sent == []


def test_parameters_that_could_name_an_index_are_refused(client, sent):
    for query in [
        f"index={STRANGER}",
        "source=%7B%7D&source_content_type=application/json",
        f"name={STRANGER}",
        f"q=a&index={STRANGER}",
        "scroll_id=abc",
        "size=1&size=2",
    ]:
        with pytest.raises(RequestRefused):
            client.perform_request("GET", f"/_search?{query}")
    assert sent == []


def test_a_value_of_a_parameter_stays_one(client, sent):
    client.search(index="mine", q=f"a&index={STRANGER};index={STRANGER}#x")
    _, target, _ = sent[0]
    assert target == "/t1-mine/_search?q=a%26index%3Dt2-secret%3Bindex%3Dt2-secret%23x"


@pytest.mark.parametrize("id", ["..", ".", f"../../{STRANGER}/_doc/1", f"..\\{STRANGER}", "a/../b"])
def test_a_document_id_cannot_change_the_path(client, sent, id):
    with pytest.raises(RequestRefused):
        client.get(index="mine", id=id)
    assert sent == []


def test_a_document_id_may_be_anything_else(client, sent):
    for id in ["_all", "a/b", "a b", "ä", "x?y#z", "a..b", "*,<", "%2F"]:
        sent.clear()
        client.get(index="mine", id=id)
        assert unquote(sent[0][1]) == f"/t1-mine/_doc/{id}"
        assert sent[0][1].count("/") == 3


def body_of(sent):
    return json.loads(sent[-1][2])


REFERENCES = [
    LOOKUP,
    {"bool": {"filter": [{"nested": {"path": "p", "query": LOOKUP}}]}},
    {"terms": {"terms": {"index": STRANGER, "id": "1", "path": "x"}}},
    {"terms": {"index": {"index": STRANGER, "id": 1, "path": "x", "routing": "r"}}},
    {"terms": {"_source": {"index": STRANGER, "id": "1", "path": "x"}}},
    {"terms": {"params": {"path": "x", "id": "1", "index": STRANGER}}},
    {"terms": {"pit": {"path": "x", "id": "1", "index": STRANGER}}},
    {"geo_shape": {"g": {"indexed_shape": {"index": STRANGER, "id": "1"}}}},
    {"percolate": {"field": "q", "index": STRANGER, "id": "1"}},
    {
        "more_like_this": {
            "like": [{"_index": STRANGER, "_id": "1"}, "text"],
            "unlike": {"_index": STRANGER, "_id": "2"},
        }
    },
    {"pinned": {"docs": [{"_index": STRANGER, "_id": "1"}], "organic": {"match_all": {}}}},
    {"term": {"_index": STRANGER}},
    {"term": {"_index": {"value": STRANGER}}},
    {"terms": {"_index": [STRANGER]}},
]


@pytest.mark.parametrize("query", REFERENCES, ids=lambda q: next(iter(q)))
def test_references_inside_a_query(client, sent, query):
    given = json.loads(json.dumps(query))
    bodies = [
        ("search", {"query": query}),
        ("search", {"post_filter": query, "aggs": {"terms": {"filter": query}}}),
        ("search", {"retriever": {"standard": {"query": query}}, "rescore": {"query": {"rescore_query": query}}}),
        ("search", {"knn": {"field": "v", "query_vector": [1], "filter": query}}),
        ("count", {"query": query}),
        ("delete_by_query", {"query": query}),
        ("update_by_query", {"query": query}),
        ("explain", {"query": query}),
        ("field_caps", {"index_filter": query}),
        ("async_search.submit", {"query": query}),
        ("eql.search", {"query": "any where true", "filter": query}),
        ("indices.validate_query", {"query": query}),
        ("indices.create", {"aliases": {"x": {"filter": query}}}),
    ]
    for name, body in bodies:
        extra = {"explain": {"id": "1"}}.get(name, {})
        APIS[name].of(client)(index="mine", body=body, **extra)
        assert_confined(APIS[name], *sent[-1])
        assert "t1-t2-secret" in sent[-1][2].decode()
    assert query == given, "the caller's own body was changed"


def test_a_query_given_as_text_or_as_an_object_of_the_dsl(client, sent):
    from elasticsearch.dsl import Q

    client.search(index="mine", body=json.dumps({"query": LOOKUP}))
    assert_confined(APIS["search"], *sent[-1])
    client.search(index="mine", body=json.dumps({"query": LOOKUP}).encode())
    assert_confined(APIS["search"], *sent[-1])
    client.search(index="mine", query=Q("terms", user=LOOKUP["terms"]["user"]))
    assert_confined(APIS["search"], *sent[-1])
    client.search(index="mine", body='{"query": {"match_all": {}}, "query": ' + json.dumps(LOOKUP) + "}")
    assert body_of(sent)["query"]["terms"]["user"]["index"] == "t1-t2-secret"


LEFT_ALONE = {
    "fields called index": {
        "query": {"bool": {"must": [{"term": {"index": "x"}}, {"match": {"index": {"query": "x"}}}]}}
    },
    "aggregations called so": {"aggs": {"index": {"terms": {"field": "index"}}}},
    "a sort by fields": {"sort": [{"index": "asc", "path": "asc", "id": "asc"}]},
    "a sort by the index": {"sort": [{"_index": "desc"}, {"_index": {"order": "asc"}}, "_index"]},
    "a sort that is one object": {"sort": {"_index": "asc", "n": "desc"}},
    "parameters": {"script_fields": {"s": {"script": {"source": "1", "params": {"index": "x", "path": "y", "id": 1}}}}},
    "parameters of any name": {
        "query": {
            "script_score": {"script": {"id": "s", "params": {"_index": "x", "pit": {"id": 1}, "_": {"_index": 5}}}}
        }
    },
    "parameters of aggregations": {
        "aggs": {"m": {"scripted_metric": {"map_script": "", "params": {"_index": 1, "wrapper": {"query": "x"}}}}}
    },
    "columns": {"aggs": {"t": {"terms": {"field": "n", "order": {"index": "asc", "path": "desc"}}}}},
    "a field called target_index": {"query": {"bool": {"must": [{"term": {"target_index": 5}}]}}},
    "a field called terms": {"query": {"match": {"terms": {"query": "index id path"}}}},
}


@pytest.mark.parametrize("body", LEFT_ALONE.values(), ids=list(LEFT_ALONE))
def test_what_only_looks_like_a_reference_is_left_alone(client, sent, body):
    client.search(index="mine", body=body)
    assert body_of(sent) == body


def test_fields_of_any_name_can_be_mapped(client, sent):
    names = ["index", "path", "_index_", "indexed_shape", "percolate", "target_index", "sort", "script", "terms", "pit"]
    properties = {name: {"type": "keyword", "index": False} for name in names}
    client.indices.put_mapping(index="mine", properties=properties)
    assert body_of(sent) == {"properties": properties}


SHAPE = {"query": {"geo_shape": {"g": {"indexed_shape": {"id": "1"}}}}}


def test_a_default_of_the_servers_is_written_out(client, sent):
    client.search(index="mine", body=SHAPE)
    assert body_of(sent)["query"]["geo_shape"]["g"]["indexed_shape"] == {"id": "1", "index": "t1-shapes"}
    for wrong in (None, 2024, True, ["a", 5], {}):
        with pytest.raises(RequestRefused):
            client.search(index="mine", query={"shape": {"g": {"indexed_shape": {"id": "1", "index": wrong}}}})


class Lazy(UserString):
    pass


class Odd(str, enum.Enum):
    own = "_index"
    lookup = "index"


NO_TEXT = [2024, 1.5, 0.00001, True, False, None, ["a", 2024], [["a"]], [None], Decimal("1.5"), 10**30, (1,)]


@pytest.mark.parametrize("value", NO_TEXT, ids=repr)
def test_a_reference_that_is_no_text_is_refused(client, sent, value):
    for call in (
        lambda: client.mget(docs=[{"_index": value, "_id": "1"}]),
        lambda: client.mtermvectors(docs=[{"_index": value, "_id": "1"}]),
        lambda: client.termvectors(index="mine", body={"_index": value, "doc": {}}),
        lambda: client.bulk(operations=[{"index": {"_index": value, "_id": "1"}}, {}]),
        lambda: client.bulk(index="mine", operations=[{"delete": {"_index": value, "_id": "1"}}]),
        lambda: client.search(query={"terms": {"f": {"index": value, "id": "1", "path": "x"}}}),
        lambda: client.search(query={"more_like_this": {"like": {"_index": value, "_id": "1"}}}),
        lambda: client.search(query={"percolate": {"field": "q", "index": value, "id": "1"}}),
        lambda: client.search(query={"term": {"_index": {"value": value}}}),
        lambda: client.search(runtime_mappings={"r": {"type": "lookup", "target_index": value}}),
        lambda: client.reindex(source={"index": value}, dest={"index": "x"}),
        lambda: client.reindex(source={"index": "x"}, dest={"index": value}),
        lambda: client.indices.update_aliases(actions=[{"add": {"index": value, "alias": "x"}}]),
        lambda: client.indices.update_aliases(actions=[{"add": {"index": "x", "aliases": value}}]),
        lambda: client.indices.put_settings(
            index="x", settings={"index": {"lifecycle": {"rollover_alias": value or 0}}}
        ),
        lambda: client.indices.put_template(name="x", index_patterns=0 if value is None else value),
    ):
        with pytest.raises(RequestRefused):
            call()
    assert sent == []


def test_what_an_object_is_in_json_is_what_counts(client, sent):
    """Else a date would be the central index of that name, and a key that no dictionary finds would be overlooked."""
    for value, written in [
        (date(2024, 1, 1), "2024-01-01"),
        (uuid.UUID(int=1), str(uuid.UUID(int=1))),
        (Lazy("x"), None),
    ]:
        try:
            client.mget(docs=[{"_index": value, "_id": "1"}])
        except SerializationError:
            assert written is None
        else:
            assert body_of(sent)["docs"][0]["_index"] == f"t1-{written}"
    for key in (Odd.own, type("Text", (str,), {"__hash__": lambda self: 1})("_index")):
        client.mget(docs=[{key: "secret", "_id": "1"}])
        assert body_of(sent)["docs"] == [{"_index": "t1-secret", "_id": "1"}]
        client.bulk(index="mine", operations=[{"delete": {key: "secret", "_id": "1"}}])
        assert lines_of(sent) == [{"delete": {"_index": "t1-secret", "_id": "1"}}]
    client.search(query={"terms": {"f": {Odd.lookup: "secret", "id": "1", "path": "x"}}})
    assert body_of(sent)["query"]["terms"]["f"]["index"] == "t1-secret"
    from elasticsearch.dsl import AttrDict

    with pytest.raises(RequestRefused, match="wrapper"):
        client.search(query=AttrDict({"wrapper": AttrDict({"query": "e30="})}))


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/cbor"},
        {"Content-Type": "application/yaml; charset=utf-8"},
        {"content-type": "application/vnd.elasticsearch+smile;compatible-with=8"},
        {"content-type": "text/plain"},
        {"Content-Length": "7"},
        {"transfer-encoding": "chunked"},
        {"content-encoding": "gzip"},
    ],
    ids=str,
)
def test_bodies_are_read_as_they_were_confined(client, sent, headers):
    with pytest.raises(RequestRefused, match=r"JSON|header"):
        client.perform_request("POST", "/_search", headers={**headers, "accept": "application/json"}, body={})
    if "type" not in str(headers).lower():  # which each method says itself
        with pytest.raises(RequestRefused, match="header"):
            client.options(headers=headers).search(query={"match_all": {}})
    assert sent == []
    client.options(headers={"Content-Type": "application/json; charset=UTF-8", "x-opaque-id": "1"}).search()
    assert len(sent) == 1


def test_lines_may_be_yielded(client, sent):
    client.bulk(operations=(line for line in [{"index": {"_index": "x"}}, {"a": 1}]))
    assert lines_of(sent) == [{"index": {"_index": "t1-x"}}, {"a": 1}]
    for wrong in (
        {"index": {"_index": "x"}},
        5,
        [{"index": {"_index": "x"}}, ""],
        [{"index": None}, {}],
        [{"index": ["x"]}, {}],
    ):
        with pytest.raises(RequestRefused):
            client.bulk(operations=wrong)


def test_nothing_of_a_document_is_in_an_error(client, sent):
    canary = "canary-c0ffee"
    for call in (
        lambda: client.bulk(operations=[{canary: 1}, {}]),
        lambda: client.bulk(operations=[{"index": canary}, {}]),
        lambda: client.bulk(operations=[json.dumps({"a": canary}), {}]),
        lambda: client.bulk(operations=[canary, {}]),
        lambda: client.get(index="mine", id=f"../{canary}"),
        lambda: client.search(body=f'{{"query": "{canary}'),
        lambda: client.search(body="[" * 100_000 + canary),
        lambda: client.perform_request("GET", f"/mine/_doc/{canary}/x"),
    ):
        with pytest.raises(RequestRefused) as refused:
            call()
        assert canary not in str(refused.value)


@pytest.mark.parametrize(
    "body",
    [
        {"query": {"wrapper": {"query": "eyJ0ZXJtcyI6e319"}}},
        {"suggest": {"s": {"text": "x", "phrase": {"field": "f", "collate": {"query": {"source": "{}"}}}}}},
        {"pit": {"id": "raw"}},
        {"pit": {}},
        {"pit": None},
        {"pit": [{"id": "raw"}]},
    ],
)
def test_bodies_that_cannot_be_seen_through_are_refused(client, sent, body):
    with pytest.raises((RequestRefused, TenantMismatch)):
        client.search(body=body)
    assert sent == []


PERCOLATOR = {"properties": {"q": {"type": "percolator"}}}
NAMED = {"dynamic_templates": [{"x": {"mapping": {"type": "{name}"}}}]}


@pytest.mark.parametrize("mappings", [PERCOLATOR, NAMED, "eyJ4Ijp7fX0=", ["x"]], ids=["type", "name", "text", "list"])
def test_fields_whose_documents_are_queries_are_refused(client, sent, mappings):
    with pytest.raises(RequestRefused):
        client.indices.create(index="mine", mappings=mappings)
    with pytest.raises(RequestRefused):
        client.indices.put_index_template(name="x", index_patterns=["x"], template={"mappings": mappings})
    with pytest.raises(RequestRefused):
        client.indices.put_mapping(index="mine", body=mappings)
    with pytest.raises(RequestRefused):
        client.cluster.put_component_template(name="x", template={"mappings": mappings})
    assert sent == []


@pytest.mark.parametrize(
    ("api", "given"),
    [
        ("indices.create", {"index": "m", "settings": {"index": {"resize": {"source": {"name": STRANGER}}}}}),
        ("indices.create", {"index": "m", "settings": {"index.resize.source.name": STRANGER}}),
        ("indices.put_settings", {"index": "m", "settings": {"index.store.type": "snapshot"}}),
        ("indices.put_alias", {"index": "m", "name": "a", "body": {"index": STRANGER}}),
        ("indices.put_alias", {"index": "m", "name": "a", "body": {"alias": STRANGER}}),
        ("indices.put_alias", {"index": "m", "name": "a", "body": {"filter": "eyJ4Ijp7fX0="}}),
        ("reindex", {"source": {"index": "a"}, "dest": {"index": "b"}, "script": {"source": "ctx._index='x'"}}),
        ("reindex", {"source": {"index": "a", "remote": {"host": "http://x:1"}}, "dest": {"index": "b"}}),
        ("reindex", {"source": {}, "dest": {"index": "b"}}),
        ("msearch", {"searches": [{"indices": STRANGER}, {}]}),
        ("msearch", {"searches": [{"index": "x"}]}),
        ("bulk", {"operations": [{"index": {}, "delete": {}}, {}]}),
        ("bulk", {"operations": [{"other": {}}, {}]}),
        ("bulk", {"operations": ["no json", {}]}),
        ("rank_eval", {"index": "m", "requests": [], "body": None, "search_type": "x", "metric": {}}),
        ("search_template", {"index": "m", "source": "{}"}),
        ("put_script", {"id": "x", "script": {"lang": "painless", "source": "1"}}),
        ("snapshot.restore", {"repository": "r", "snapshot": "s"}),
        ("ingest.put_pipeline", {"id": "p", "processors": []}),
        ("esql.query", {"query": f"FROM {STRANGER}"}),
        ("sql.query", {"query": f"SELECT * FROM {STRANGER}"}),
        ("clear_scroll", {"scroll_id": "_all"}),
        ("tasks.list", {}),
        ("tasks.cancel", {}),
        ("cluster.state", {}),
        ("transform.put_transform", {"transform_id": "t", "source": {"index": STRANGER}, "dest": {"index": "x"}}),
    ],
)
def test_refused_requests(client, sent, api, given):
    given = {key: value for key, value in given.items() if value is not None}
    if api == "rank_eval":
        given = {"index": "m", "body": {"requests": [{"id": "1", "template_id": "t", "params": {}}], "templates": []}}
    with pytest.raises((RequestRefused, TenantMismatch)):
        APIS[api].of(client)(**given)
    assert sent == []


def lines_of(sent):
    return [json.loads(line) for line in sent[-1][2].decode().splitlines()]


def test_the_lines_of_a_bulk_request(client, sent):
    document = {"_index": STRANGER, "index": STRANGER, "path": "x", "terms": LOOKUP}
    expected = [{"index": {"_index": "t1-t2-secret"}}, document, {"delete": {"_index": "t1-x", "_id": "1"}}]
    expected += [{"update": {"_id": "1"}}, {"doc": document}]
    lines = [{"index": {"_index": STRANGER}}, document, {"delete": {"_index": "x", "_id": "1"}}]
    lines += [{"update": {"_id": "1"}}, {"doc": document}]
    text = "\n".join(map(json.dumps, lines)) + "\n"
    for operations in [
        lines,
        list(map(json.dumps, lines)),
        [json.dumps(line).encode() for line in lines],
        text,
        text.encode(),
        [text],
        text.split("\n", 2),
        "\n\n" + text,
    ]:
        client.bulk(index="mine", operations=operations)
        assert sent[-1][1] == "/t1-mine/_bulk"
        assert lines_of(sent) == expected


def test_an_action_cannot_hide_behind_a_document(client, sent):
    action = json.dumps({"index": {"_index": STRANGER}})
    for operations in [
        ['{"index": {}}\n{"a": 1}', action, '{"b": 2}'],
        [{"index": {}}, f'{{"a": 1}}\n{action}\n{{"b": 2}}'],
        [{"delete": {"_id": "1"}}, action, "{}"],
        ['{"create": {}}\r\n{"a": 1}\r', action, "{}"],
    ]:
        client.bulk(index="mine", operations=operations)
        named = [line["index"]["_index"] for line in lines_of(sent) if line.get("index", {}).get("_index")]
        assert named == ["t1-t2-secret"]


def test_the_headers_of_msearch(client, sent):
    client.msearch(searches=[{}, {"query": LOOKUP}, {"index": [STRANGER, "*"]}, {}, {"index": ""}, {}])
    first, query, second, _, third, _ = lines_of(sent)
    assert first == third == {"index": "t1-*"}
    assert second == {"index": ["t1-t2-secret", "t1-*"]}
    assert query["query"]["terms"]["user"]["index"] == "t1-t2-secret"
    with pytest.raises(RequestRefused, match="pit"):
        client.msearch(searches=[{}, {"pit": {"id": SignedIds("t1", "default").sign("pit", "x")}}])
    client.msearch(index="mine", searches=[{}, {}, {"index": None}, {}])
    assert sent[-1][1] == "/t1-mine/_msearch"
    assert lines_of(sent) == [{}, {}, {}, {}]


def test_names_in_bodies(client, sent):
    client.indices.update_aliases(
        actions=[
            {"add": {"indices": ["a", "b*"], "alias": "x", "filter": LOOKUP}},
            {"remove": {"index": "_all", "aliases": ["*"]}},
            {"remove_index": {"index": STRANGER}},
            {"add": {"index": "", "alias": "y"}},
            {"add": {"indices": [], "alias": "y"}},
        ]
    )
    add, remove, gone, empty, none = body_of(sent)["actions"]
    assert empty == {"add": {"index": "t1-*", "alias": "t1-y"}}
    assert none == {"add": {"indices": ["t1-*"], "alias": "t1-y"}}
    assert (add["add"]["indices"], add["add"]["alias"]) == (["t1-a", "t1-b*"], "t1-x")
    assert add["add"]["filter"]["terms"]["user"]["index"] == "t1-t2-secret"
    assert remove == {"remove": {"index": "t1-*", "aliases": ["t1-*"]}}
    assert gone == {"remove_index": {"index": "t1-t2-secret"}}
    client.indices.put_index_template(
        name="logs",
        index_patterns="logs-*",
        composed_of=["base"],
        template={"aliases": {"x": {}}, "settings": {"index": {"lifecycle": {"rollover_alias": "r"}}}},
        data_stream={},
    )
    body = body_of(sent)
    assert sent[-1][1] == "/_index_template/t1-logs"
    assert (body["index_patterns"], body["composed_of"]) == ("t1-logs-*", ["t1-base"])
    assert body["template"] == {
        "aliases": {"t1-x": {}},
        "settings": {"index": {"lifecycle": {"rollover_alias": "t1-r"}}},
    }
    client.indices.modify_data_stream(actions=[{"add_backing_index": {"data_stream": "d", "index": ".ds-d-1"}}])
    assert body_of(sent)["actions"] == [{"add_backing_index": {"data_stream": "t1-d", "index": ".ds-t1-d-1"}}]
    client.search(index="a", indices_boost=[{"a": 2}], runtime_mappings={"r": {"type": "lookup", "target_index": "u"}})
    assert body_of(sent)["indices_boost"] == [{"t1-a": 2}]
    assert body_of(sent)["runtime_mappings"]["r"]["target_index"] == "t1-u"
