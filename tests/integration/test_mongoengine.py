"""MongoEngine under tenants: what leads to a database leads to the bound tenant's."""

import copy
import importlib.util
import pickle
import threading

import pytest

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import RealDatabase, TenantContextMissing
from tenant_router.testing.mode import TestMode
from tests.fixtures_mongo import QUIET
from tests.services import require

pytestmark = [pytest.mark.filterwarnings(rule) for rule in QUIET]


@pytest.fixture
def project(mongo_project):
    made = mongo_project("mongoengine_orm")
    made.put("a.test", "a")
    made.put("b.test", "b")
    return made


@pytest.fixture
def models(project):
    return project.models.module


@pytest.fixture
def with_central(mongo_project):
    """A project with a reserved alias."""
    made = mongo_project("mongoengine_orm", central=True)
    made.two()
    return made


def in_thread(function):
    """What ``function`` returns in a thread of its own."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(function()))
    thread.start()
    thread.join()
    return answers[0]


def texts_of(models, tenant_id):
    with tenant_context_bind(tenant_id):
        return sorted(note.text for note in models.Note.objects)


def fill(models):
    for tenant in ("a.test", "b.test"):
        with tenant_context_bind(tenant):
            models.Note(text=tenant).save()


def test_query_sets(project, models):
    with tenant_context_bind("a.test"):
        models.Note.objects.insert([models.Note(text="x", number=n) for n in range(3)])
        assert [note.number for note in models.Note.objects.order_by("-number")] == [2, 1, 0]
        assert models.Note.objects(number=1).update(set__text="y") == 1
        assert models.Note.objects(text="y").modify(inc__number=5, new=True).number == 6
        assert models.Note.objects.sum("number") == 8
        assert len(models.Note.objects.in_bulk([note.id for note in models.Note.objects])) == 3
    with tenant_context_bind("b.test"):
        assert models.Note.objects.count() == 0
        assert models.Note.objects.delete() == 0
        assert list(models.Note.objects.aggregate([{"$match": {}}])) == []


def test_a_query_set_belongs_to_who_is_bound_when_it_is_evaluated(project, models):
    at_import = models.Note.objects.order_by("number")  # as views keep it in a class attribute
    fill(models)
    with tenant_context_bind("a.test"):
        made_for_a = models.Note.objects(number=0)
        read_as_a = models.Note.objects.order_by("number")
        assert [note.text for note in read_as_a] == ["a.test"]
        assert [note.text for note in at_import.all()] == ["a.test"]
        assert at_import.count() == 1
        assert made_for_a.count() == 1
    with tenant_context_bind("b.test"):
        models.Note(text="another").save()
        assert at_import.count() == 2
        assert made_for_a.count() == 2
        assert [note.text for note in made_for_a.limit(5)] == ["b.test", "another"]
        assert [note.text for note in read_as_a.limit(5)] == ["b.test", "another"]
        assert [note.text for note in pickle.loads(pickle.dumps(made_for_a))] == ["b.test", "another"]
    for queryset in (at_import, made_for_a, copy.deepcopy(at_import)):
        with pytest.raises(TenantContextMissing):
            queryset.count()


def test_collections_are_cached_for_each_tenant_by_itself(project, models):
    fill(models)
    with tenant_context_bind("a.test"):
        of_a = models.Note._get_collection()
        assert models.Note._collection is of_a
        assert models.Note._get_collection() is of_a
        with tenant_context_bind("b.test"):
            assert models.Note._collection is models.Note._get_collection()
            assert models.Note._collection is not of_a
            assert models.Note._collection.database.name == project.name("b")
        assert models.Note._collection is of_a
        models.Note.drop_collection()
    assert (texts_of(models, "a.test"), texts_of(models, "b.test")) == ([], ["b.test"])
    assert models.Note._collection is None
    assert "_collection" not in vars(models.Remark)


def test_references_are_followed_within_the_tenant(project, models):
    with tenant_context_bind("a.test"):
        author = models.Author(name="of a").save()
        remark = models.Remark(text="r", by=author)
        note = models.Note(
            author=author, readers=[author], anything=author, lazy=author, remarks=[remark], text="n"
        ).save()
    with tenant_context_bind("b.test"):
        models.Author(id=author.id, name="of b").save()
        models.Note._get_collection().insert_one(note.to_mongo())
        found = models.Note.objects.first()
        names = (found.author, found.readers[0], found.anything, found.lazy.fetch(), found.remarks[0].by)
        assert {author.name for author in names} == {"of b"}
        assert models.Note.objects.select_related()[0].author.name == "of b"
        models.Author.objects.delete()
        assert models.Note.objects.count() == 0  # the delete rule cascades
    with tenant_context_bind("a.test"):
        assert models.Note.objects.first().reload().author.name == "of a"


def test_files(project, models):
    from mongoengine.fields import GridFSProxy

    for tenant in ("a.test", "b.test"):
        with tenant_context_bind(tenant):
            paper = models.Paper()
            paper.upload.put(tenant.encode(), filename="same")
            paper.save()
    for tenant in ("a.test", "b.test"):
        with tenant_context_bind(tenant):
            paper = models.Paper.objects.first()
            assert paper.upload.read() == tenant.encode()
    with tenant_context_bind("a.test"):
        proxy = GridFSProxy()
        proxy.put(b"of a")
    with tenant_context_bind("b.test"):
        assert proxy.get() is None
    with tenant_context_bind("a.test"):
        assert proxy.read() == b"of a"
    with pytest.raises(TenantContextMissing):
        GridFSProxy(paper.upload.grid_id).read()


def test_sequences_count_for_each_tenant(project, models):
    for tenant in ("a.test", "b.test"):
        with tenant_context_bind(tenant):
            assert [models.Numbered().save().number for _ in range(2)] == [1, 2]


def test_signals_are_sent_while_the_tenant_is_bound(project, models):
    require(importlib.util.find_spec("blinker"), "blinker is not installed")
    from mongoengine import signals

    seen = []

    def receiver(sender, document, **kwargs):
        seen.append(sender.objects(id=document.id).first().text)

    signals.post_save.connect(receiver, sender=models.Note)
    try:
        fill(models)
    finally:
        signals.post_save.disconnect(receiver, sender=models.Note)
    assert seen == ["a.test", "b.test"]


def test_indexes_are_created_in_each_database_at_first_use(project, models):
    for tenant in ("a.test", "b.test"):
        with tenant_context_bind(tenant):
            assert "by_text" in models.Note._get_collection().index_information()


def test_a_switched_database_is_seen_by_its_own_unit_of_work_only(with_central):
    from mongoengine.context_managers import switch_db

    models = with_central.models.module
    with tenant_context_bind("a.test"):
        with switch_db(models.Note, "central") as switched:
            switched(text="central").save()
            assert [note.text for note in switched.objects] == ["central"]
            assert in_thread(lambda: texts_of(models, "b.test")) == ["b.test"]
            with switch_db(models.Note, "default"):
                assert [note.text for note in models.Note.objects] == ["a.test"]
            assert [note.text for note in models.Note.objects] == ["central"]
        assert [note.text for note in models.Note.objects] == ["a.test"]
        assert [note.text for note in models.Note.objects.using("central")] == ["central"]
        models.Note(text="also").switch_db("central").save()
        assert models.Note.objects.using("central").count() == 2
    assert models.Note._meta.get("db_alias", "default") == "default"


def test_a_switched_collection_is_seen_by_its_own_unit_of_work_only(project, models):
    from mongoengine.context_managers import switch_collection

    fill(models)
    with tenant_context_bind("a.test"):
        with switch_collection(models.Note, "archive") as switched:
            switched(text="old").save()
            assert in_thread(lambda: texts_of(models, "b.test")) == ["b.test"]
            with tenant_context_bind("b.test"):
                assert list(switched.objects) == []
            assert [note.text for note in switched.objects] == ["old"]
        assert [note.text for note in models.Note.objects] == ["a.test"]
    assert texts_of(models, "b.test") == ["b.test"]


def test_a_switched_document_stays_with_the_alias_not_with_the_tenant(project, models):
    with tenant_context_bind("a.test"):
        document = models.Note(text="x").switch_collection("archive").save()
    with tenant_context_bind("b.test"):
        document.text = "y"
        document.save(force_insert=True)
        assert models.Note._get_db()["archive"].count_documents({"text": "y"}) == 1
    with tenant_context_bind("a.test"):
        assert [found["text"] for found in models.Note._get_db()["archive"].find()] == ["x"]


def test_a_reserved_alias_leads_where_the_settings_say_without_a_tenant_too(with_central):
    models = with_central.models.module
    models.Central(text="one").save()
    with tenant_context_bind("a.test"):
        assert models.Central.objects.first().text == "one"
    models.Central.drop_collection()


def test_what_was_kept_of_a_reserved_alias_is_refused_during_a_test_run_alone(with_central):
    kept = with_central.models.module.Central._get_collection()
    kept.insert_one({"text": "real"})
    try:
        mode = TestMode()
        mode.begin()
        try:
            with pytest.raises(RealDatabase):
                kept.find_one()
            with pytest.raises(RealDatabase):
                kept.insert_one({"text": "lost"})
        finally:
            mode.end()
        assert [found["text"] for found in kept.find()] == ["real"]
    finally:
        kept.drop()
        kept.database.client.close()


def test_a_reserved_alias_that_the_application_connects_is_the_applications(with_central, mongo_url):
    from mongoengine import connect, disconnect, get_db

    try:
        client = connect("elsewhere", alias="central", host=mongo_url, uuidRepresentation="standard")
        assert get_db("central").name == "elsewhere"
        assert get_db("central").client is client
    finally:
        disconnect("central")
    assert get_db("central").name == with_central.name("central")


def test_without_a_tenant_every_use_is_refused(project, models):
    from mongoengine import get_connection, get_db

    uses = [
        models.Note(text="x").save,
        models.Note.objects.first,
        models.Note.objects.count,
        lambda: list(models.Note.objects),
        lambda: models.Note.objects.aggregate([{"$match": {}}]),
        models.Note.drop_collection,
        models.Note.ensure_indexes,
        lambda: models.Note._get_collection().find_one(),
        lambda: models.Paper().upload.put(b"x"),
        lambda: models.Numbered().save(),
        get_db,
        lambda: get_connection().server_info(),
        lambda: get_connection()["x"],
    ]
    for use in uses:
        with pytest.raises(TenantContextMissing, match="connection alias 'default' of 'mongoengine_orm'"):
            use()


def test_the_applications_own_connect_changes_nothing_for_tenants(project, models, mongo_url):
    from mongoengine import connect, connection, disconnect, get_connection, get_db

    client = connect("template_must_not_be_opened", host=mongo_url)
    assert connect("something_else") is not None
    fill(models)
    with tenant_context_bind("a.test"):
        assert get_db().name == project.name("a")
        assert get_db(reconnect=True).name == project.name("a")
        assert client.server_info()["ok"] == 1
        assert connect("whatever") is get_connection()
        disconnect()
        assert texts_of(models, "b.test") == ["b.test"]
        assert models.Note.objects.first().text == "a.test"
    assert dict.__len__(connection._connections) == 0


def test_an_unknown_alias_is_mongoengines_own_error(project):
    from mongoengine import ConnectionFailure, get_db

    with pytest.raises(ConnectionFailure, match="has not been defined"):
        get_db("nobody")


def test_uninstalling_gives_mongoengine_back_as_it_was(project, models):
    from mongoengine import Document, connection
    from mongoengine.base.metaclasses import DocumentMetaclass
    from mongoengine.context_managers import switch_db
    from mongoengine.fields import GridFSProxy
    from mongoengine.queryset.base import BaseQuerySet

    fill(models)
    project.runtime.uninstall()
    for name in ("_dbs", "_connections", "_connection_settings"):
        assert type(getattr(connection, name)) is dict
    assert "_collection" not in vars(DocumentMetaclass)
    assert not vars(BaseQuerySet).keys() & {"_collection_obj", "_cursor_obj"}
    assert models.Note._collection is None
    for patched in (Document._get_db, Document._get_collection, Document.switch_db, switch_db.__enter__):
        assert patched.__module__.startswith("mongoengine")
    assert GridFSProxy.get.__module__ == "mongoengine.fields"

    class Fresh(Document):
        pass

    assert Fresh()._collection is None
