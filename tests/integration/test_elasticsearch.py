"""Tenants on a real Elasticsearch node: what each sees, what it gets back, and what it cannot reach."""

import asyncio
import contextlib

import pytest

pytest.importorskip("elasticsearch", reason="the client of Elasticsearch is not installed")

from elasticsearch import NotFoundError, helpers

from tenant_router import context
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import (
    ConfigurationError,
    TenantContextMissing,
    TenantMismatch,
    TenantSuspended,
)
from tenant_router.orm_backends.es_orm import get_async_client, get_client
from tenant_router.tenant_context import DeniedContext

BOTH = ("a", "b")


@pytest.fixture
def filled(es):
    """Each tenant has an index ``books`` with three documents that say whose they are, and an alias ``shelf``."""
    for tenant_id in (es.a, es.b):
        with tenant_context_bind(tenant_id):
            client = get_client()
            client.indices.create(
                index="books", aliases={"shelf": {}}, mappings={"properties": {"at": {"type": "date"}}}
            )
            for number in range(3):
                client.index(index="books", id=str(number), document={"owner": tenant_id, "n": number})
            client.indices.refresh(index="books")
    return es


@pytest.fixture(params=BOTH)
def tenant(request, filled):
    """Both tenants in turn, bound."""
    tenant_id = getattr(filled, request.param)
    with tenant_context_bind(tenant_id):
        yield tenant_id


def owners(found):
    return {hit["_source"]["owner"] for hit in found["hits"]["hits"]}


@pytest.mark.parametrize(
    "index", ["books", "*", "_all", None, "books*", "shelf", "books,shelf", "b*,-other", ["books"]]
)
def test_a_search_finds_the_tenants_own(tenant, index):
    found = get_client().search(index=index)
    assert owners(found) == {tenant}
    assert {hit["_index"] for hit in found["hits"]["hits"]} == {"books"}
    assert found["hits"]["total"]["value"] == 3


def test_an_exclusion_excludes_the_tenants_own(tenant):
    assert get_client().search(index="*,-books")["hits"]["hits"] == []


def test_a_strangers_index_is_not_found_even_by_its_full_name(filled):
    stranger = f"{filled.b}~books"
    with tenant_context_bind(filled.a):
        with pytest.raises(NotFoundError) as error:
            get_client().search(index=stranger)
        assert error.value.body["error"]["reason"] == f"no such index [{stranger}]"
        assert get_client().search(index=f"{filled.b}~*")["hits"]["hits"] == []
        assert not get_client().indices.exists(index=stranger)


def test_a_terms_lookup_reads_the_tenants_own_index_only(filled):
    for tenant_id in (filled.a, filled.b):
        with tenant_context_bind(tenant_id):
            get_client().index(index="lists", id="1", document={"n": [1, 2], "owner": tenant_id}, refresh=True)
            lookup = {"terms": {"n": {"index": "lists", "id": "1", "path": "n"}}}
            assert get_client().count(index="books", query=lookup)["count"] == 2
    lookup["terms"]["n"]["index"] = f"{filled.b}~lists"
    with tenant_context_bind(filled.a), pytest.raises(NotFoundError):
        get_client().count(index="books", query=lookup)


def test_documents_one_by_one(tenant):
    client = get_client()
    assert client.get(index="books", id="1")["_source"] == {"owner": tenant, "n": 1}
    assert client.update(index="shelf", id="1", doc={"n": 9})["_index"] == "books"
    assert client.get_source(index="books", id="1")["n"] == 9
    assert client.delete(index="books", id="1")["_index"] == "books"
    assert not client.exists(index="books", id="1")


def test_several_documents_and_searches(tenant):
    client = get_client()
    docs = client.mget(docs=[{"_index": "books", "_id": "1"}, {"_index": "shelf", "_id": "2"}])["docs"]
    assert [doc["_index"] for doc in docs] == ["books", "books"]
    assert [doc["_source"]["owner"] for doc in docs] == [tenant, tenant]
    assert [doc["_id"] for doc in client.mget(index="books", ids=["0", "2"])["docs"]] == ["0", "2"]
    answers = client.msearch(searches=[{}, {}, {"index": "books"}, {}, {"index": ["_all"]}, {}])["responses"]
    assert [owners(answer) for answer in answers] == [{tenant}] * 3


def test_the_bulk_helpers(tenant):
    client = get_client()
    actions = [{"_index": "many", "_id": str(n), "owner": tenant, "n": n} for n in range(50)]
    assert helpers.bulk(client, actions, refresh=True) == (50, [])
    assert all(ok for ok, _ in helpers.parallel_bulk(client, actions, thread_count=4, chunk_size=5))
    results = list(helpers.streaming_bulk(client, [{"_op_type": "delete", "_index": "many", "_id": "1"}]))
    assert results[0][1]["delete"]["_index"] == "many"
    client.indices.refresh()
    found = list(helpers.scan(client, index="many", size=7))
    assert {hit["_source"]["owner"] for hit in found} == {tenant}
    assert (len(found), {hit["_index"] for hit in found}) == (49, {"many"})


