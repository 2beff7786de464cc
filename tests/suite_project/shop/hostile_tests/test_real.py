"""Tests that do what they can to reach the real tenant "acme.test", and the databases of the templates."""

from concurrent.futures import ThreadPoolExecutor
from io import StringIO

from audit import bootstrap
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.test import TestCase, TransactionTestCase
from django.test.utils import override_settings
from shop.models import Note

from tenant_router import runtime
from tenant_router.context_decorators import carry_tenant, tenant_context_bind
from tenant_router.exceptions import RealDatabase, StoreUnavailable, TenantNotFound
from tenant_router.lifecycle import Writer
from tenant_router.managers import tenant_context_manager


class Real(TransactionTestCase):
    databases = "__all__"

    def test_by_id(self):
        with self.assertRaises(TenantNotFound), tenant_context_bind("acme.test"):
            pass

    def test_by_alias(self):
        with self.assertRaisesMessage(Exception, "The connection 'acme.test_default' doesn't exist"):
            Note.objects.using("acme.test_default").count()

    @override_settings(ALLOWED_HOSTS=["*"])
    def test_by_host(self):
        Note.objects.create(text="of the test tenant")
        answer = self.client.get("/notes/", headers={"host": "acme.test"})
        self.assertEqual(answer.json(), {"notes": ["of the test tenant"]})

    def test_by_a_context_that_was_held(self):
        self.assertEqual(bootstrap.held.id, "acme.test")
        with self.assertRaises(TenantNotFound), tenant_context_bind(bootstrap.held):
            Note.objects.count()

    def test_by_the_store(self):
        with self.assertRaises(StoreUnavailable):
            Writer(runtime.get()).index()
        self.assertNotIn("acme.test", tenant_context_manager.get_tenant_ids())

    def test_by_a_command(self):
        with self.assertRaisesMessage((StoreUnavailable, CommandError), "a test run has no config store"):
            call_command("tenant", "list", stdout=StringIO(), stderr=StringIO())

    def test_nobody_follows_the_store(self):
        thread = runtime.get().reflector._thread
        self.assertFalse(thread is not None and thread.is_alive())

    def test_by_the_real_name(self):
        test_name = connection.settings_dict["NAME"]
        connection.settings_dict["NAME"] = bootstrap.names["default"]
        try:
            with ThreadPoolExecutor(1) as pool:  # where a new connection is made
                error = pool.submit(carry_tenant(Note.objects.count)).exception()
        finally:
            connection.settings_dict["NAME"] = test_name
        self.assertIsInstance(error, RealDatabase)


class OnlyOne(TestCase):
    def test_default(self):
        self.assertNotEqual(str(connections["default"].settings_dict["NAME"]), str(bootstrap.names["default"]))
