"""Small pieces of code that would leak between tenants, each with its verdict (documented in docs/leaks.md).

Each snippet gets two functions that bind a tenant, ``a`` and ``b``, and returns what ``b``
sees. Both tenants have the same primary keys; their rows say whose they are.
"""

import asyncio
import contextvars
import copy
import pickle
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, lru_cache

from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.models import ContentType
from django.contrib.sites.models import Site
from django.core import signing
from django.core.cache import cache, caches
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage
from django.db import connection, connections, router, transaction
from django.db.models import Prefetch, prefetch_related_objects
from django.db.models.deletion import Collector
from django.db.models.signals import post_save
from django.forms import ModelChoiceField, modelform_factory
from django.shortcuts import get_object_or_404
from django.template import Context, Template
from django.test import Client

from tenant_router.managers.task_local import tls_tenant_manager
from tests.app.models import Book, Note, Shelf
from tests.isolation_models import Place, Restaurant, Tag

CORPUS = {}


def verdict(kind):
    """Put a snippet into the corpus: it is made ``harmless``, it is ``refused``, or it stays ``yours`` to change."""

    def register(snippet):
        CORPUS[snippet.__name__] = (kind, snippet)
        return snippet

    return register


def text():
    """What the bound tenant's own row says."""
    return Note.objects.get(id=1).text


def thread(function):
    """Run ``function`` in a thread of its own; return what it returned or raise what it raised."""
    done = Future()

    def run():
        try:
            done.set_result(function())
        except Exception as error:
            done.set_exception(error)

    threading.Thread(target=run).start()
    return done.result()


# --- caches ---


@verdict("harmless")
def module_level_cache_object(a, b):
    kept = caches["default"]
    with a():
        kept.set("note", text())
    with b():
        return kept.get("note") or text()


@verdict("harmless")
def kept_method_of_a_cache(a, b):
    with a():
        cache.set("note", text())
        get = cache.get
    with b():
        return get("note") or text()


@verdict("harmless")
def cached_function(a, b):
    with a():
        cache.get_or_set("note", text)
    with b():
        return cache.get_or_set("note", text)


@verdict("harmless")
def cached_page_of_the_same_path(a, b):
    with a():
        pass
    pages = [Client().get("/notes/cached/", headers={"host": host}).json() for host in ("a.test", "b.test", "b.test")]
    assert pages[1] == pages[2], "the page was not cached at all"
    return pages[1]["notes"][0]


@verdict("harmless")
def template_fragment_cache(a, b):
    page = Template("{% load cache %}{% cache 60 note %}{{ text }}{% endcache %}")
    with a():
        page.render(Context({"text": text()}))
    with b():
        return page.render(Context({"text": text()}))


@verdict("refused")
def cache_without_a_tenant(a, b):
    return caches["default"].get("note")


@verdict("refused")
def queryset_in_a_central_cache(a, b):
    with a():
        caches["central"].set("notes", Note.objects.all())
    with b():
        return caches["central"].get("notes")[0].text


@verdict("yours")
def value_in_a_central_cache(a, b):
    with a():
        caches["central"].set("note", text())
    with b():
        return caches["central"].get("note")


# --- memory of the process ---


@verdict("yours")
def module_level_dictionary(a, b):
    memo = {}
    for bind in (a, b):
        with bind():
            memo.setdefault("note", text())
    return memo["note"]


@verdict("yours")
def class_attribute(a, b):
    class Settings:
        note = None

    with a():
        Settings.note = text()
    with b():
        return Settings.note or text()


@verdict("yours")
def cached_property_of_a_singleton(a, b):
    class Service:
        note = cached_property(lambda self: text())

    service = Service()
    with a():
        assert service.note
    with b():
        return service.note


@verdict("yours")
def thread_local_of_the_application(a, b):
    local = threading.local()
    with a():
        local.note = text()
    with b():
        return getattr(local, "note", None) or text()


@verdict("yours")
def lru_cache_of_values(a, b):
    kept = lru_cache(text)
    with a():
        kept()
    with b():
        return kept()


