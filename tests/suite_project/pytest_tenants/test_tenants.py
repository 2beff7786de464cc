import os

import pytest
from audit.models import Entry
from django.db import connection
from shop.models import Document, Note

from tenant_router.managers import tenant_context_manager
from tenant_router.testing import TenantTestCase

pytestmark = pytest.mark.tenants("marked.test")


@pytest.mark.django_db
@pytest.mark.parametrize("time", [1, 2])
def test_rolled_back(tenants, time):
    with tenants("marked.test"):
        assert Note.objects.count() == int(os.environ.get("SUITE_BROKEN", "0"))
        Note.objects.create(text="x")
    assert Note.objects.count() == 0


@pytest.mark.parametrize("time", [1, 2])
def test_flushed(tenants, transactional_db, django_db_serialized_rollback, time):
    with tenants("marked.test"):
        assert not connection.in_atomic_block
        assert Note.objects.count() == 0
        Note.objects.create(text="x")


@pytest.mark.tenants("another.test")
def test_two_marks(db, tenants):
    for tenant_id in ("marked.test", "another.test"):
        with tenants(tenant_id):
            assert Note.objects.count() == 0


@pytest.mark.django_db(databases=["default", "documents", "central"])
def test_databases(tenants):
    with tenants("marked.test"):
        Document.objects.create(title="x")
        Entry.objects.create(what="x")
    assert (Document.objects.count(), Entry.objects.count()) == (0, 1)


@pytest.mark.django_db
def test_undeclared_template(tenants):
    with tenants("marked.test"), pytest.raises(AssertionError, match="not allowed"):
        Document.objects.count()


@pytest.mark.django_db
def test_undeclared_tenant(tenants):
    with tenants("another.test"), pytest.raises(AssertionError, match=r"does not name tenant 'another\.test'"):
        Note.objects.count()


@pytest.mark.django_db
def test_client(tenants, tenant_client):
    with tenants("marked.test"):
        Note.objects.create(text="x")
    assert tenant_client("marked.test").get("/notes/").json() == {"notes": ["x"]}


def test_no_database(tenants, tenant):
    with tenants("marked.test") as bound:
        assert (bound.id, tenant) == ("marked.test", "test-tenant")
        with pytest.raises(RuntimeError, match="Database access not allowed"):
            Note.objects.count()
    assert tenant_context_manager.contains("class.test")


class TestClass(TenantTestCase):
    tenants = ["class.test"]

    def test_class(self):
        with self.tenant("class.test"):
            assert Note.objects.count() == 0
