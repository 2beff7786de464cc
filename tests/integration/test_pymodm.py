"""PyModm under tenants: what leads to a database leads to the bound tenant's."""

import io
import threading

import pytest

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantContextMissing
from tests.fixtures_mongo import QUIET

pytestmark = [pytest.mark.filterwarnings(rule) for rule in QUIET]


@pytest.fixture
def project(mongo_project):
    made = mongo_project("pymodm_orm")
    made.put("a.test", "a")
    made.put("b.test", "b")
    return made


@pytest.fixture
def models(project):
    return project.models.module


@pytest.fixture
def with_central(mongo_project):
    """A project with a reserved alias."""
    made = mongo_project("pymodm_orm", central=True)
    made.two()
    return made


def test_managers_and_query_sets(project, models):
    with tenant_context_bind("a.test"):
        models.Note.objects.bulk_create([models.Note(text="x", number=n) for n in range(3)])
        everything = models.Note.objects.order_by([("number", -1)])
        assert [note.number for note in everything] == [2, 1, 0]
        assert models.Note.objects.raw({"number": 1}).update({"$set": {"text": "y"}}) == 1
    with tenant_context_bind("b.test"):
        assert list(everything) == []
        assert models.Note.objects.count() == 0
        assert models.Note.objects.all().delete() == 0
    with tenant_context_bind("a.test"):
        assert models.Note.objects.raw({"text": "y"}).count() == 1


def test_aggregation(project, models):
    with tenant_context_bind("a.test"):
        models.Note.objects.bulk_create([models.Note(text="x", number=n) for n in range(4)])
        total = models.Note.objects.aggregate({"$group": {"_id": None, "sum": {"$sum": "$number"}}})
        assert [found["sum"] for found in total] == [6]
    with tenant_context_bind("b.test"):
        assert list(models.Note.objects.aggregate({"$match": {}})) == []


def test_references_are_followed_within_the_tenant(project, models):
    from pymodm.dereference import dereference

    with tenant_context_bind("a.test"):
        author = models.Author(name="of a").save()
        remark = models.Remark(text="r", by=author)
        note = models.Note(text="n", author=author, remarks=[remark]).save()
    with tenant_context_bind("b.test"):
        models.Author(_id=author.pk, name="of b").save()
        models.Note(_id=note.pk, text="n", author=author.pk).save()
        assert models.Note.objects.first().author.name == "of b"
        assert models.Note.objects.select_related("author").first().author.name == "of b"
    with tenant_context_bind("a.test"):
        found = dereference(models.Note.objects.first())
        assert (found.author.name, found.remarks[0].by.name) == ("of a", "of a")
        found.refresh_from_db()
        author.delete()
        assert models.Note.objects.count() == 0  # the delete rule cascades
    with tenant_context_bind("b.test"):
        assert models.Note.objects.count() == 1


def test_files(project, models):
    from pymodm.files import File

    for tenant in ("a.test", "b.test"):
        with tenant_context_bind(tenant):
            models.Paper(upload=File(io.BytesIO(tenant.encode()), name="same")).save()
    for tenant in ("a.test", "b.test"):
        with tenant_context_bind(tenant):
            assert models.Paper.objects.first().upload.read() == tenant.encode()
            assert models.Paper._mongometa.get_field("upload").storage.exists("none") is False
            assert models.Paper._mongometa.collection.database["fs.files"].count_documents({}) == 1
    with tenant_context_bind("a.test"):
        paper = models.Paper.objects.first()
        paper.upload.delete()
    with tenant_context_bind("b.test"):
        assert models.Paper.objects.first().upload.read() == b"b.test"


def test_indexes_are_created_in_each_database_at_first_use(project, models):
    for tenant in ("a.test", "b.test"):
        with tenant_context_bind(tenant):
            assert "by_text" in models.Note._mongometa.collection.index_information()


def test_a_switched_connection_is_seen_by_its_own_unit_of_work_only(with_central):
    from pymodm.context_managers import switch_connection

    models, seen = with_central.models.module, []

    def other():
        with tenant_context_bind("b.test"):
            seen.extend(note.text for note in models.Note.objects.all())

    with tenant_context_bind("a.test"):
        with switch_connection(models.Note, "central"):
            models.Note(text="central").save()
            with switch_connection(models.Note, "default"):
                assert [note.text for note in models.Note.objects.all()] == ["a.test"]
            assert [note.text for note in models.Note.objects.all()] == ["central"]
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        assert [note.text for note in models.Note.objects.all()] == ["a.test"]
    assert seen == ["b.test"]
    assert models.Note._mongometa.connection_alias == "default"


def test_a_reserved_alias_leads_where_the_settings_say_without_a_tenant_too(with_central):
    models = with_central.models.module
    models.Central(text="one").save()
    with tenant_context_bind("a.test"):
        assert models.Central.objects.first().text == "one"


def test_switching_off_dereferencing_is_for_its_own_unit_of_work_only(project, models):
    from pymodm.context_managers import no_auto_dereference

    seen = []
    with no_auto_dereference(models.Note):
        thread = threading.Thread(target=lambda: seen.append(models.Note._mongometa.auto_dereference))
        thread.start()
        thread.join()
        assert models.Note._mongometa.auto_dereference is False
    assert seen == [True]
    assert models.Note._mongometa.auto_dereference is True


def test_without_a_tenant_every_use_is_refused(project, models):
    from pymodm.connection import _get_connection, _get_db

    note = models.Note(text="nobody's")
    uses = [
        note.save,
        lambda: list(models.Note.objects.all()),
        models.Note.objects.count,
        lambda: models.Note.objects.aggregate({"$match": {}}),
        lambda: models.Paper(upload=1).upload,
        _get_db,
        lambda: _get_connection().database,
    ]
    for use in uses:
        with pytest.raises(TenantContextMissing, match="connection alias 'default' of 'pymodm_orm'"):
            use()


def test_an_unknown_alias_is_pymodms_own_error(project):
    from pymodm.connection import _get_db

    with pytest.raises(ValueError, match="No such alias 'nobody'"):
        _get_db("nobody")


def test_the_applications_own_connect_changes_nothing_for_tenants(project, models, mongo_url):
    from pymodm import connect
    from pymodm.connection import _CONNECTIONS

    connect(f"{mongo_url}/template_must_not_be_opened")
    assert not _CONNECTIONS.hidden["default"].database.client._topology._opened
    with tenant_context_bind("a.test"):
        models.Note(text="x").save()
        assert models.Note._mongometa.collection.database.name == project.name("a")


def test_uninstalling_gives_pymodm_back_as_it_was(project, models, mongo_url):
    from pymodm import connection
    from pymodm.base.options import MongoOptions
    from pymodm.context_managers import switch_connection
    from pymodm.fields import FileField

    patched = {"connection_alias", "_auto_dereference", "_indexes_created"}
    assert patched <= vars(MongoOptions).keys()
    project.runtime.uninstall()
    assert type(connection._CONNECTIONS) is dict
    assert not patched & vars(MongoOptions).keys()
    assert "storage" not in vars(FileField)
    assert switch_connection.__enter__.__module__ == "pymodm.context_managers"
    assert models.Note._mongometa.connection_alias == "default"
    assert models.Note._mongometa.auto_dereference is True
    connection._CONNECTIONS.pop("default", None)