def test_a_failure_within_bulk_is_told_in_the_tenants_names(tenant):
    _, errors = helpers.bulk(get_client(), [{"_index": "books", "_id": "9", "at": "no date"}], raise_on_error=False)
    assert errors[0]["index"]["_index"] == "books"
    with pytest.raises(helpers.BulkIndexError):
        helpers.bulk(get_client(), [{"_op_type": "create", "_index": "books", "_id": "1"}])


def test_what_exists_is_told_in_the_tenants_names(tenant):
    client = get_client()
    assert list(client.indices.get(index="*")) == ["books"]
    assert client.indices.get(index="books")["books"]["aliases"] == {"shelf": {}}
    assert client.indices.get(index="books")["books"]["settings"]["index"]["provided_name"] == "books"
    assert client.indices.get_alias().body == {"books": {"aliases": {"shelf": {}}}}
    assert client.indices.get_alias(name="shelf").body == {"books": {"aliases": {"shelf": {}}}}
    assert list(client.indices.get_mapping()) == ["books"]
    assert list(client.indices.get_settings()) == ["books"]
    assert list(client.indices.stats()["indices"]) == ["books"]
    assert client.indices.stats()["_all"]["total"]["docs"]["count"] == 3
    assert list(client.indices.segments()["indices"]) == ["books"]
    assert list(client.indices.recovery()) == ["books"]
    assert list(client.cluster.health(level="indices")["indices"]) == ["books"]
    resolved = client.indices.resolve_index(name="*")
    assert [index["name"] for index in resolved["indices"]] == ["books"]
    assert [(alias["name"], alias["indices"]) for alias in resolved["aliases"]] == [("shelf", ["books"])]
    assert client.field_caps(fields="*")["indices"] == ["books"]
    assert list(client.search_shards(index="shelf")["indices"]) == ["books"]


def test_cat(tenant):
    client = get_client()
    assert [row["index"] for row in client.cat.indices(format="json")] == ["books"]
    assert [(row["alias"], row["index"]) for row in client.cat.aliases(format="json")] == [("shelf", "books")]
    assert {row["index"] for row in client.cat.shards(format="json")} == {"books"}
    assert client.cat.count(format="json")[0]["count"] == "3"
    assert client.cat.indices(h="index").strip() == "books"
    tables = (client.cat.indices, client.cat.shards, client.cat.segments, client.cat.aliases, client.cat.recovery)
    assert not any("~books" in str(table()) for table in tables)


def test_aliases(tenant):
    client = get_client()
    client.indices.update_aliases(
        actions=[
            {"add": {"index": "books", "alias": "one", "filter": {"term": {"n": 1}}}},
            {"remove": {"index": "*", "alias": "shelf"}},
        ]
    )
    assert client.count(index="one")["count"] == 1
    assert sorted(client.indices.get_alias(index="books")["books"]["aliases"]) == ["one"]
    client.indices.put_alias(index="books", name="two")
    client.indices.delete_alias(index="books", name="*")
    assert client.indices.get_alias().body == {"books": {"aliases": {}}}


def test_templates_make_the_tenants_indices_only(filled):
    with tenant_context_bind(filled.a):
        client = get_client()
        mappings = {"properties": {"when": {"type": "date"}}}
        client.cluster.put_component_template(name="base", template={"mappings": mappings})
        client.indices.put_index_template(
            name="logs", index_patterns=["logs-*", "*"], composed_of=["base"], template={"aliases": {"all-logs": {}}}
        )
        client.index(index="logs-1", document={"x": 1})
        assert client.indices.get(index="logs-1")["logs-1"]["mappings"]["properties"]["when"] == {"type": "date"}
        assert list(client.indices.get_alias(name="all-logs")) == ["logs-1"]
        found = client.indices.get_index_template()["index_templates"]
        assert [one["name"] for one in found] == ["logs"]
        assert found[0]["index_template"]["index_patterns"] == ["logs-*", "*"]
        assert found[0]["index_template"]["composed_of"] == ["base"]
        assert [row["name"] for row in client.cat.templates(format="json")] == ["logs"]
    with tenant_context_bind(filled.b):
        get_client().index(index="logs-1", document={"x": 1})
        assert "when" not in get_client().indices.get(index="logs-1")["logs-1"]["mappings"]["properties"]
        with pytest.raises(NotFoundError):
            get_client().indices.get_index_template()
        assert not get_client().indices.exists_index_template(name="logs")
    with tenant_context_bind(filled.a):
        get_client().indices.delete_index_template(name="logs")
        get_client().cluster.delete_component_template(name="base")