@verdict("yours")
def lru_cache_by_equal_instances(a, b):
    @lru_cache
    def title(shelf):
        return shelf.name

    for bind in (a, b):
        with bind():
            seen = title(Shelf.objects.get(id=1))
    return seen


@verdict("yours")
def lru_cache_of_instances_and_their_fields(a, b):
    kept = lru_cache(lambda: list(Note.objects.all()))
    with a():
        kept()
    with b():
        return kept()[0].text


@verdict("refused")
def lru_cache_of_instances_and_their_relations(a, b):
    kept = lru_cache(lambda: list(Shelf.objects.all()))
    with a():
        kept()
    with b():
        return kept()[0].book_set.get().title


@verdict("harmless")
def lru_cache_of_a_queryset_that_is_refined(a, b):
    kept = lru_cache(lambda: Note.objects.filter(id=1))
    with a():
        kept().get()
    with b():
        return kept().get().text


@verdict("refused")
def lru_cache_of_a_queryset_that_is_iterated(a, b):
    kept = lru_cache(lambda: Note.objects.filter(id=1))
    with a():
        list(kept())
    with b():
        return next(note.text for note in kept())


@verdict("yours")
def lru_cache_of_a_primary_key(a, b):
    kept = lru_cache(lambda: ContentType.objects.get_for_model(Place).pk)
    with a():
        first = kept()
    with b():
        return "of a" if kept() == first != ContentType.objects.get_for_model(Place).pk else "of b"


@verdict("yours")
def files_under_one_folder(a, b):
    with a():
        directory = str(connection.settings_dict["NAME"]) + ".media"
        FileSystemStorage(directory).save("note.txt", ContentFile(text()))
    with b():
        with FileSystemStorage(directory).open("note.txt") as file:
            return file.read().decode()


# --- querysets ---


@verdict("harmless")
def lazy_queryset_evaluated_elsewhere(a, b):
    with a():
        notes = Note.objects.all()
    with b():
        return notes[0].text


@verdict("refused")
def lazy_queryset_evaluated_nowhere(a, b):
    with a():
        notes = Note.objects.all()
    return notes[0].text


@verdict("refused")
def evaluated_queryset_returned(a, b):
    with a():
        notes = Note.objects.all()
        assert len(notes) == 1
    with b():
        return notes[0].text


@verdict("harmless")
def module_level_queryset_that_is_iterated(a, b):
    kept = Note.objects.all()
    with a():
        assert [note.text for note in kept] == ["of a"]
    with b():
        return next(note.text for note in kept)


@verdict("harmless")
def class_level_queryset(a, b):
    class View:
        queryset = Note.objects.order_by("id")

    with a():
        View.queryset.all().get()
    with b():
        return View.queryset.all().get().text


@verdict("harmless")
def class_level_prefetch(a, b):
    class View:
        queryset = Shelf.objects.prefetch_related(Prefetch("book_set", queryset=Book.objects.order_by("id")))

    for bind in (a, b):
        with bind():
            seen = View.queryset.all()[0].book_set.all()[0].title
    return seen


@verdict("harmless")
def deepcopy_of_a_module_level_queryset(a, b):
    kept = Note.objects.all()
    with a():
        assert [note.text for note in kept] == ["of a"]
    copied = copy.deepcopy(kept)
    with b():
        return next(note.text for note in copied)


@verdict("harmless")
def subquery_of_the_literal_alias(a, b):
    with a():
        notes = Note.objects.filter(pk__in=Note.objects.using("default").values("pk"))
    with b():
        return notes.get().text


@verdict("refused")
def lookup_by_an_instance_in_a_lazy_queryset(a, b):
    with a():
        books = Book.objects.filter(shelf=Shelf.objects.get(id=1))
    with b():
        return books.get().title


@verdict("refused")
def pickled_queryset(a, b):
    with a():
        kept = pickle.dumps(Note.objects.all())
    with b():
        return pickle.loads(kept)[0].text


@verdict("refused")
def pickled_module_level_queryset(a, b):
    notes = Note.objects.all()
    with a():
        kept = pickle.dumps(notes)
    with b():
        return pickle.loads(kept)[0].text


