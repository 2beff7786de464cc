"""The guards themselves: what they let through, what they cost, and that no SQL is sent before they refuse."""

import pickle
import threading

import pytest
from django.db import connection, connections
from django.db.models import Model, Prefetch, QuerySet
from django.test.utils import CaptureQueriesContext

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantMismatch
from tenant_router.orm_backends.django_orm import guards
from tenant_router.orm_backends.django_orm.querysets import Rows
from tests.app.models import Book, Note, Plan, Shelf
from tests.leaky import CORPUS

IDENTITY = [
    name
    for name, (verdict, _) in CORPUS.items()
    if verdict == "refused" and name.startswith(("instance", "related", "filter", "memoised", "generic", "prefetch"))
]


@pytest.fixture
def central():
    with connections["central"].schema_editor() as editor:
        editor.create_model(Plan)
    Plan.objects.create(id=1, name="central")
    yield
    with connections["central"].schema_editor() as editor:
        editor.delete_model(Plan)


@pytest.mark.parametrize("name", IDENTITY)
def test_another_tenants_instance_is_refused_before_any_sql(pair, name):
    def bind_counting():
        return _Counting("b.test")

    with pytest.raises(TenantMismatch):
        CORPUS[name][1](lambda: tenant_context_bind("a.test"), bind_counting)
    assert _Counting.queries == [], "SQL was sent to the other tenant's database"


class _Counting:
    """Binds a tenant and notes the statements that are sent to its database."""

    queries: list = []

    def __init__(self, tenant_id):
        self._bind = tenant_context_bind(tenant_id)

    def __enter__(self):
        self._bind.__enter__()
        self._capture = CaptureQueriesContext(connection)
        self._capture.__enter__()

    def __exit__(self, *error):
        type(self).queries = [query["sql"] for query in self._capture.captured_queries]
        self._capture.__exit__(*error)
        self._bind.__exit__(*error)


def test_the_guards_make_no_query(pair):
    with tenant_context_bind("a.test"):
        with CaptureQueriesContext(connection) as captured:
            book = Book.objects.select_related("shelf").get(id=1)
            assert book.shelf.name == "of a"
            book.save()
            list(Note.objects.iterator())
            notes = Note.objects.all()
            assert len(notes) == len(notes) == 1
        assert len(captured) == 4


def test_the_own_tenant_may_go_on_with_what_it_has_read(pair):
    with tenant_context_bind("a.test"):
        notes, shelf = Note.objects.all(), Shelf.objects.prefetch_related("book_set").get(id=1)
        assert len(notes) == 1
        kept = pickle.dumps([notes, shelf])
    with tenant_context_bind("a.test"):
        for found, place in ([notes, shelf], pickle.loads(kept)):
            assert [note.text for note in found] == ["of a"]
            assert [book.title for book in place.book_set.all()] == ["of a"]
            place.save()


def test_what_was_read_may_be_used_where_nobody_is_bound(pair):
    with tenant_context_bind("a.test"):
        notes, shelf = Note.objects.all(), Shelf.objects.get(id=1)
        assert len(notes) == 1
    assert notes[0].text == "of a"
    assert shelf.book_set.get().title == "of a"


def test_rows_read_by_an_alias_alone_belong_to_the_tenant_it_names(pair):
    notes = Note.objects.using("a.test_default")
    assert [note.text for note in notes] == ["of a"]
    with tenant_context_bind("b.test"), pytest.raises(TenantMismatch):
        list(notes)
    with tenant_context_bind("a.test"):
        assert len(notes) == 1


def test_what_is_central_is_everybodys(pair, central):
    with tenant_context_bind("a.test"):
        plans, plan = Plan.objects.all(), Plan.objects.get(id=1)
        assert len(plans) == 1
        kept = pickle.dumps(plans)
        rows = Plan.objects.iterator()
        next(rows)
    with tenant_context_bind("b.test"):
        assert plans[0].name == "central"
        assert pickle.loads(kept)[0].name == "central"
        assert list(rows) == []
        plan.save()
        plan.refresh_from_db()
        assert Plan.objects.filter(id=plan.id).exists()


def test_a_class_level_prefetch_serves_two_threads_at_once(pair):
    """Django notes the instance in the queryset of the ``Prefetch``, which both threads would share."""
    prefetch = Prefetch("book_set", queryset=Book.objects.order_by("id"))
    barrier, seen = threading.Barrier(2, timeout=20), {}

    def serve(letter):
        with tenant_context_bind(f"{letter}.test"):
            for _ in range(30):
                barrier.wait()
                shelf = Shelf.objects.prefetch_related(prefetch).get(id=1)
                seen.setdefault(letter, set()).add(shelf.book_set.all()[0].title)
            connection.close()

    threads = [threading.Thread(target=serve, args=letter) for letter in "ab"]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert seen == {"a": {"of a"}, "b": {"of b"}}
    assert vars(prefetch)["queryset"]._hints == {}


def test_a_module_level_queryset_serves_each_tenant_its_own_rows(pair):
    shelves = Shelf.objects.prefetch_related("book_set")
    for letter in "abab":
        with tenant_context_bind(f"{letter}.test"):
            assert [shelf.name for shelf in shelves] == [f"of {letter}"]
            assert [shelf.book_set.all()[0].title for shelf in shelves] == [f"of {letter}"]
            with CaptureQueriesContext(connection) as captured:
                assert len(shelves) == 1
            assert len(captured) == 0


def test_a_generator_may_be_continued_after_another_tenant_was_bound(pair):
    with tenant_context_bind("a.test"):
        Note.objects.create(text="second of a")
        rows = Note.objects.order_by("id").iterator(chunk_size=1)
        first = next(rows).text
        with tenant_context_bind("b.test"):
            Note.objects.get(id=1)
        assert [first, next(rows).text] == ["of a", "second of a"]


def test_install_and_uninstall_leave_django_as_it_was(fresh_runtime):
    runtime = fresh_runtime()
    guarded = Model.save_base
    assert isinstance(vars(QuerySet)["_result_cache"], Rows)
    guards.install({"default"})
    assert Model.save_base is guarded
    runtime.uninstall()
    assert "_result_cache" not in vars(QuerySet)
    assert Model.save_base is guarded.__wrapped__
    fresh_runtime()