def test_deleting_everything_deletes_the_tenants_own(filled):
    with tenant_context_bind(filled.a):
        for index in get_client().indices.get(index="*"):
            get_client().indices.delete(index=index)
    with tenant_context_bind(filled.b):
        assert get_client().count()["count"] == 3


def test_clone_and_rollover(tenant):
    client = get_client()
    client.indices.add_block(index="books", block="write")
    assert client.indices.clone(index="books", target="copy")["index"] == "copy"
    client.indices.refresh(index="copy")
    assert owners(client.search(index="copy")) == {tenant}
    client.indices.create(index="log-000001", aliases={"log": {"is_write_index": True}})
    rolled = client.indices.rollover(alias="log")
    assert (rolled["old_index"], rolled["new_index"]) == ("log-000001", "log-000002")


# --- ids that the cluster gives out ---


def test_a_scroll_is_its_tenants(filled):
    with tenant_context_bind(filled.a):
        first = get_client().search(index="books", size=1, scroll="1m")
        second = get_client().scroll(scroll_id=first["_scroll_id"], scroll="1m")
        assert owners(second) == {filled.a}
    for use in (
        lambda c: c.scroll(scroll_id=second["_scroll_id"]),
        lambda c: c.clear_scroll(scroll_id=second["_scroll_id"]),
    ):
        with tenant_context_bind(filled.b), pytest.raises(TenantMismatch):
            use(get_client())
    with tenant_context_bind(filled.b), pytest.raises(TenantMismatch):
        get_client().scroll(scroll_id=second["_scroll_id"].partition(".")[2])
    with tenant_context_bind(filled.a):
        assert get_client().clear_scroll(scroll_id=[second["_scroll_id"]])["num_freed"] == 1


def test_a_point_in_time_is_its_tenants(filled):
    with tenant_context_bind(filled.a):
        opened = get_client().open_point_in_time(index="*", keep_alive="1m")["id"]
        found = get_client().search(pit={"id": opened, "keep_alive": "1m"})
        assert owners(found) == {filled.a}
    with tenant_context_bind(filled.b):
        with pytest.raises(TenantMismatch):
            get_client().search(pit={"id": found["pit_id"]})
        with pytest.raises(TenantMismatch):
            get_client().close_point_in_time(id=opened)
    with tenant_context_bind(filled.a):
        assert get_client().close_point_in_time(id=found["pit_id"])["succeeded"]


@pytest.mark.filterwarnings("ignore::elasticsearch.exceptions.GeneralAvailabilityWarning")
def test_a_task_is_its_tenants(filled):
    with tenant_context_bind(filled.a):
        task = get_client().indices.forcemerge(index="books", wait_for_completion=False)["task"]
    with tenant_context_bind(filled.b), pytest.raises(TenantMismatch):
        get_client().tasks.get(task_id=task)
    with tenant_context_bind(filled.a):
        with contextlib.suppress(NotFoundError):  # it may be done before it can be asked for
            assert "completed" in get_client().tasks.get(task_id=task)


# --- who asks ---


def test_without_a_tenant(es):
    for use in (lambda c: c.search(), lambda c: c.info(), lambda c: c.index(index="x", document={})):
        with pytest.raises(TenantContextMissing, match="Elasticsearch alias 'default'"):
            use(get_client())


def test_a_client_that_was_got_at_import_works_for_whoever_is_bound(filled):
    client = get_client()
    for tenant_id in (filled.a, filled.b):
        with tenant_context_bind(tenant_id):
            assert owners(client.options(request_timeout=5).search()) == {tenant_id}
    with pytest.raises(TenantContextMissing):
        client.search()


def test_a_tenants_client_refuses_another_tenant(filled):
    with tenant_context_bind(filled.a):
        client = get_client()
    with tenant_context_bind(filled.b), pytest.raises(TenantMismatch):
        client.search()
    assert owners(client.search()) == {filled.a}


def test_one_client_per_tenant_and_alias(es):
    with tenant_context_bind(es.a):
        assert get_client() is get_client("default")


def test_a_tenant_that_could_not_be_bound(es):
    before = context.enter(DeniedContext(es.a, TenantSuspended("it is suspended", es.a)))
    try:
        with pytest.raises(TenantSuspended):
            get_client()
    finally:
        context.leave(before)


def test_an_unknown_alias(es):
    with pytest.raises(ConfigurationError, match="'other'"):
        get_client("other")
    with tenant_context_bind(es.a), pytest.raises(ConfigurationError, match="default"):
        get_client("other")


def test_closing_a_tenants_client_closes_nothing(filled):
    with tenant_context_bind(filled.a):
        with get_client() as client:
            client.search()
        assert owners(client.search()) == {filled.a}


