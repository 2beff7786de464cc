"""Tests as people write them for Django's runner, and some that do what they can to reach what is real."""

import os
import signal
import unittest

from django.conf import settings
from django.test import SimpleTestCase, TestCase
from mongoengine import NotUniqueError, get_db
from pymodm.connection import _get_db
from pymongo import InsertOne
from pymongo.write_concern import WriteConcern

from tenant_router import runtime
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import RealDatabase, TenantMismatch, TenantNotFound
from tenant_router.orm_backends.es_orm import get_client
from tenant_router.tenant_context import FixedContext
from tenant_router.testing import TenantTestCase
from tests.stores_project import documents
from tests.stores_project.documents import ALL, CENTRAL, found, write


class Begins:
    """Each test finds nothing and leaves something; the indexes of the schema stay."""

    def test_a(self):
        self.assertEqual(found(), set())
        write()
        self.assertEqual(found(), ALL)
        with self.assertRaises(NotUniqueError):
            documents.Page(text="x").save()

    test_b = test_a


class Plain(Begins, unittest.TestCase):
    pass


class InTransactions(Begins, TestCase):
    pass


class Asynchronous(SimpleTestCase):
    async def test_a(self):
        self.assertEqual(found(), set())
        write()

    test_b = test_a


class Destroying(SimpleTestCase):
    def test_a(self):
        """What a test drops is made again."""
        self.assertEqual(found("*"), set())
        write()
        documents.Page.drop_collection()
        documents.CentralPage.drop_collection()
        _get_db().client.drop_database(_get_db().name)
        _get_db("central").drop_collection("notes")
        get_client().indices.delete(index="schema")

    def test_b(self):
        self.assertEqual(found("*"), set())
        self.assertEqual(list(get_client().indices.get(index="*")), ["schema"])


class Adding(SimpleTestCase):
    def test_a(self):
        """What a test makes is dropped."""
        self.assertEqual(list(get_client().indices.get(index="*")), ["schema"])
        self.assertFalse(get_client().indices.exists_index_template(name="made"))
        get_client().index(index="made", document={"text": "x"}, refresh=True)
        get_client().indices.put_index_template(name="made", body={"index_patterns": ["made-*"]})

    test_b = test_a


class Tenants(TenantTestCase):
    def test_apart(self):
        write()
        with self.tenant("b"):
            self.assertEqual(found(), CENTRAL)
            write()
        documents.Page.objects.delete()
        self.assertEqual(found(), ALL - {"Page"})
        with self.tenant("b"):
            self.assertEqual(found(), ALL)

    test_flushed = test_apart


class Real(SimpleTestCase):
    """Nothing reaches what is real: neither by the tenant's own clients nor by what was kept from before the run."""

    def refused(self, call, *args, **kwargs):
        with self.assertRaises((RealDatabase, TenantNotFound, TenantMismatch)):
            call(*args, **kwargs)

    def test_another_database_of_the_server(self):
        for database in (_get_db(), get_db(), _get_db("central"), get_db("central")):
            real = database.client[documents.REAL]
            self.refused(real.notes.delete_many, {})
            self.refused(real.notes.insert_one, {})
            self.refused(real.notes.bulk_write, [InsertOne({})])
            self.refused(real.with_options(write_concern=WriteConcern(0)).notes.insert_one, {})
            self.refused(list, real.notes.find())
            self.refused(database.client.drop_database, documents.REAL)
            self.refused(database.notes.aggregate, [{"$out": {"db": documents.REAL, "coll": "notes"}}])
            self.refused(
                database.client.admin.command, "renameCollection", f"{documents.REAL}.notes", to=f"{database.name}.n"
            )
            self.assertTrue(database.command("ping")["ok"])
            self.assertTrue(database.client.server_info()["ok"])

    def test_what_was_held_or_kept(self):
        for orm_id, collection in documents.kept.items():
            self.refused(collection.delete_many, {})
            self.refused(list, collection.find())
            self.refused(lambda held: held.database.notes.delete_many({}), documents.held[orm_id]["default"])
        client = documents.held["es_orm"]["default"].client
        self.refused(client.index, index="canary", document={})
        self.refused(client.search, index="canary")
        with tenant_context_bind(FixedContext("acme", 1, documents.held)):
            self.refused(documents.Note.objects.delete)
            self.refused(lambda: documents.Page.objects.delete())
            self.refused(get_client().index, index="canary", document={})

    def test_what_a_child_makes_anew(self):
        for orm_id in ("pymodm_orm", "mongoengine_orm"):
            runtime.get().orms[orm_id].reset_after_fork()
        for database in (_get_db(), get_db(), _get_db("central"), get_db("central")):
            self.assertTrue(database.name.startswith("test_"))
            self.refused(list, database.client[documents.REAL].notes.find())

    def test_aliases_of_the_application_alone(self):
        with self.assertRaisesMessage(RealDatabase, "RESERVED_CONN_ALIASES"):
            documents.OwnPage.objects.delete()
        self.refused(documents.OwnNote.objects.delete)

    def test_aliases_that_the_application_connects_too(self):
        self.assertTrue(get_db("central").name.startswith("test_"))
        self.assertTrue(_get_db("central").name.startswith("test_"))

    def test_indices(self):
        for alias in ("default", "central"):
            client = get_client(alias)
            self.assertFalse(client.indices.exists(index=f"{settings.TAG}-canary"))
            self.assertNotIn("canary", str(client.indices.get(index="*")))


class Killed(unittest.TestCase):
    def test_killed(self):
        self.assertEqual(list(documents.Note.objects.all()), [])
        if "STORES_KILL" in os.environ:
            documents.Note(text="left").save()
            os.kill(os.getpid(), signal.SIGKILL)