@verdict("harmless")
def pickled_query(a, b):
    with a():
        kept = pickle.dumps(Note.objects.all().query)
    with b():
        notes = Note.objects.all()
        notes.query = pickle.loads(kept)
        return notes.get().text


@verdict("refused")
def raw_queryset_returned(a, b):
    with a():
        notes = Note.objects.raw("SELECT * FROM app_note")
        assert len(notes) == 1
    with b():
        return notes[0].text


@verdict("refused")
def iterator_across_contexts(a, b):
    with a():
        Note.objects.create(text="second of a")
        rows = Note.objects.order_by("id").iterator(chunk_size=1)
        next(rows)
        with b():
            return next(rows).text


@verdict("refused")
def iterator_of_the_literal_alias_across_contexts(a, b):
    with a():
        Note.objects.create(text="second of a")
        rows = Note.objects.using("default").order_by("id").iterator(chunk_size=1)
        next(rows)
        with b():
            return next(rows).text


@verdict("refused")
def iterator_continued_nowhere(a, b):
    with a():
        Note.objects.create(text="second of a")
        rows = Note.objects.using("default").order_by("id").iterator(chunk_size=1)
        next(rows)
    return next(rows).text


@verdict("refused")
def asynchronous_iterator_across_contexts(a, b):
    async def requests():
        async with a():
            await Note.objects.acreate(text="second of a")
            rows = Note.objects.using("default").order_by("id").aiterator(chunk_size=1)
            await anext(rows)
        try:
            async with b():
                return (await anext(rows)).text
        finally:
            await rows.aclose()

    return async_to_sync(requests)()


@verdict("refused")
def queryset_of_an_explicit_alias(a, b):
    with a():
        notes = Note.objects.using(connection.alias)
    with b():
        return notes[0].text


@verdict("harmless")
def queryset_of_the_literal_alias(a, b):
    with a():
        notes = Note.objects.using("default")
    with b():
        return notes[0].text


# --- instances ---


def _of_a(a, model=Shelf):
    with a():
        return model.objects.get(id=1)


@verdict("refused")
def instance_saved(a, b):
    shelf = _of_a(a)
    with b():
        shelf.save()


@verdict("refused")
def instance_saved_by_the_literal_alias(a, b):
    shelf = _of_a(a)
    with b():
        shelf.save(using="default")


@verdict("refused")
def instance_deleted(a, b):
    shelf = _of_a(a)
    with b():
        shelf.delete()


@verdict("refused")
def instance_deleted_by_the_literal_alias(a, b):
    shelf = _of_a(a)
    with b():
        shelf.delete(using="default")


@verdict("refused")
def instance_refreshed(a, b):
    shelf = _of_a(a)
    with b():
        shelf.refresh_from_db()


@verdict("refused")
def instance_refreshed_by_the_literal_alias(a, b):
    shelf = _of_a(a)
    with b():
        shelf.refresh_from_db(using="default")


@verdict("refused")
def instance_loaded_by_the_literal_alias(a, b):
    with a():
        shelf = Shelf.objects.using("default").get(id=1)
    with b():
        shelf.save()


@verdict("refused")
def pickled_instance(a, b):
    shelf = pickle.loads(pickle.dumps(_of_a(a)))
    with b():
        shelf.save()


@verdict("refused")
def instances_updated_in_bulk(a, b):
    shelf = _of_a(a)
    with b():
        Shelf.objects.bulk_update([shelf], ["name"])


@verdict("refused")
def instances_created_in_bulk(a, b):
    book = _of_a(a, Book)
    book.pk = 2
    with b():
        Book.objects.bulk_create([book])


@verdict("refused")
def related_manager(a, b):
    books = _of_a(a).book_set
    with b():
        return books.get().title


@verdict("refused")
def related_manager_adds(a, b):
    shelf = _of_a(a)
    with b():
        shelf.book_set.create(title="x")


@verdict("refused")
def related_queryset(a, b):
    books = _of_a(a).book_set.all()
    with b():
        return books[0].title


@verdict("refused")
def many_to_many_manager(a, b):
    place = _of_a(a, Place)
    with b():
        place.neighbours.add(Place.objects.get(id=1))


