"""What ``using("default")`` means, who goes on with an iteration, and how long rows are kept."""

import asyncio
import copy
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections
from django.db.backends.sqlite3 import base as sqlite3_base
from django.db.models import OuterRef, Prefetch, Subquery
from django.db.models.sql import RawQuery
from django.test.utils import CaptureQueriesContext

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantContextMissing, TenantMismatch
from tenant_router.orm_backends.django_orm.per_database import remembering
from tests.app.models import Book, Note, Plan, Shelf
from tests.tenants import eventually


def _texts(notes):
    return [note.text for note in notes]


# --- a queryset that was made while nobody was bound ---


def test_after_a_change_it_serves_the_new_databases_rows(pair):
    kept = Note.objects.all()
    with tenant_context_bind("a.test"):
        assert _texts(kept) == ["of a"]
        changed = pair.put("a.test", pair.record("b.test"))
        pair.arrived("a.test", changed)
        assert _texts(kept) == ["of a"]  # this unit of work ends where it began
    with tenant_context_bind("a.test"):
        assert _texts(kept) == ["of b"]


def test_rows_of_deleted_and_changed_tenants_are_dropped(pair):
    kept = Note.objects.all()
    for letter in "ab":
        with tenant_context_bind(f"{letter}.test"):
            assert _texts(kept) == [f"of {letter}"]
    held = vars(kept)["_tenant_router_rows"]
    assert len(held) == 2
    pair.arrived("b.test", pair.delete("b.test"))
    pair.arrived("a.test", pair.put("a.test", pair.record("elsewhere")))
    eventually(lambda: gc.collect() is None or len(held) == 0)


def test_a_copy_of_it_holds_nobodys_rows(pair):
    kept = Note.objects.all()
    with tenant_context_bind("a.test"):
        assert _texts(kept) == ["of a"]
        inside = copy.deepcopy(kept)
    outside = copy.deepcopy(kept)
    for copied in (inside, outside):
        assert len(vars(copied)["_tenant_router_rows"]) == 0
        assert "of a" not in repr(vars(copied))
        for letter in "ba":
            with tenant_context_bind(f"{letter}.test"):
                assert _texts(copied) == [f"of {letter}"]


# --- the literal alias, on either side ---


def test_subqueries_of_the_literal_alias(pair):
    for letter in "ab":
        with tenant_context_bind(f"{letter}.test"):
            own = connection.alias
            for outer in (Note.objects, Note.objects.using("default"), Note.objects.using(own)):
                for inner in (Note.objects.all(), Note.objects.using("default"), Note.objects.using(own)):
                    assert _texts(outer.filter(pk__in=inner.values("pk"))) == [f"of {letter}"]
                    assert _texts(outer.exclude(pk__in=inner.values("pk"))) == []
            latest = Subquery(Book.objects.using("default").filter(shelf=OuterRef("pk")).values("title")[:1])
            assert Shelf.objects.annotate(latest=latest).get().latest == f"of {letter}"


def test_a_subquery_that_was_made_elsewhere_is_a_question(pair):
    with tenant_context_bind("a.test"):
        lazy = Note.objects.filter(pk__in=Note.objects.using("default").values("pk"))
        named = Note.objects.filter(pk__in=Note.objects.using("a.test_default").values("pk"))
    with tenant_context_bind("b.test"):
        assert _texts(lazy) == ["of b"]
        with pytest.raises(TenantMismatch):
            list(named)


def test_a_subquery_of_another_database_is_refused_as_in_django(pair):
    with tenant_context_bind("a.test"), pytest.raises(ValueError, match="across different databases"):
        list(Note.objects.filter(pk__in=Plan.objects.using("central").values("pk")))


