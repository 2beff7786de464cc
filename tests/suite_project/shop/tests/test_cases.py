import pickle
from io import StringIO
from unittest import TestCase as UnitTestCase
from unittest import mock, skipIf

from audit.models import Entry
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.contrib.auth.tokens import default_token_generator
from django.contrib.contenttypes.models import ContentType
from django.contrib.sites import models as sites
from django.contrib.sites.models import Site
from django.core import mail, signing
from django.core.cache import cache, caches
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError, connection, connections, models, transaction
from django.db.models.signals import post_save
from django.test import SimpleTestCase, TestCase, TransactionTestCase, skipIfDBFeature, skipUnlessDBFeature
from django.test.testcases import DatabaseOperationForbidden
from django.test.utils import CaptureQueriesContext, override_settings
from shop.models import Category, Document, Note, Product, Tag


class Plain(UnitTestCase):
    def test_no_database(self):
        self.assertEqual(signing.Signer(key="k").sign("x"), "x:gxmRqhCECTWUaqyj_RuKGVpQsvKQIKzs2hH5ioFNskI")

    def test_created_alias(self):
        memory = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:", "OPTIONS": {}}
        connections.databases["extra"] = {**connections.databases["default"], **memory}
        try:
            with connections["extra"].cursor() as cursor:
                cursor.execute("SELECT 1")
                self.assertEqual(cursor.fetchone(), (1,))
            self.assertIn("extra", list(connections))
        finally:
            connections["extra"].close()
            del connections["extra"]
            del connections.databases["extra"]
        self.assertNotIn("extra", connections)


class Simple(SimpleTestCase):
    def test_queries_are_refused(self):
        with self.assertRaisesMessage(DatabaseOperationForbidden, "Database queries to 'default' are not allowed"):
            Category.objects.count()


class Data(TestCase):
    fixtures = ["shop.json"]

    @classmethod
    def setUpTestData(cls):
        cls.bread = Product.objects.create(name="bread", category=Category.objects.get(name="bakery"))

    def test_class_data(self):
        self.bread.name = "changed"
        self.bread.save()
        self.assertEqual(Product.objects.count(), 2)

    def test_class_data_is_fresh(self):
        self.assertEqual(self.bread.name, "bread")
        self.assertEqual(self.bread.category.name, "bakery")

    def test_fixture(self):
        self.assertEqual(Product.objects.get(pk=72).category.name, "from a fixture")

    def test_atomics(self):
        with self.assertRaises(IntegrityError), transaction.atomic():
            Category.objects.create(name="bakery")
        sid = transaction.savepoint()
        Category.objects.create(name="gone")
        transaction.savepoint_rollback(sid)
        with transaction.atomic(durable=True):
            Category.objects.create(name="kept")
        self.assertEqual(
            set(Category.objects.values_list("name", flat=True)) - {"of the corner shop"},
            {"bakery", "from a fixture", "kept"},
        )

    def test_numbers_of_queries(self):
        with self.assertNumQueries(1):
            list(Product.objects.all())
        with self.assertNumQueries(2):
            list(Product.objects.prefetch_related("tags"))
        with CaptureQueriesContext(connection) as queries:
            Category.objects.count()
        self.assertEqual(len(queries), 1)
        self.assertIn("shop_category", queries[0]["sql"])

    def test_identity(self):
        loaded = Product.objects.using("default").get(pk=self.bread.pk)
        loaded.refresh_from_db()
        self.assertEqual(loaded, self.bread)
        self.assertEqual(pickle.loads(pickle.dumps(Product.objects.filter(pk=loaded.pk)))[0], loaded)
        self.assertEqual(loaded._state.db, self.bread._state.db)
        with self.assertRaises(ValidationError):
            Category(name="bakery").full_clean()

    def test_generic_relation(self):
        Tag.objects.create(word="fresh", content=self.bread)
        self.assertEqual(self.bread.tags.get().content, self.bread)

    def test_content_types(self):
        ContentType.objects.clear_cache()
        with self.assertNumQueries(1):
            ContentType.objects.get_for_model(Product)
            ContentType.objects.get_for_model(Product)
        self.assertTrue(Permission.objects.filter(codename="add_product").exists())

    def test_sites(self):
        Site.objects.clear_cache()
        site = Site.objects.get_current()
        self.assertEqual(sites.SITE_CACHE, {1: site})
        with self.assertNumQueries(0):
            Site.objects.get_current()

    def test_tokens(self):
        user = User.objects.create_user("ada", password="lovelace")
        with mock.patch.object(default_token_generator, "_num_seconds", return_value=0):
            token = default_token_generator.make_token(user)
            self.assertTrue(default_token_generator.check_token(user, token))

    def test_signals_and_mail(self):
        seen = []
        receiver = lambda instance, using, **kwargs: seen.append(instance)  # noqa: E731
        post_save.connect(receiver, sender=Note)
        self.addCleanup(post_save.disconnect, receiver, sender=Note)
        note = Note.objects.create(text="hello")
        mail.send_mail("subject", "text", None, ["ada@example.com"])
        self.assertEqual((seen, len(mail.outbox)), ([note], 1))

    @skipUnlessDBFeature("supports_transactions")
    def test_has_feature(self):
        self.assertTrue(connection.features.supports_transactions)

    @skipIfDBFeature("supports_transactions")
    def test_lacks_feature(self):
        self.fail("never runs")

    def test_on_commit(self):
        done = []
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            transaction.on_commit(lambda: done.append(Product.objects.count()))
        self.assertEqual((len(callbacks), done), (1, [2]))

    def test_subtests(self):
        for name in ("a", "b"):
            with self.subTest(name=name):
                Note.objects.create(text=name)