@verdict("refused")
def relation_to_an_instance(a, b):
    shelf = _of_a(a)
    with b():
        Book.objects.create(shelf=shelf, title="x")


@verdict("refused")
def filter_by_an_instance(a, b):
    shelf = _of_a(a)
    with b():
        return Book.objects.get(shelf=shelf).title


@verdict("refused")
def filter_by_instances(a, b):
    shelf = _of_a(a)
    with b():
        return Book.objects.get(shelf__in=[shelf]).title


@verdict("refused")
def update_by_an_instance(a, b):
    shelf = _of_a(a)
    with b():
        Book.objects.update(shelf=shelf)


@verdict("refused")
def defaults_with_an_instance(a, b):
    shelf = _of_a(a)
    with b():
        Book.objects.update_or_create(id=1, defaults={"shelf": shelf})


@verdict("refused")
def many_to_many_removes(a, b):
    group = _of_a(a, Group)
    with b():
        User.objects.get(id=1).groups.remove(group)


@verdict("refused")
def many_to_many_sets(a, b):
    group = _of_a(a, Group)
    with b():
        User.objects.get(id=1).groups.set([group])


@verdict("refused")
def many_to_many_contains(a, b):
    group = _of_a(a, Group)
    with b():
        return "of a" if User.objects.get(id=1).groups.contains(group) else "of b"


@verdict("refused")
def many_to_many_in_a_subquery(a, b):
    with a():
        groups = User.objects.get(id=1).groups.all()
    with b():
        return Group.objects.filter(pk__in=groups).get().name


@verdict("refused")
def removed_from_a_generic_relation(a, b):
    tag = _of_a(a, Tag)
    with b():
        Place.objects.get(id=1).tags.remove(tag)


@verdict("refused")
def collector_of_an_instance(a, b):
    shelf = _of_a(a)
    with b():
        collector = Collector(using="default")
        collector.collect([shelf])
        collector.delete()


@verdict("refused")
def collector_that_deletes_elsewhere(a, b):
    collector = Collector(using="default")
    with a():
        collector.collect([Note.objects.get(id=1)])
    with b():
        collector.delete()


@verdict("refused")
def copied_row_with_a_memoised_relation(a, b):
    with a():
        book = Book.objects.select_related("shelf").get(id=1)
    with b():
        book.pk, book._state.db, book._state.adding = None, None, True
        book.save()


@verdict("refused")
def found_or_404_by_an_instance(a, b):
    shelf = _of_a(a)
    with b():
        return get_object_or_404(Book, shelf=shelf).title


@verdict("refused")
def found_in_bulk_by_an_instance(a, b):
    place = _of_a(a, Place)
    with b():
        return Restaurant.objects.in_bulk([place])[1].name


@verdict("refused")
def instance_in_a_form(a, b):
    note = _of_a(a, Note)
    with b():
        return modelform_factory(Note, fields=["text"])(instance=note).as_p()


@verdict("refused")
def instance_as_a_choice(a, b):
    shelf = _of_a(a)
    with b():
        return ModelChoiceField(Shelf.objects.all()).clean(shelf).name


@verdict("refused")
def memoised_foreign_key(a, b):
    with a():
        book = Book.objects.select_related("shelf").get(id=1)
    with b():
        return book.shelf.name


@verdict("refused")
def deferred_field(a, b):
    with a():
        note = Note.objects.defer("text").get(id=1)
    with b():
        return note.text


@verdict("refused")
def prefetch_across(a, b):
    shelf = _of_a(a)
    with b():
        prefetch_related_objects([shelf], "book_set")


@verdict("refused")
def prefetched_relation(a, b):
    with a():
        shelf = Shelf.objects.prefetch_related("book_set").get(id=1)
    with b():
        return shelf.book_set.all()[0].title


@verdict("refused")
def generic_foreign_key(a, b):
    tag = _of_a(a, Tag)
    with b():
        return tag.content_object.name


@verdict("refused")
def generic_relation(a, b):
    place = _of_a(a, Place)
    with b():
        return place.tags.get().name


@verdict("refused")
def permissions_of_a_kept_user(a, b):
    user = _of_a(a, User)
    with b():
        return user.has_perm("app.add_note")


