"""What people write who test several tenants; "b.test" is one of OTHER_TENANT_IDS, "named.test" is not."""

import threading
from concurrent.futures import ThreadPoolExecutor

from audit.models import Entry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.cache import cache
from django.db import connection, connections, transaction
from django.test import Client, TestCase
from django.test.testcases import DatabaseOperationForbidden
from shop.models import Category, Document, Note

from tenant_router.context_decorators import carry_tenant, tenant_context_bind
from tenant_router.exceptions import StoreUnavailable, TenantNotFound
from tenant_router.managers import tenant_context_manager
from tenant_router.managers.task_local import tls_tenant_manager
from tenant_router.testing import TenantTestCase, TenantTransactionTestCase


class Named(TenantTestCase):
    tenants = ["named.test", "b.test"]
    databases = ["default", "documents"]

    @classmethod
    def setUpTestData(cls):
        Note.objects.create(text="of the test tenant")
        with cls.tenant("b.test"):
            cls.note = Note.objects.create(text="of b")

    def test_apart(self):
        with self.tenant("b.test"):
            self.assertEqual([note.text for note in Note.objects.all()], ["of b"])
            Note.objects.create(text="more of b")
        with self.tenant("named.test"):
            self.assertEqual(Note.objects.count(), 0)
            Document.objects.create(title="x")
        self.assertEqual(Note.objects.count(), 1)
        self.assertEqual(Document.objects.count(), 0)

    def test_rolled_back(self):
        with self.tenant("b.test"):
            self.assertEqual(Note.objects.get(), self.note)
        with self.tenant("named.test"):
            self.assertEqual((Note.objects.count(), Document.objects.count()), (0, 0))

    def test_migrated(self):
        for tenant_id in self.tenants:
            with self.tenant(tenant_id):
                self.assertTrue(Category.objects.filter(name="bakery").exists())
                self.assertEqual(ContentType.objects.get_for_model(Note).model_class(), Note)

    def test_names(self):
        with self.tenant("b.test") as bound:
            self.assertEqual((bound.id, connection.alias), ("b.test", "b.test_default"))
            self.assertEqual(Note.objects.get()._state.db, "b.test_default")
            self.assertEqual(Note.objects.using("default").count(), 1)
            if "replica" in connections:
                self.assertEqual(connections["replica"].settings_dict["NAME"], connection.settings_dict["NAME"])

    def test_caches(self):
        cache.set("key", "of the test tenant")
        with self.tenant("b.test"):
            self.assertIsNone(cache.get("key"))
            cache.clear()
        self.assertEqual(cache.get("key"), "of the test tenant")

    def test_clients(self):
        client = self.tenant_client("b.test")
        self.assertEqual(client.get("/notes/").json(), {"notes": ["of b"]})
        self.assertEqual(self.client.get("/notes/").json(), {"notes": ["of the test tenant"]})
        self.assertEqual(Client().get("/notes/", headers={"host": "b.test"}).status_code, 400)
        with self.settings(ALLOWED_HOSTS=["*"]):
            self.assertEqual(Client().get("/notes/", headers={"host": "b.test"}).json(), {"notes": ["of b"]})

    def test_sessions(self):
        with self.tenant("b.test"):
            user = User.objects.create_user("ada", password="lovelace")
        client = self.tenant_client("b.test")
        self.assertTrue(client.login(username="ada", password="lovelace"))
        self.assertEqual(client.get("/count/").content, b"1 True")
        self.assertEqual(client.session["count"], 1)
        client.logout()
        client.force_login(user)
        self.assertEqual(client.get("/count/").content, b"1 True")
        self.assertFalse(self.client.login(username="ada", password="lovelace"))

    async def test_async_client(self):
        client = self.tenant_async_client("b.test")
        self.assertEqual((await client.get("/notes/")).json(), {"notes": ["of b"]})
        async with tenant_context_bind("b.test"):
            self.assertEqual(await Note.objects.acount(), 1)

    def test_on_commit(self):
        done = []
        with self.tenant("b.test"), self.captureOnCommitCallbacks(execute=True):
            transaction.on_commit(lambda: done.append(tls_tenant_manager.current_tenant_context.id))
        self.assertEqual(done, ["b.test"])

    def test_numbers_of_queries(self):
        with self.tenant("b.test"), self.assertNumQueries(1):
            Note.objects.count()


class Transactions(TenantTransactionTestCase):
    serialized_rollback = True

    def test_flushed_a(self):
        self._write()

    def test_flushed_b(self):
        self._write()

    def _write(self):
        with self.tenant("b.test"):
            self.assertEqual(Note.objects.count(), 0)
            self.assertTrue(Category.objects.filter(name="bakery").exists())
            Note.objects.create(text="x")
            with ThreadPoolExecutor(1) as pool:
                self.assertEqual(pool.submit(carry_tenant(counted)).result(), 1)

    def test_thread_by_itself(self):
        found = []

        @tenant_context_bind("b.test")
        def work():
            found.append(counted())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        self.assertEqual(found, [0])


class Sequences(TenantTransactionTestCase):
    reset_sequences = True
    serialized_rollback = True

    def test_first_a(self):
        with self.tenant("b.test"):
            self.assertEqual(Note.objects.create(text="x").pk, 1)

    test_first_b = test_first_a


class Undeclared(TestCase):
    def test_no_tenant(self):
        with self.assertRaisesMessage(DatabaseOperationForbidden, "does not name tenant 'b.test'"):
            with tenant_context_bind("b.test"):
                Note.objects.count()

    def test_no_tenant_in_thread(self):
        with ThreadPoolExecutor(1) as pool:
            error = pool.submit(tenant_context_bind("b.test")(Note.objects.count)).exception()
        self.assertIsInstance(error, DatabaseOperationForbidden)


class UndeclaredTemplate(TenantTestCase):
    tenants = ["b.test"]

    def test_no_documents(self):
        with self.tenant("b.test"), self.assertRaises(DatabaseOperationForbidden):
            Document.objects.count()

    def test_no_central(self):
        with self.tenant("b.test"), self.assertRaises(DatabaseOperationForbidden):
            Entry.objects.count()


class Real(TenantTestCase):
    def test_nobody_else(self):
        self.assertEqual(
            set(tenant_context_manager.get_tenant_ids()), {"test-tenant", "b.test", "c.test", "named.test"}
        )
        with self.assertRaises(TenantNotFound):
            tenant_context_manager.get_by_id("acme.example.com")

    def test_current(self):
        self.assertEqual(tls_tenant_manager.current_tenant_context.id, "test-tenant")

    def test_store(self):
        with self.assertRaises(StoreUnavailable):
            tenant_context_manager.owner.store.head()


def counted():
    try:
        return Note.objects.count()
    finally:
        connections.close_all()