@skipUnlessDBFeature("supports_transactions")
class SkippableClass(TestCase):
    databases = {"default", "documents"}

    def test_runs(self):
        Document.objects.create(title="x")
        self.assertEqual(Document.objects.count(), 1)


class AllDatabases(TestCase):
    databases = "__all__"

    def test_routers(self):
        Document.objects.create(title="in documents")
        Entry.objects.create(what="in central")
        with self.assertNumQueries(1, using="documents"), self.assertNumQueries(1, using="central"):
            self.assertEqual((Document.objects.count(), Entry.objects.count()), (1, 1))
        self.assertFalse(Document.objects.using("documents").none())

    def test_rolled_back(self):
        self.assertEqual((Document.objects.count(), Entry.objects.count()), (0, 0))

    @skipIf("replica" not in settings.DATABASES, "no mirror here")
    def test_mirror(self):
        names = {str(connections[alias].settings_dict["NAME"]) for alias in ("default", "replica")}
        self.assertEqual(len(names), 1)
        self.assertNotEqual(str(connections["documents"].settings_dict["NAME"]), names.pop())

    def test_tables(self):
        self.assertNotIn("shop_document", connection.introspection.table_names())
        self.assertNotIn("shop_note", connections["documents"].introspection.table_names())
        self.assertNotIn("audit_entry", connection.introspection.table_names())


class SomeDatabases(TestCase):
    databases = ["default", "central"]

    def test_declared(self):
        Entry.objects.create(what="x")
        self.assertEqual(Entry.objects.count(), 1)

    def test_undeclared(self):
        with self.assertRaisesMessage(DatabaseOperationForbidden, "to 'documents' are not allowed"):
            Document.objects.count()


