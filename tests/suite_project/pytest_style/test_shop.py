from concurrent.futures import ThreadPoolExecutor
from urllib.request import urlopen

import pytest
from audit.models import Entry
from django.core.cache import cache
from django.db import connection, connections, transaction
from django.test import TestCase
from shop.models import Category, Document, Note, Product


@pytest.fixture
def bread(db):
    return Product.objects.create(name="bread")


def test_no_database_without_the_mark():
    with pytest.raises(RuntimeError, match="Database access not allowed"):
        Note.objects.count()


def test_fixture(bread, django_assert_num_queries):
    with django_assert_num_queries(1):
        assert list(Product.objects.all()) == [bread]


@pytest.mark.django_db
def test_rolled_back():
    assert Product.objects.count() == 0
    assert Category.objects.filter(name="bakery").exists()


@pytest.mark.django_db
def test_on_commit(django_capture_on_commit_callbacks):
    done = []
    with django_capture_on_commit_callbacks(execute=True) as callbacks:
        transaction.on_commit(lambda: done.append(1))
    assert (len(callbacks), done) == (1, [1])


@pytest.mark.django_db(transaction=True, serialized_rollback=True)
def test_transaction():
    Note.objects.create(text="x")
    assert not connection.in_atomic_block


@pytest.mark.django_db(transaction=True, serialized_rollback=True)
def test_thread():
    Note.objects.create(text="x")

    def count():
        try:
            return Note.objects.count()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(count).result() == 1


@pytest.mark.django_db(reset_sequences=True, serialized_rollback=True)
@pytest.mark.parametrize("time", [1, 2])
def test_sequences(time):
    assert Note.objects.create(text="x").pk == 1


@pytest.mark.django_db(databases=["default", "documents", "central"])
def test_databases():
    Document.objects.create(title="x")
    Entry.objects.create(what="x")
    assert (Document.objects.count(), Entry.objects.count()) == (1, 1)


@pytest.mark.django_db
def test_undeclared():
    with pytest.raises(AssertionError, match="to 'documents' are not allowed"):
        Document.objects.count()


def test_client(client, bread):
    assert client.get("/products/", headers={"host": "testserver"}).json() == {"products": ["bread"]}


def test_admin(admin_client, bread):
    assert b"bread" in admin_client.get("/admin/shop/product/").content


def test_live_server(live_server, django_db_serialized_rollback):
    Product.objects.create(name="bread")
    assert urlopen(live_server.url + "/products/").read() == b'{"products": ["bread"]}'


def test_settings(settings, client, db):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    cache.set("key", "value")
    assert cache.get("key") is None


def test_serialized(django_db_serialized_rollback, transactional_db):
    assert Category.objects.filter(name="bakery").exists()


@pytest.mark.django_db
class TestClass:
    def test_method(self, django_user_model):
        django_user_model.objects.create_user("ada")
        assert django_user_model.objects.count() == 1


class TestUnit(TestCase):
    databases = "__all__"

    @classmethod
    def setUpTestData(cls):
        cls.note = Note.objects.create(text="x")

    def test_unit(self):
        assert Note.objects.get() == self.note