def test_a_deferred_instance_saves_what_it_has_loaded(pair):
    with tenant_context_bind("a.test"):
        for save in (
            lambda book: book.save(using="default"),
            lambda book: book.save(),
            lambda book: book.save(using=connection.alias),
        ):
            book = Book.objects.only("title").get()
            Book.objects.update(shelf=Shelf.objects.create(name="moved"))
            book.title = "x"
            with CaptureQueriesContext(connection) as captured:
                save(book)
            (statement,) = [query["sql"] for query in captured.captured_queries]
            assert "shelf_id" not in statement.split("WHERE")[0]
            assert Book.objects.get().shelf.name == "moved"


# --- iterations ---


def _two_notes():
    with tenant_context_bind("a.test"):
        Note.objects.create(text="second of a")


ITERATIONS = {
    "iterator": lambda: Note.objects.order_by("id").iterator(chunk_size=1),
    "literal alias": lambda: Note.objects.using("default").order_by("id").iterator(chunk_size=1),
    "own alias": lambda: Note.objects.using("a.test_default").order_by("id").iterator(chunk_size=1),
    "prefetching": lambda: Note.objects.using("default").order_by("id").prefetch_related().iterator(chunk_size=1),
    "raw": lambda: Note.objects.raw("SELECT * FROM app_note ORDER BY id", using="default").iterator(),
    "values": lambda: Note.objects.using("default").order_by("id").values_list("text").iterator(chunk_size=1),
}


@pytest.mark.parametrize("kind", ITERATIONS)
@pytest.mark.parametrize("elsewhere", ["b.test", None])
def test_an_iteration_is_continued_where_it_began_or_not_at_all(pair, kind, elsewhere):
    _two_notes()
    with tenant_context_bind("a.test"):
        rows = ITERATIONS[kind]()
        first = next(rows)
        assert getattr(first, "_state", None) is None or first._state.db == "a.test_default"
    if elsewhere:
        with tenant_context_bind(elsewhere), pytest.raises(TenantMismatch, match=r"read from tenant 'a\.test'"):
            next(rows)
    else:
        with pytest.raises(TenantMismatch, match="no tenant is bound"):
            next(rows)


# Django leaves the cursor of a suspended asynchronous iteration to the collector, which finds it closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("using", [None, "default", "a.test_default"])
@pytest.mark.parametrize("elsewhere", ["b.test", None])
def test_an_asynchronous_iteration_too(pair, using, elsewhere):
    _two_notes()

    async def run():
        async with tenant_context_bind("a.test"):
            rows = Note.objects.using(using).order_by("id").aiterator(chunk_size=1)
            assert (await anext(rows))._state.db == "a.test_default"
        refused = False
        try:
            async with tenant_context_bind(elsewhere) if elsewhere else nullcontext():
                await anext(rows)
        except TenantMismatch:
            refused = True
        await sync_to_async(connections.close_all)()
        return refused

    assert asyncio.run(run())


def test_an_iteration_by_an_alias_alone_goes_on_and_its_rows_are_its_tenants(pair):
    _two_notes()
    rows = Note.objects.using("a.test_default").order_by("id").iterator(chunk_size=1)
    assert next(rows)._state.db == "a.test_default"
    changed = pair.put("a.test", pair.record("b.test"))
    pair.arrived("a.test", changed)
    assert next(rows).text == "second of a"


def test_rows_of_a_literal_alias_are_labelled_as_their_tenants(pair):
    with tenant_context_bind("a.test"):
        assert {note._state.db for note in Note.objects.using("default")} == {"a.test_default"}
        loaded = Shelf.objects.prefetch_related(Prefetch("book_set", queryset=Book.objects.using("default"))).get()
        assert loaded.book_set.all()[0]._state.db == "a.test_default"
        assert {note._state.db for note in Note.objects.raw("SELECT * FROM app_note", using="default")} == {
            "a.test_default"
        }


# --- cursors ---


def test_a_kept_cursor_sends_nothing_by_its_drivers_own_methods(pair):
    with tenant_context_bind("a.test"):
        cursor = connection.cursor()
        method = cursor.executescript
        with tenant_context_bind("b.test"):
            for send in (method, cursor.executescript):
                with pytest.raises(TenantMismatch):
                    send("DELETE FROM app_note")
        method("UPDATE app_note SET text = 'x'")
        assert _texts(Note.objects.all()) == ["x"]
        assert not hasattr(cursor, "copy_expert")