@verdict("refused")
def users_with_a_kept_permission(a, b):
    with a():
        kept = Permission.objects.get(codename="add_note")
    with b():
        return User.objects.with_perm(kept, backend="django.contrib.auth.backends.ModelBackend").get().username


@verdict("yours")
def permissions_memoised_on_a_kept_user(a, b):
    with a():
        user = User.objects.get(id=1)
        assert user.has_perm("app.add_note")
    with b():
        return "of a" if user.has_perm("app.add_note") else "of b"


# --- Django's own memory ---


@verdict("harmless")
def content_type_cache(a, b):
    with a():
        of_a = ContentType.objects.get_for_model(Place).pk
    with b():
        of_b = ContentType.objects.get_for_model(Place)
        assert of_b.pk != of_a
        return Tag.objects.get(content_type=of_b).name


@verdict("harmless")
def kept_content_type(a, b):
    kept = lru_cache(lambda: ContentType.objects.get_for_model(Place))
    with a():
        kept()
    with b():
        return Tag.objects.get(content_type=kept()).name


@verdict("harmless")
def kept_content_type_assigned(a, b):
    with a():
        kept = ContentType.objects.get_for_model(Note)
    with b():
        return Tag.objects.create(name="x", content_type=kept, object_id=1).content_object.text


@verdict("refused")
def kept_content_type_saved(a, b):
    with a():
        kept = ContentType.objects.get_for_model(Place)
    with b():
        kept.save()


@verdict("harmless")
def kept_site(a, b):
    with a():
        kept = Site.objects.get_current()
    with b():
        assert Site.objects.contains(kept)
        return text() if kept == Site.objects.get_current() else "of a"


@verdict("harmless")
def permission_cache(a, b):
    with a():
        assert User.objects.get(id=1).get_all_permissions() == {"app.add_note"}
    with b():
        assert User.objects.get(id=1).get_all_permissions() == {"app.change_note"}
        return Permission.objects.get(codename="change_note").user_set.get().username


@verdict("harmless")
def signal_with_get_or_create(a, b):
    def receiver(instance, **kwargs):
        Note.objects.get_or_create(text=instance.name)

    post_save.connect(receiver, sender=Shelf, weak=False, dispatch_uid="leaky")
    try:
        for bind in (a, b):
            with bind():
                Shelf.objects.create(name=f"new {text()}")
                seen = [note.text for note in Note.objects.filter(text__startswith="new")]
    finally:
        post_save.disconnect(sender=Shelf, dispatch_uid="leaky")
    return seen[0].removeprefix("new ")


# --- connections ---


@verdict("harmless")
def module_level_connection(a, b):
    with a():
        connection.ensure_connection()
    with b(), connection.cursor() as cursor:
        cursor.execute("SELECT text FROM app_note")
        return cursor.fetchone()[0]


@verdict("refused")
def module_level_cursor_without_a_tenant(a, b):
    return connection.cursor()


@verdict("refused")
def kept_connection_without_a_tenant(a, b):
    kept = connections["default"]
    with b():
        return kept.cursor()


@verdict("refused")
def kept_cursor(a, b):
    with a():
        cursor = connection.cursor()
        with b():
            cursor.execute("SELECT text FROM app_note")
            return cursor.fetchone()[0]


@verdict("refused")
def kept_cursor_by_a_method_of_its_driver(a, b):
    with a():
        cursor = connection.cursor()
        with b():
            cursor.executescript("DELETE FROM app_note")


@verdict("harmless")
def router_asked_at_import(a, b):
    alias = router.db_for_write(Note)
    with b(), transaction.atomic(using=alias):
        return Note.objects.using(alias).get(id=1).text


@verdict("refused")
def kept_connection(a, b):
    with a():
        kept = connections["default"]
    with b(), kept.cursor() as cursor:
        cursor.execute("SELECT text FROM app_note")
        return cursor.fetchone()[0]


@verdict("yours")
def rows_left_in_a_kept_cursor(a, b):
    with a():
        cursor = connection.cursor()
        cursor.execute("SELECT text FROM app_note")
        with b():
            return cursor.fetchone()[0]


