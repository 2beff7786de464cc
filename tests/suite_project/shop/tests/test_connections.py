import threading
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

from django.apps import apps
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connection, connections, router
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.test import TestCase, TransactionTestCase, override_settings
from django.test.testcases import DatabaseOperationForbidden
from shop.models import Category, Document, Note


class Overridden(TestCase):
    def test_databases(self):
        with (
            self.assertWarnsMessage(UserWarning, "Overriding setting DATABASES"),
            override_settings(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}),
        ):
            Note.objects.create(text="x")
        self.assertEqual(Note.objects.count(), 1)

    @override_settings(DATABASE_ROUTERS=[])
    def test_no_routers(self):
        self.assertEqual(router.db_for_read(Document), "default")
        Note.objects.create(text="x")

    @override_settings(DATABASE_ROUTERS=["shop.routers.DocumentRouter"])
    def test_one_router(self):
        self.assertEqual(router.db_for_write(Document), "documents")

    @override_settings(INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "shop"])
    def test_apps(self):
        self.assertFalse(apps.is_installed("audit"))
        Note.objects.create(text="x")
        self.assertEqual(Note.objects.count(), 1)

    def test_more_apps(self):
        with self.modify_settings(INSTALLED_APPS={"append": "django.contrib.humanize"}):
            self.assertTrue(apps.is_installed("django.contrib.humanize"))
            Note.objects.create(text="x")

    @override_settings(MIDDLEWARE=[])
    def test_no_middleware(self):
        Note.objects.create(text="x")
        self.assertEqual(self.client.get("/notes/").json(), {"notes": ["x"]})

    @override_settings(DEBUG=True)
    def test_queries_are_logged(self):
        connection.queries_log.clear()
        Note.objects.count()
        self.assertEqual(len(connection.queries), 1)

    def test_atomic_requests(self):
        with mock.patch.dict(connections.settings["default"], {"ATOMIC_REQUESTS": True}):
            self.assertIs(connection.settings_dict["ATOMIC_REQUESTS"], True)
            self.assertEqual(self.client.get("/notes/").status_code, 200)

    @override_settings(TIME_ZONE="Asia/Tokyo")
    def test_time_zone(self):
        self.assertEqual(str(connection.timezone), "UTC")


class Patched(TransactionTestCase):
    serialized_rollback = True
    databases = {"default", "documents"}

    def test_replaced_connection(self):
        original = connections["default"]
        new = connections["default"] = original.copy()
        try:
            Note.objects.count()
            self.assertIs(connections["default"], new)
        finally:
            new.close()
            connections["default"] = original
        self.assertIs(connections["default"], original)

    def test_deleted_connection(self):
        original = connections["documents"]
        del connections["documents"]
        try:
            self.assertIsNot(connections["documents"], original)
            self.assertEqual(Document.objects.count(), 0)
        finally:
            connections["documents"].close()
            connections["documents"] = original

    def test_patched_method(self):
        with (
            mock.patch.object(connection, "cursor", side_effect=ZeroDivisionError),
            self.assertRaises(ZeroDivisionError),
        ):
            Note.objects.count()
        with mock.patch.object(connections["default"], "ensure_connection") as ensure:
            connection.ensure_connection()
        ensure.assert_called_once_with()

    def test_patched_handler(self):
        with mock.patch.dict(connections.databases, {"more": {"ENGINE": "django.db.backends.dummy"}}):
            self.assertIn("more", set(connections))
        self.assertNotIn("more", set(connections))

    def test_closed(self):
        Note.objects.create(text="x")
        connections.close_all()
        self.assertEqual(Note.objects.count(), 1)
        connection.close()
        self.assertEqual(Note.objects.count(), 1)

    def test_same_settings(self):
        self.assertIs(connections.settings["default"], connections["default"].settings_dict)
        self.assertIs(settings.DATABASES["default"], connections["default"].settings_dict)
        self.assertIs(connections["default"], connections[DEFAULT_DB_ALIAS])

    def test_names(self):
        self.assertEqual(list(connections), list(settings.DATABASES))
        self.assertEqual([one.settings_dict for one in connections.all()], list(settings.DATABASES.values()))

    def test_execute_wrapper(self):
        seen = []

        def note(execute, sql, params, many, context):
            seen.append(context["connection"])
            return execute(sql, params, many, context)

        with connection.execute_wrapper(note):
            Note.objects.count()
        Note.objects.count()
        self.assertEqual(seen, [connections["default"]])

    def test_own_thread_may_share(self):
        connection.inc_thread_sharing()
        try:
            with ThreadPoolExecutor(1) as pool:
                own = connections["default"]
                self.assertEqual(pool.submit(lambda: own.cursor().execute("SELECT 1") is not None).result(), True)
        finally:
            connection.dec_thread_sharing()


class Threads(TransactionTestCase):
    """Under STRICT what needs a tenant here fails, as it would in production."""

    serialized_rollback = True

    def test_thread_reads(self):
        Note.objects.create(text="x")
        found = []
        run(lambda: found.append(Note.objects.count()))
        self.assertEqual(found, [1])

    def test_thread_writes(self):
        run(lambda: Note.objects.create(text="from a thread"))
        self.assertEqual(Note.objects.get().text, "from a thread")

    def test_thread_pool(self):
        with ThreadPoolExecutor(2) as pool:
            numbers = list(pool.map(lambda _: counted(), range(4)))
        self.assertEqual(numbers, [0] * 4)

    def test_thread_undeclared(self):
        errors = []

        def touch():
            try:
                Document.objects.count()
            except DatabaseOperationForbidden as error:
                errors.append(error)

        run(touch)
        self.assertEqual(len(errors), 1)

    def test_thread_central(self):
        with self.settings(DATABASE_ROUTERS=[]):
            run(lambda: connections["default"].vendor)


class Migrating(TransactionTestCase):
    serialized_rollback = True

    def test_back_and_forth(self):
        executor = MigrationExecutor(connection)
        executor.migrate([("shop", "0001_initial")])
        self.assertNotIn(("shop", "0002_bakery"), MigrationRecorder(connection).applied_migrations())
        old = executor.loader.project_state([("shop", "0001_initial")]).apps
        old.get_model("shop", "Category").objects.all().delete()
        executor = MigrationExecutor(connection)
        executor.migrate([("shop", "0002_bakery")])
        self.assertTrue(Category.objects.filter(name="bakery").exists())

    def test_plan_is_empty(self):
        executor = MigrationExecutor(connections["default"])
        self.assertEqual(executor.migration_plan(executor.loader.graph.leaf_nodes()), [])

    def test_router_was_asked(self):
        self.assertIn(
            "shop_document",
            {model._meta.db_table for model in router.get_migratable_models(apps.get_app_config("shop"), "documents")},
        )
        self.assertEqual(router.get_migratable_models(apps.get_app_config("audit"), "default"), [])


def counted():
    try:
        return Note.objects.count()
    finally:
        connections.close_all()


def run(function):
    errors = []

    def body():
        try:
            function()
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
