"""``migrate_all`` creates and updates what the application lists, for each tenant."""

from types import SimpleNamespace

import pytest

pytest.importorskip("elasticsearch", reason="the client of Elasticsearch is not installed")

from django.core.management import CommandError, call_command

from tenant_router import context
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.orm_backends.es_orm import Index, Template, get_client
from tests.fixtures_elasticsearch import url

SCHEMA = []
HERE = "tests.integration.test_elasticsearch_migrations"


def schema():
    return SCHEMA


@pytest.fixture
def listed():
    """Replaces what the application lists."""

    def put(*definitions):
        SCHEMA[:] = definitions

    yield put
    SCHEMA.clear()


@pytest.fixture
def es(es_project):
    tenants = es_project(
        {"default": {"HOSTS": [url()]}, "central": {"HOSTS": [url()]}}, reserved={"central"}, SCHEMA=f"{HERE}.schema"
    )
    tenants.a, tenants.b = tenants.id("a"), tenants.id("b")
    tenants.put(tenants.a)
    tenants.put(tenants.b, state="P")
    return tenants


def bound(es, tenant_id):
    return tenant_context_bind(es.runtime.registry.get_in_any_state(tenant_id))


def properties(index):
    return get_client().indices.get(index=index)[index]["mappings"].get("properties", {})


def migrate(es, *arguments):
    call_command("migrate_all", "--tenant-id", es.a, es.b, *arguments, verbosity=1)


def test_each_tenant_gets_what_is_listed(es, listed, capsys):
    from elasticsearch.dsl import Document, Keyword

    class Note(Document):
        owner = Keyword()

        class Index:
            name = "notes"

    listed(
        Index("books", mappings={"properties": {"title": {"type": "text"}}}, aliases={"shelf": {}}),
        Template("logs", {"index_patterns": ["logs-*"], "template": {"settings": {"number_of_replicas": 0}}}),
        Note,
    )
    migrate(es)
    shown = capsys.readouterr().out
    for tenant_id in (es.a, es.b):
        assert f"{tenant_id}_default (django_orm): ok" in shown
        assert f"{tenant_id}_default (es_orm): ok" in shown
        with bound(es, tenant_id):
            assert sorted(get_client().indices.get(index="*")) == ["books", "notes"]
            assert get_client().indices.exists_alias(name="shelf")
            assert properties("notes") == {"owner": {"type": "keyword"}}
            get_client().index(index="logs-1", document={})
            settings = get_client().indices.get_settings(index="logs-1")["logs-1"]["settings"]["index"]
            assert settings["number_of_replicas"] == "0"
            get_client().indices.delete(index="logs-1")
            get_client().indices.delete_index_template(name="logs")


def test_a_second_run_updates_and_keeps_the_documents(es, listed):
    listed(Index("books", mappings={"properties": {"title": {"type": "text"}}}))
    migrate(es)
    with bound(es, es.a):
        get_client().index(index="books", id="1", document={"title": "x"}, refresh=True)
    more = {"title": {"type": "text"}, "pages": {"type": "integer"}}
    listed(Index("books", mappings={"properties": more}, aliases={"shelf": {}}))
    migrate(es)
    migrate(es)
    with bound(es, es.a):
        assert properties("books") == more
        assert get_client().count(index="shelf")["count"] == 1


def test_a_tenant_that_fails_does_not_stop_the_others(es, listed):
    with bound(es, es.a):
        get_client().indices.create(index="books", mappings={"properties": {"title": {"type": "date"}}})
    listed(Index("books", mappings={"properties": {"title": {"type": "text"}}}))
    with pytest.raises(CommandError, match=f"{es.a}_default"):
        migrate(es)
    with bound(es, es.b):
        assert properties("books") == {"title": {"type": "text"}}


def test_a_plan_changes_nothing(es, listed, capsys):
    listed(Index("books"))
    migrate(es, "--plan")
    assert f"{es.a}_default (es_orm): would put books" in capsys.readouterr().out
    with bound(es, es.a):
        assert dict(get_client().indices.get(index="*")) == {}


def test_a_reserved_alias_gets_its_own_once(es, listed):
    name = es.id("central")
    listed(Index(name, using="central"))
    from tenant_router.orm_backends.base import MigrationRun

    done = []
    es.manager.migrate_to_all(MigrationRun([], report=lambda alias, error, step="": done.append((alias, error))))
    assert done == [("central", None)]
    assert get_client("central").indices.exists(index=name)


def test_a_wrong_path(es_project, capsys):
    tenants = es_project(hosts=["http://127.0.0.1:1"], SCHEMA="no.such.schema")
    tenants.put(tenants.id("a"))
    with pytest.raises(CommandError, match="1 of the migrations failed: es_orm"):
        call_command("migrate_all", "--tenant-id", tenants.id("a"), verbosity=0)
    assert "es_orm: FAILED ConfigurationError: OPTIONS['SCHEMA'] of 'es_orm'" in capsys.readouterr().out


@pytest.fixture
def overtaken(monkeypatch):
    """Between the question whether an index exists and its creation another run creates it, once for each tenant."""
    from elasticsearch._sync.client.indices import IndicesClient

    asked, exists = set(), IndicesClient.exists

    def late(self, *, index, **given):
        whose = (context.current_id(), index)
        if whose in asked:
            return exists(self, index=index, **given)
        asked.add(whose)
        self.create(index=index)
        return False

    monkeypatch.setattr(IndicesClient, "exists", late)
    return asked


def test_two_runs_at_once(es, listed, overtaken):
    from elasticsearch.dsl import Document, Keyword

    class Note(Document):
        owner = Keyword()

        class Index:
            name = "notes"

    title = {"title": {"type": "text"}}
    listed(Index("books", mappings={"properties": title}, aliases={"shelf": {}}), Note)
    migrate(es)
    assert len(overtaken) == 4
    for tenant_id in (es.a, es.b):
        with bound(es, tenant_id):
            assert properties("books") == title
            assert properties("notes") == {"owner": {"type": "keyword"}}
            assert get_client().indices.exists_alias(name="shelf")


CANARY = "canary-c0ffee"


class Filled:
    """What a project may list besides indices: it has what a class of documents has, and writes one."""

    _index = SimpleNamespace(_name="filled", _using="default")

    def __init__(self, document):
        self.document = document

    def init(self, using):
        using.indices.create(index="filled", mappings={"properties": {"n": {"type": "integer"}}})
        using.index(index="filled", id=CANARY, document=self.document)


def test_the_line_of_an_error_holds_nothing_of_a_document(es, listed, capsys):
    for document, told in [
        ({"n": CANARY}, "BadRequestError (400, 'document_parsing_exception') about a document"),
        ({"n": {"x": CANARY}}, "BadRequestError (400, 'document_parsing_exception') about a document"),
        ({"n": object(), "secret": CANARY}, "cannot be written as JSON"),
    ]:
        listed(Filled(document))
        with bound(es, es.a):
            get_client().indices.delete(index="filled", ignore_unavailable=True)
        with pytest.raises(CommandError) as error:
            migrate(es)
        shown = "".join(capsys.readouterr()) + str(error.value)
        assert f"{es.a}_default (es_orm): FAILED NotMigrated: " in shown
        assert told in shown
        assert CANARY not in shown