@verdict("refused")
def alias_of_another_tenant(a, b):
    with a():
        alias = connection.alias
    with b():
        return Note.objects.using(alias).get().text


@verdict("refused")
def another_tenant_inside_a_transaction(a, b):
    with a(), transaction.atomic(), b():
        return text()


@verdict("harmless")
def callback_on_commit(a, b):
    seen = []
    with b(), transaction.atomic():
        transaction.on_commit(lambda: seen.append(text()))
    return seen[0]


@verdict("harmless")
def callback_on_commit_by_alias(a, b):
    seen = []
    with b():
        alias = connection.alias
    with transaction.atomic(using=alias):
        transaction.on_commit(lambda: seen.append(text()), using=alias)
    return seen[0]


@verdict("refused")
def callback_on_commit_without_a_tenant(a, b):
    transaction.on_commit(text)


# --- threads, tasks, streams ---


@verdict("refused")
def thread_without_a_tenant(a, b):
    with a():
        return thread(text)


@verdict("refused")
def lazy_queryset_in_a_thread(a, b):
    with a():
        notes = Note.objects.all()
        return thread(lambda: notes[0].text)


@verdict("harmless")
def job_of_an_executor(a, b):
    with ThreadPoolExecutor(1) as pool:
        with a():
            pool.submit(text).result()
        with b():
            job = pool.submit(text)
        return job.result()


@verdict("refused")
def job_after_one_that_left_a_tenant_bound(a, b):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(a().__enter__).result()
        return pool.submit(text).result()


@verdict("harmless")
def task_that_outlives_its_request(a, b):
    async def later(go):
        await go.wait()
        return (await Note.objects.aget(id=1)).text

    async def requests():
        go = asyncio.Event()
        async with b():
            task = asyncio.create_task(later(go))
        async with a():
            go.set()
            return await task

    return async_to_sync(requests)()


@verdict("yours")
def copied_context_variables(a, b):
    with a():
        copied = contextvars.copy_context()
    with b():
        return copied.run(text)


@verdict("harmless")
def generator_of_a_response(a, b):
    streams = [Client().get("/notes/stream/", headers={"host": f"{tenant}.test"}) for tenant in "ab"]
    parts = [b"".join(stream.streaming_content) for stream in streams]
    return parts[1].decode().strip()


@verdict("harmless")
def generator_collected_in_a_transaction(a, b):
    def notes():
        try:
            yield text()
        finally:
            Note.objects.update(text="of a")

    with a():
        Note.objects.update(text="changed")
    rows = a()(notes)()
    next(rows)
    with b(), transaction.atomic():
        del rows
        return text()


@verdict("harmless")
def block_in_a_generator_that_is_collected(a, b):
    def notes():
        with b():
            yield text()

    with a():
        rows = notes()
        next(rows)
    with b():
        del rows
        return text()


@verdict("harmless")
def blocks_in_generators_that_take_turns(a, b):
    def notes(bind):
        with bind():
            yield text()

    turns = [notes(a), notes(b)]
    seen = [next(one) for one in turns]
    for one in turns:
        one.close()
    assert not tls_tenant_manager.current_tenant_context
    return seen[1]


@verdict("yours")
def list_iterator_returned(a, b):
    with a():
        texts = (note.text for note in Note.objects.all())
    with b():
        return next(texts)


# --- what the browser keeps ---


@verdict("harmless")
def replayed_session(a, b):
    client = Client()
    client.get("/session/", headers={"host": "a.test"})
    assert client.get("/session/", headers={"host": "a.test"}).json() == {"visits": 2}
    with b():
        seen = client.get("/session/", headers={"host": "b.test"}).json()
        return text() if seen == {"visits": 1} else "of a"


@verdict("refused")
def replayed_signature(a, b):
    with a():
        signed = signing.dumps(text())
    with b():
        return signing.loads(signed)


@verdict("refused")
def signature_of_a_chosen_value(a, b):
    signed = signing.Signer().sign("b.test\0evil")
    with b():
        return signing.Signer().unsign("evil" + signed.removeprefix("b.test\0evil"))