def test_a_kept_cursor_copies_nothing_on_postgresql(postgres_pair):
    with tenant_context_bind("a.test"), connection.cursor() as cursor:
        with tenant_context_bind("b.test"):
            for send in (lambda: cursor.copy("COPY app_note TO STDOUT"), lambda: list(cursor.stream("SELECT 1"))):
                with pytest.raises(TenantMismatch):
                    send()
        with cursor.copy("COPY (SELECT text FROM app_note) TO STDOUT") as copied:
            assert copied.read_row() == ("of a",)
            assert copied.read_row() is None


# --- what is kept by alias ---


def test_what_is_kept_by_alias_is_kept_for_each_database(pair):
    """As oids of extension types are (``get_hstore_oids`` of django.contrib.postgres)."""
    asked = []

    @remembering
    def names(alias):
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT text FROM app_note")
            asked.append(alias)
            return cursor.fetchone()[0]

    for _ in range(2):
        with tenant_context_bind("a.test"):
            assert names("a.test_default") == names("default") == "of a"
        assert names("a.test_default") == "of a"
        with tenant_context_bind("b.test"):
            assert names("default") == "of b"
    assert asked == ["a.test_default", "default"]
    with tenant_context_bind("a.test"):
        changed = pair.put("a.test", pair.record("b.test"))
        pair.arrived("a.test", changed)
        assert names("a.test_default") == "of a"  # a unit of work that goes on on the old database
    assert names("a.test_default") == "of b"
    with tenant_context_bind("a.test"):
        assert names("a.test_default") == "of b"
        del asked[:]
        names.cache_clear()
        assert (names("default"), asked) == ("of b", ["default"])
    with pytest.raises(TenantContextMissing):
        names("default")


def test_oids_that_a_backend_keeps_on_its_class_are_kept_with_the_database(pair, monkeypatch):
    """As the PostGIS backend does, for each name of a type, by alias."""
    of_class = {"geometry": {}}
    monkeypatch.setattr(sqlite3_base.DatabaseWrapper, "_type_infos", of_class, raising=False)
    with tenant_context_bind("a.test"):
        connection._type_infos["geometry"][connection.alias] = "of a"
        changed = pair.put("a.test", pair.record("b.test"))
        pair.arrived("a.test", changed)
        assert connection._type_infos["geometry"] == {"a.test_default": "of a"}
    with tenant_context_bind("a.test"):
        assert connection._type_infos == {"geometry": {}}
    assert of_class == {"geometry": {}}


# --- raw querysets that a module keeps ---


def test_a_kept_raw_queryset_reads_each_tenants_own_columns(pair):
    notes = Note.objects.raw("SELECT * FROM app_note")
    with tenant_context_bind("b.test"), connection.cursor() as cursor:
        cursor.execute("CREATE TABLE turned AS SELECT text, id FROM app_note")
        cursor.execute("DROP TABLE app_note")
        cursor.execute("ALTER TABLE turned RENAME TO app_note")
    for letter in "aba":
        with tenant_context_bind(f"{letter}.test"):
            assert [(note.id, note.text) for note in notes] == [(1, f"of {letter}")]


def test_a_kept_raw_queryset_serves_two_threads_at_once(pair, monkeypatch):
    """``RawQuery`` keeps one cursor: that of who has asked last."""
    notes = Note.objects.raw("SELECT * FROM app_note")
    barrier = threading.Barrier(2, timeout=60)
    execute = RawQuery._execute_query

    def both_have_asked(query):
        execute(query)
        barrier.wait()

    def read(letter):
        with tenant_context_bind(f"{letter}.test"):
            try:
                return [note.text for note in notes]
            finally:
                connection.close()

    monkeypatch.setattr(RawQuery, "_execute_query", both_have_asked)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(read, "ab")) == [["of a"], ["of b"]]
