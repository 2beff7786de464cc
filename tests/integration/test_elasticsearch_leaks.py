"""The corpus of leaky code with Elasticsearch: each snippet meets its verdict; and what asynchronous code keeps."""

import threading

import pytest

pytest.importorskip("elasticsearch", reason="the client of Elasticsearch is not installed")

from tenant_router import context
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantContextMissing, TenantDeleted, TenantMismatch, TenantSuspended
from tenant_router.orm_backends.es_orm import get_client
from tests.leaky_elasticsearch import CORPUS, AsyncNote, Note, Search, text


@pytest.fixture
def pair(es):
    """Functions that bind a and b, each of which has one note."""
    binds = []
    for tenant_id, whose in ((es.a, "of a"), (es.b, "of b")):
        with tenant_context_bind(tenant_id):
            Note.init()
            Note(meta={"id": "1"}, text=whose).save(refresh=True)
        binds.append(lambda tenant_id=tenant_id: tenant_context_bind(tenant_id))
    return binds


def named(kind):
    return {name: snippet for name, (verdict, snippet) in CORPUS.items() if verdict == kind}


def rows():
    get_client().indices.refresh()
    found = get_client().search(index="*", query={"match_all": {}})["hits"]["hits"]
    return sorted((hit["_index"], hit["_id"], str(hit["_source"])) for hit in found)


def outcome(snippet, pair):
    """What ``b`` sees, or the name of the error."""
    try:
        return snippet(*pair)
    except (TenantMismatch, TenantContextMissing) as refusal:
        return type(refusal).__name__
    finally:
        assert context.stack.get() == ()


# One test for all snippets of a verdict: making indices takes the time.


def test_made_harmless(pair):
    assert {name: outcome(snippet, pair) for name, snippet in named("harmless").items()} == dict.fromkeys(
        named("harmless"), "of b"
    )


def test_refused_with_a_clear_error(pair):
    for name, snippet in named("refused").items():
        with pair[1]():
            before = rows()
        assert outcome(snippet, pair) in ("TenantMismatch", "TenantContextMissing"), name
        with pair[1]():
            assert rows() == before, name


def test_what_no_package_can_see(pair):
    """Fails when a snippet has become harmless or refused: then its verdict, and the document, are to be changed."""
    assert {outcome(snippet, pair) for snippet in named("yours").values()} == {"of a"}


async def test_asynchronous_documents_and_searches(pair):
    from elasticsearch.dsl import AsyncSearch

    search = AsyncSearch(index="notes")
    async with pair[0]():
        note = await AsyncNote.get("1")
        assert [hit.text for hit in await search.execute()] == ["of a"]
    async with pair[1]():
        assert [hit.text for hit in await search.execute()] == ["of b"]
        for use in (note.save, note.delete, lambda: note.update(text="x")):
            with pytest.raises(TenantMismatch):
                await use()
    async with pair[0]():
        assert await note.save() == "updated"


def test_a_search_keeps_its_answer_within_a_unit_of_work(pair):
    search = Search(index="notes")
    with pair[0]():
        first = search.execute()
        assert search.execute() is first
        assert search.execute(ignore_cache=True) is not first
        del search._response
        assert not hasattr(search, "_response")
    with pair[0]():
        assert search.execute() is not first


def test_a_search_of_a_module_in_many_threads_at_once(pair):
    search, wrong, stop = Search(index="notes"), [], threading.Event()

    def ask(bind, whose):
        while not stop.is_set():
            with bind():
                found = [hit.text for hit in search.execute()]
                if found != [whose]:
                    wrong.append(found)

    def guarded(*given):
        try:
            ask(*given)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=guarded, args=(pair[n % 2], f"of {'ab'[n % 2]}")) for n in range(4)]
    for thread in threads:
        thread.start()
    stop.wait(1)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_central_document_is_everybodys(es_project):
    from elasticsearch.dsl import Document, Keyword

    from tests.fixtures_elasticsearch import url

    es = es_project({"default": {"HOSTS": [url()]}, "central": {"HOSTS": [url()]}}, reserved={"central"})
    a, b = es.id("a"), es.id("b")
    es.put(a)
    es.put(b)

    class Page(Document):
        text = Keyword()

        class Index:
            name, using = es.id("pages"), "central"

    with tenant_context_bind(a):
        Page(meta={"id": "1"}, text="x").save(refresh=True)
        page = Page.get("1")
    with tenant_context_bind(b):
        assert page.update(text="y") == "updated"
        assert page.save() == "updated"


@pytest.mark.parametrize("state", ["X", "S"])
def test_a_client_that_was_kept_writes_nothing_after_its_tenant_is_gone(es, pair, state):
    with pair[0]() as bound:
        client = get_client()
        prefix = bound.parts["es_orm"]["default"].scope.prefix
    client.index(index="notes", id="2", document={"text": "unbound"})
    revision = es.delete(es.a) if state == "X" else es.put(es.a, state=state)
    es.arrived(es.a, revision)
    for use in (
        lambda: client.index(index="notes", id="3", document={}),
        lambda: client.options(request_timeout=60).delete(index="notes", id="1"),
        lambda: client.indices.delete(index="notes"),
        lambda: client.search(),
    ):
        with pytest.raises(TenantDeleted if state == "X" else TenantSuspended):
            use()
    with es.plain() as plain:
        plain.indices.refresh(index=f"{prefix}notes")
        assert plain.count(index=f"{prefix}notes")["count"] == 2


def test_a_client_that_was_kept_follows_its_tenant(es, pair):
    with pair[0]():
        client = get_client()
    es.put(es.a, es.record(es.a, es={"INDEX_PREFIX": f"{es.a}-moved-"}))
    client.index(index="notes", id="1", document={"text": "moved"})
    with pair[0]():
        assert text() == "moved"


def test_what_was_guarded_is_as_it_was_after_uninstalling(es):
    from elasticsearch.dsl import AsyncDocument, Document, connections
    from elasticsearch.dsl.search_base import Request

    es.runtime.uninstall()
    assert "_response" not in vars(Request)
    assert "_with_user_agent" not in vars(connections.connections)
    for kind in (Document, AsyncDocument):
        assert "from_es" not in vars(kind)
        assert vars(kind)["save"].__module__.startswith("elasticsearch.dsl")