class Transactions(TransactionTestCase):
    serialized_rollback = True

    def test_flushed_a(self):
        Note.objects.create(text="a")
        self.assertEqual(Note.objects.count(), 1)

    def test_flushed_b(self):
        Note.objects.create(text="b")
        self.assertEqual(Note.objects.count(), 1)

    def test_on_commit_runs(self):
        done = []
        with transaction.atomic():
            transaction.on_commit(lambda: done.append(connection.in_atomic_block))
            self.assertEqual(done, [])
        self.assertEqual(done, [False])

    def test_rollback(self):
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            Note.objects.create(text="gone")
            1 / 0  # noqa: B018
        self.assertEqual(Note.objects.count(), 0)

    @skipUnlessDBFeature("has_select_for_update")
    def test_locks(self):
        Note.objects.create(text="x")
        with transaction.atomic():
            self.assertEqual(Note.objects.select_for_update().get().text, "x")


class Serialized(TransactionTestCase):
    serialized_rollback = True
    databases = {"default", "documents"}

    def test_migrated_data_a(self):
        Category.objects.filter(name="bakery").delete()

    def test_migrated_data_b(self):
        self.assertTrue(Category.objects.filter(name="bakery").exists())


class Available(TransactionTestCase):
    available_apps = ["shop", "django.contrib.contenttypes", "django.contrib.auth"]

    def test_works(self):
        Note.objects.create(text="x")
        self.assertEqual(Note.objects.count(), 1)


class Sequences(TransactionTestCase):
    reset_sequences = True
    serialized_rollback = True

    def test_first_a(self):
        self.assertEqual(Note.objects.create(text="x").pk, 1)

    def test_first_b(self):
        self.assertEqual(Note.objects.create(text="x").pk, 1)


class Caches(TestCase):
    def setUp(self):
        for one in caches.all():
            one.clear()

    def test_memory(self):
        cache.set("key", "value")
        self.assertEqual((cache.get("key"), caches["default"].get_many(["key"])), ("value", {"key": "value"}))
        self.assertEqual(cache.make_key("key"), ":1:key")

    def test_table(self):
        with self.assertNumQueries(0):
            cache.set("key", 1)
        caches["table"].set("key", "row")
        self.assertEqual(caches["table"].get("key"), "row")

    def test_files(self):
        caches["files"].set("key", [1])
        self.assertEqual(caches["files"].get("key"), [1])

    @override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}})
    def test_overridden(self):
        cache.set("key", "value")
        self.assertIsNone(cache.get("key"))


class Commands(TestCase):
    databases = "__all__"

    def test_check(self):
        call_command("check", stdout=(out := StringIO()), stderr=StringIO())
        self.assertIn("no issues", out.getvalue())

    def test_no_migration_is_missing(self):
        call_command("makemigrations", check=True, dry_run=True, stdout=(out := StringIO()))
        self.assertIn("No changes", out.getvalue())

    def test_data_goes_out_and_in(self):
        Note.objects.create(text="dumped")
        call_command("dumpdata", "shop.note", stdout=(out := StringIO()))
        self.assertIn("dumped", out.getvalue())

    def test_inspectdb(self):
        call_command("inspectdb", "shop_note", stdout=(out := StringIO()))
        self.assertIn("class ShopNote", out.getvalue())

    def test_settings_of_a_connection(self):
        self.assertEqual(settings.DATABASES[connection.alias]["NAME"], connection.settings_dict["NAME"])

    def test_unknown_option(self):
        with self.assertRaisesMessage(TypeError, "Unknown option(s) for check command: nonsense."):
            call_command("check", nonsense=1)


class LiteralAlias(TestCase):
    def test_default(self):
        self.assertEqual(connection.alias, "default")
        self.assertEqual(Note.objects.create(text="x")._state.db, "default")


class OwnModel(TransactionTestCase):
    available_apps = ["shop"]

    def test_schema_editor(self):
        class Basket(models.Model):
            class Meta:
                app_label = "shop"

        with connection.schema_editor() as editor:
            editor.create_model(Basket)
        try:
            self.assertEqual(Basket.objects.count(), 0)
        finally:
            with connection.schema_editor() as editor:
                editor.delete_model(Basket)
            from django.apps import apps

            del apps.all_models["shop"]["basket"]