def test_a_reserved_alias_is_central(es_project):
    from tests.fixtures_elasticsearch import url

    es = es_project({"default": {"HOSTS": [url()]}, "central": {"HOSTS": [url()]}}, reserved={"central"})
    name = es.id("shared")
    es.put(es.id("x"))
    get_client("central").index(index=name, id="1", document={"x": 1}, refresh=True)
    with tenant_context_bind(es.id("x")):
        assert get_client("central").search(index=name)["hits"]["hits"][0]["_index"] == name
        with pytest.raises(NotFoundError):
            get_client().search(index=name)


# --- asynchronous ---


async def test_the_asynchronous_client(filled):
    from elasticsearch.helpers import async_bulk, async_scan

    for tenant_id in (filled.a, filled.b):
        async with tenant_context_bind(tenant_id):
            client = get_async_client()
            assert owners(await client.search()) == {tenant_id}
            await async_bulk(client, [{"_index": "many", "owner": tenant_id} for _ in range(5)], refresh=True)
            assert {hit["_source"]["owner"] async for hit in async_scan(client, index="many")} == {tenant_id}
            with pytest.raises(NotFoundError):
                await client.search(index=f"{filled.a}~books")
    with pytest.raises(TenantContextMissing):
        await get_async_client().search()
    with pytest.raises(TenantMismatch):
        async with tenant_context_bind(filled.a):
            await client.search()


def test_the_asynchronous_client_in_one_loop_after_another(filled):
    async def ask():
        return owners(await get_async_client().search())

    shared = None
    for _ in range(5):
        with tenant_context_bind(filled.a) as bound:
            assert asyncio.run(ask()) == {filled.a}
            shared = bound.parts["es_orm"]["default"].scope.shared
    assert len(shared._async) == 1  # those of loops that have ended are gone


# --- elasticsearch.dsl ---


def documents():
    from elasticsearch.dsl import AsyncDocument, Document, Integer, Keyword

    class Note(Document):
        owner = Keyword()
        n = Integer()

        class Index:
            name = "notes"

    class AsyncNote(AsyncDocument):
        owner = Keyword()

        class Index:
            name = "anotes"

    return Note, AsyncNote


def test_documents_of_the_dsl(es):
    from elasticsearch.dsl import A, Search, connections

    note, _ = documents()
    for tenant_id in (es.a, es.b):
        with tenant_context_bind(tenant_id):
            note.init()
            note(meta={"id": "1"}, owner=tenant_id, n=1).save(refresh=True)
            note.bulk([note(owner=tenant_id, n=2)], refresh=True)
    for tenant_id in (es.a, es.b):
        with tenant_context_bind(tenant_id):
            assert note.get("1").owner == tenant_id
            found = note.search().query("range", n={"gte": 0}).execute()
            assert {(type(hit), hit.owner, hit.meta.index) for hit in found} == {(note, tenant_id, "notes")}
            assert [hit.owner for hit in Search(index="notes").filter("term", owner=tenant_id).scan()] == [
                tenant_id
            ] * 2
            counted = Search(index="*").aggs.bucket("by", A("terms", field="owner"))
            assert counted is not None
            assert note._index.exists()
            assert list(note._index.get()) == ["notes"]
            note.get("1").delete(refresh=True)
            assert note.search().count() == 1
            assert connections.get_connection("default") is get_client.__globals__["_manager"]().clients["default"]
    with pytest.raises(TenantContextMissing):
        note.search().count()


async def test_asynchronous_documents_of_the_dsl(es):
    _, note = documents()
    for tenant_id in (es.a, es.b):
        async with tenant_context_bind(tenant_id):
            await note.init()
            await note(owner=tenant_id).save(refresh=True)
            assert [hit.owner async for hit in note.search()] == [tenant_id]


def test_what_a_project_still_configures_for_a_template_alias_is_not_reached(es):
    from elasticsearch import Elasticsearch
    from elasticsearch.dsl import connections

    mine = connections.get_connection("default")
    connections.create_connection("default", hosts=["http://127.0.0.1:1"])
    connections.configure(default={"hosts": ["http://127.0.0.1:1"]}, other={"hosts": ["http://127.0.0.1:2"]})
    connections.add_connection("default", Elasticsearch("http://127.0.0.1:1"))
    assert connections.get_connection("default") is mine
    assert connections.get_connection("other") is not mine
    connections.remove_connection("other")
    connections.remove_connection("default")
    assert connections.get_connection("default") is mine


def test_uninstalling_gives_the_dsl_its_own_connections_back(es):
    from elasticsearch.dsl import connections

    es.runtime.uninstall()
    assert type(connections.connections._conns) is dict
    with pytest.raises(KeyError):
        connections.get_connection("default")
