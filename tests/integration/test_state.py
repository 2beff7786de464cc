"""Django's process-wide state: two tenants with equal primary keys and different rows never meet in it."""

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from channels.db import database_sync_to_async
from django.contrib.contenttypes.models import ContentType
from django.contrib.sites.models import Site
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.db.backends.base.base import RAN_DB_VERSION_CHECK
from django.test import RequestFactory, override_settings
from django.test.utils import CaptureQueriesContext

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantMismatch
from tests.app.models import Book, Note
from tests.isolation_models import Place, Restaurant, Tag


@pytest.fixture(params=["a", "b", "a again"])
def letter(request):
    return request.param[0]


def _each():
    for letter in "abab":
        with tenant_context_bind(f"{letter}.test"):
            yield letter


def _text():
    return Note.objects.get(id=1).text


# --- models ---


def test_content_types(pair):
    keys = {letter: ContentType.objects.get_for_model(Note).pk for letter in _each()}
    assert keys["a"] != keys["b"]
    for letter in _each():
        assert ContentType.objects.get_for_id(keys[letter]).model == "note"
        assert Tag.objects.get(id=2).content_object.text == f"of {letter}"


def test_content_types_are_found_under_each_name_of_their_database(pair):
    for letter in _each():
        ContentType.objects.clear_cache()
        ContentType.objects.db_manager("default").get_for_model(Note)
        with CaptureQueriesContext(connection) as asked:
            ContentType.objects.db_manager(f"{letter}.test_default").get_for_model(Note)
        assert not asked.captured_queries


def test_generic_relations_and_inheritance(pair):
    for letter in _each():
        assert Place.objects.get(id=1).tags.get().name == f"of {letter}"
        assert Restaurant.objects.get(id=1).name == f"of {letter}"
        assert Place.objects.get(id=1).restaurant.stars == 1


def test_an_inherited_instance_of_another_tenant_is_refused(pair):
    with tenant_context_bind("a.test"):
        restaurant = Restaurant.objects.get(id=1)
    with tenant_context_bind("b.test"):
        for use in (restaurant.save, restaurant.delete, lambda: restaurant.place_ptr):
            with pytest.raises(TenantMismatch):
                use()


def test_uniqueness_is_asked_of_the_own_database(pair):
    for letter in _each():
        other = "b" if letter == "a" else "a"
        Note(text=f"of {other}").full_clean()
        with pytest.raises(ValidationError):
            Note(text=f"of {letter}").full_clean()


def test_the_current_site(pair):
    for letter in _each():
        Site.objects.update_or_create(id=1, defaults={"domain": "same.test", "name": f"of {letter}"})
    Site.objects.clear_cache()
    request = RequestFactory().get("/", headers={"host": "same.test"})
    for letter in _each():
        for site_id in (1, None):
            with override_settings(SITE_ID=site_id):
                assert Site.objects.get_current(request).name == f"of {letter}"
    with tenant_context_bind("a.test"):
        Site.objects.filter(id=1).update(name="of nobody")
        Site.objects.get(id=1).save()  # clears what is cached, of this tenant alone
        with override_settings(SITE_ID=1):
            assert Site.objects.get_current().name == "of nobody"
    with tenant_context_bind("b.test"), CaptureQueriesContext(connection) as asked, override_settings(SITE_ID=1):
        assert Site.objects.get_current().name == "of b"
    assert not asked.captured_queries


# --- connections ---


def test_queries_and_wrappers_of_one_connection_are_not_the_others(pair):
    seen = []

    def note(execute, sql, *args):
        seen.append(sql)
        return execute(sql, *args)

    with override_settings(DEBUG=True), tenant_context_bind("a.test"):
        connection.queries_log.clear()
        with connection.execute_wrapper(note):
            with tenant_context_bind("b.test"):
                _text()
                assert len(connection.queries) == 1
            assert seen == []
            assert connection.queries == []
            _text()
        assert len(seen) == len(connection.queries) == 1


def test_introspection_and_constraints(pair):
    with tenant_context_bind("a.test"), connection.cursor() as cursor:
        cursor.execute("CREATE TABLE only_a (id integer)")
    with tenant_context_bind("b.test"):
        assert "only_a" not in connection.introspection.table_names()
        with transaction.atomic(), connection.constraint_checks_disabled():
            connection.check_constraints()


def test_on_postgres(postgres_pair):
    for letter in _each():
        assert connection.alias in RAN_DB_VERSION_CHECK or connection.ensure_connection() is None
        assert [note.text for note in Note.objects.iterator(chunk_size=1)] == [f"of {letter}"]  # a server-side cursor
        with transaction.atomic():
            assert Note.objects.select_for_update().get(id=1).text == f"of {letter}"
            point = transaction.savepoint()
            Note.objects.update(text="changed")
            transaction.savepoint_rollback(point)
            assert _text() == f"of {letter}"
            with connection.cursor() as cursor:
                cursor.execute("SET CONSTRAINTS ALL DEFERRED")
        assert f"{connection.alias}" in RAN_DB_VERSION_CHECK


def test_a_deferred_constraint_is_checked_where_it_was_deferred(postgres_pair):
    with tenant_context_bind("a.test"):
        with pytest.raises(IntegrityError), transaction.atomic():
            Book.objects.filter(id=1).update(shelf_id=99)  # Django defers foreign keys to the end of a transaction
    for letter in _each():
        assert Book.objects.get(id=1).shelf.name == f"of {letter}"


def test_time_zone_and_isolation_level_are_each_tenants_own(postgres_pair):
    from psycopg import IsolationLevel

    postgres_pair.put(
        "b.test", "b", TIME_ZONE="Asia/Tokyo", OPTIONS={"isolation_level": IsolationLevel.SERIALIZABLE.value}
    )
    for letter in _each():
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('TimeZone'), current_setting('transaction_isolation')")
            expected = ("UTC", "read committed") if letter == "a" else ("Asia/Tokyo", "serializable")
            assert cursor.fetchone() == expected


# --- asgiref ---


@pytest.mark.parametrize("sensitive", [True, False])
def test_asgiref_in_both_directions(pair, letter, sensitive):
    async def ask():
        inner = sync_to_async(lambda: async_to_sync(sync_to_async(_text))(), thread_sensitive=sensitive)
        return [await inner(), await sync_to_async(_text, thread_sensitive=sensitive)()]

    with tenant_context_bind(f"{letter}.test"):
        assert async_to_sync(ask)() == [f"of {letter}"] * 2


async def test_database_sync_to_async(pair):
    for letter in _each():
        assert await database_sync_to_async(_text)() == f"of {letter}"
