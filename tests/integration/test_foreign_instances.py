"""Another tenant's instance: refused wherever its primary key alone would be used, before any SQL, written or read."""

import asyncio
import contextlib
import copy
import warnings

import django
import pytest
from asgiref.sync import sync_to_async
from django import forms
from django.contrib.admin.utils import NestedObjects
from django.contrib.auth.models import Group, Permission, User
from django.contrib.contenttypes.forms import generic_inlineformset_factory
from django.contrib.contenttypes.models import ContentType
from django.core import serializers
from django.core.serializers.base import DeserializedObject
from django.db import IntegrityError, connection, connections, transaction
from django.db.models import Case, Count, Exists, Model, OuterRef, Prefetch, Q, Value, When, prefetch_related_objects
from django.db.models.deletion import Collector
from django.db.models.sql import UpdateQuery
from django.shortcuts import aget_object_or_404, get_list_or_404, get_object_or_404
from django.test.utils import CaptureQueriesContext

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantMismatch
from tests.app.models import Book, Note, Plan, Shelf
from tests.isolation_models import Place, Restaurant, Tag, Visit

MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"
USES = {}


def use(function):
    """A use of ``its``, whose attributes are instances of tenant ``a``; ``own`` gives the bound tenant's."""
    USES[function.__name__] = function
    return function


class Rows:
    """Instances of whoever is bound when they are made, one of each model."""

    def __init__(self):
        for model in (Shelf, Book, Place, Restaurant, Tag, Visit, User, Group, Note):
            setattr(self, model._meta.model_name, model.objects.get(id=1))
        self.tag_of_a_note = Tag.objects.get(id=2)
        self.notes = Note.objects.order_by("id")
        assert len(self.notes) == 1
        assert self.place.tags  # which has asked for the content type


# --- what writes ---


@use
def updated_with(its, own):
    Book.objects.update(shelf=its.shelf)


@use
def updated_by_the_literal_alias(its, own):
    Book.objects.using("default").update(shelf=its.shelf)


@use
def updated_by_a_query_of_its_own(its, own):
    query = UpdateQuery(Book)
    query.add_update_values({"shelf": its.shelf})
    query.get_compiler("default").execute_sql("row count")


@use
def updated_of_a_parent(its, own):
    Visit.objects.update(place=its.restaurant)


@use
def updated_or_created(its, own):
    Visit.objects.update_or_create(id=1, defaults={"place": its.place})


@use
def updated_or_created_by_create_defaults(its, own):
    own.place.visit_set.update_or_create(id=1, defaults={"book": its.book})


@use
def got_or_created(its, own):
    Visit.objects.get_or_create(id=3, defaults={"place": its.place})


@use
def looked_up_or_created(its, own):
    Book.objects.get_or_create(shelf=its.shelf, title="x")


@use
def created_with(its, own):
    Book.objects.create(shelf=its.shelf, title="x")


@use
def created_in_bulk_with(its, own):
    book = Book(title="x", shelf_id=its.shelf.pk)
    book._state.fields_cache["shelf"] = its.shelf
    Book.objects.bulk_create([book])


@use
def updated_in_bulk_with(its, own):
    own.book._state.fields_cache["shelf"] = its.shelf
    Book.objects.bulk_update([own.book], ["shelf"])


@use
def saved_with_a_memoised_relation(its, own):
    own.book._state.fields_cache["shelf"] = its.shelf
    own.book.save()


@use
def saved_as_new_without_its_origin(its, own):
    copied = its.book
    assert copied.shelf  # which is memoised
    copied.pk, copied._state.adding, copied._state.db = None, True, None
    copied.save()


@use
def saved_with_a_state_of_its_own(its, own):
    copied = Shelf(pk=its.shelf.pk, name="x")
    copied._state = its.shelf._state
    copied.save()


@use
def saved_by_its_base(its, own):
    Model.save_base(its.shelf, raw=True)


@use
def saved_by_its_base_and_the_literal_alias(its, own):
    its.shelf.save_base(using="default")


@use
def saved_as_deserialized(its, own):
    DeserializedObject(its.shelf).save()


@use
def saved_in_positions(its, own):
    with warnings.catch_warnings():  # until Django 6.0
        warnings.simplefilter("ignore")
        its.shelf.save(False, False, "default") if django.VERSION < (6,) else its.shelf.save(using="default")


@use
def many_to_many_added(its, own):
    own.user.groups.add(its.group)


@use
def many_to_many_removed(its, own):
    own.user.groups.remove(its.group)


@use
def many_to_many_set(its, own):
    own.user.groups.set([its.group])


@use
def many_to_many_set_of_a_generator(its, own):
    own.user.groups.set(objs=(group for group in [its.group]))


@use
def many_to_many_set_clearing(its, own):
    own.user.groups.set([its.group], clear=True)


@use
def many_to_many_from_the_other_side(its, own):
    own.group.user_set.remove(its.user)


@use
def many_to_many_to_itself(its, own):
    own.place.neighbours.remove(its.place)


@use
def many_to_many_through_defaults(its, own):
    own.place.visitors.add(own.tag, through_defaults={"book": its.book})


@use
def many_to_many_created_through_defaults(its, own):
    own.place.visitors.create(name="x", content_object=own.place, through_defaults={"book": its.book})


@use
def many_to_many_set_through_defaults(its, own):
    own.place.visitors.set([own.tag], through_defaults={"book": its.book})


@use
def many_to_many_of_another_manager(its, own):
    own.user.groups(manager="objects").remove(its.group)


@use
def reverse_added(its, own):
    own.place.visit_set.add(its.visit)


@use
def reverse_added_one_by_one(its, own):
    own.place.visit_set.add(its.visit, bulk=False)


@use
def reverse_removed(its, own):
    own.place.visit_set.remove(its.visit)


@use
def reverse_removed_one_by_one(its, own):
    own.place.visit_set.remove(its.visit, bulk=False)


@use
def reverse_set(its, own):
    own.place.visit_set.set([its.visit])


@use
def reverse_created_with(its, own):
    own.place.visit_set.create(book=its.book)


@use
def reverse_updated_with(its, own):
    own.place.visit_set.update(book=its.book)


@use
def generic_added(its, own):
    own.place.tags.add(its.tag)


@use
def generic_removed(its, own):
    own.place.tags.remove(its.tag)


@use
def generic_removed_one_by_one(its, own):
    own.place.tags.remove(its.tag, bulk=False)


@use
def generic_set(its, own):
    own.place.tags.set([its.tag])


@use
def generic_created(its, own):
    Tag.objects.create(name="x", content_object=its.place)


@use
def generic_relation_of_it(its, own):
    its.place.tags.create(name="x")


@use
def collected(its, own):
    collector = Collector(using="default")
    collector.collect([its.shelf])
    collector.delete()


@use
def collected_by_the_own_alias(its, own):
    Collector(using=connection.alias).collect([own.shelf, its.shelf])


@use
def collected_by_the_admin(its, own):
    NestedObjects(using="default").collect([its.shelf])


@use
def collected_one_by_one(its, own):
    Collector(using="default").add([its.shelf])


@use
def deleted_in_positions(its, own):
    its.shelf.delete("default")


@use
def order_set(its, own):
    its.place.set_visit_order([2, 1])


# --- what reads ---


@use
def contained(its, own):
    Shelf.objects.contains(its.shelf)


@use
def contained_in_what_was_read(its, own):
    shelves = Shelf.objects.all()
    shelves._result_cache = [own.shelf]
    shelves.contains(its.shelf)


@use
def contained_in_a_related_manager(its, own):
    own.user.groups.contains(its.group)


@use
def excluded(its, own):
    list(Book.objects.exclude(shelf=its.shelf))


@use
def looked_up_among_others(its, own):
    list(Book.objects.filter(shelf__in=iter([own.shelf, its.shelf])))


@use
def looked_up_greater(its, own):
    list(Book.objects.filter(shelf__gt=its.shelf))


@use
def looked_up_by_a_q(its, own):
    Book.objects.filter(~Q(title="x") | Q(shelf=its.shelf)).exists()


@use
def looked_up_backwards(its, own):
    Shelf.objects.get(book=its.book)


@use
def looked_up_through_a_many_to_many(its, own):
    list(User.objects.filter(groups__in=[its.group]))


@use
def looked_up_through_a_generic_relation(its, own):
    list(Place.objects.filter(tags=its.tag))


@use
def looked_up_by_a_parent(its, own):
    Restaurant.objects.get(place_ptr=its.place)


@use
def looked_up_by_a_primary_key_that_is_a_relation(its, own):
    Restaurant.objects.get(pk=its.place)


@use
def looked_up_in_a_condition(its, own):
    list(Book.objects.annotate(x=Case(When(shelf=its.shelf, then=Value(1)), default=Value(0))))


@use
def looked_up_in_a_subquery(its, own):
    list(Shelf.objects.filter(Exists(Book.objects.filter(shelf=its.shelf))))


@use
def looked_up_in_an_aggregate(its, own):
    Shelf.objects.aggregate(x=Count("book", filter=Q(book=its.book)))


@use
def found_in_bulk(its, own):
    Restaurant.objects.in_bulk([its.place])


@use
def found_or_404(its, own):
    get_object_or_404(Book, shelf=its.shelf)


@use
def found_or_404_as_a_list(its, own):
    get_list_or_404(Book, shelf=its.shelf)


@use
def found_or_404_in_its_manager(its, own):
    get_object_or_404(its.shelf.book_set, id=1)


@use
def prefetched_beside_an_own_one(its, own):
    prefetch_related_objects([own.visit, its.visit], "place")


@use
def prefetched_by_the_literal_alias(its, own):
    prefetch_related_objects([its.shelf], Prefetch("book_set", queryset=Book.objects.using("default")))


@use
def prefetched_generically(its, own):
    prefetch_related_objects([its.tag_of_a_note], "content_object")


@use
def reverse_one_to_one(its, own):
    its.place.restaurant.stars  # noqa: B018


@use
def next_in_order(its, own):
    its.visit.get_next_in_order()


@use
def order_got(its, own):
    list(its.place.get_visit_order())


@use
def content_type_of_it_with_its_key(its, own):
    ContentType.objects.get_for_model(its.place)


@use
def validated(its, own):
    its.note.full_clean()


@use
def validated_as_unique(its, own):
    its.note.validate_unique()


@use
def edited_in_a_form(its, own):
    forms.modelform_factory(Note, fields=["text"])(instance=its.note)


@use
def edited_inline(its, own):
    list(forms.inlineformset_factory(Shelf, Book, fields=["title"])(instance=its.shelf).queryset)


@use
def edited_inline_generically(its, own):
    list(generic_inlineformset_factory(Tag, fields=["name"])(instance=its.place).queryset)


@use
def edited_in_a_formset(its, own):
    forms.modelformset_factory(Note, fields=["text"])(queryset=its.notes).as_p()


@use
def chosen(its, own):
    forms.ModelChoiceField(Shelf.objects.all()).clean(its.shelf)


@use
def chosen_among_several(its, own):
    forms.ModelMultipleChoiceField(Shelf.objects.all()).clean([its.shelf])


@use
def chosen_at_first(its, own):
    class Form(forms.Form):
        shelf = forms.ModelChoiceField(Shelf.objects.all(), initial=its.shelf)

    Form()["shelf"].value()


@use
def refreshed_in_positions(its, own):
    its.shelf.refresh_from_db("default")


def _everything():
    through = (User.groups.through, Place.neighbours.through)
    return [list(model.objects.order_by("pk").values()) for model in (Shelf, Book, Place, Tag, Visit, Note, *through)]


def _tried(function, sent):
    """What comes of using instances of ``a`` under ``b``; ``sent`` is told the statements that ``b`` was sent."""
    with tenant_context_bind("a.test"):
        its = Rows()
        assert its.book.shelf
    with tenant_context_bind("b.test"):
        own = Rows()
        with CaptureQueriesContext(connection) as captured:
            try:
                return f"was allowed: {function(its, own)}"
            except TenantMismatch:
                return "refused"
            except Exception as error:
                return repr(error)
            finally:
                sent += [query["sql"] for query in captured.captured_queries]


def test_refused_before_any_sql(pair):
    with tenant_context_bind("b.test"):
        before = _everything()
    sent = []
    assert {name: found for name, function in USES.items() if (found := _tried(function, sent)) != "refused"} == {}
    assert sent == []
    with tenant_context_bind("b.test"):
        assert _everything() == before


def test_the_tenant_of_the_instances_may(pair):
    """The same uses where the instances come from: whatever Django says, it is no mismatch."""
    found = {}
    for name, function in USES.items():
        with tenant_context_bind("a.test"), transaction.atomic():
            its, own = Rows(), Rows()
            try:
                function(its, own)
            except (TenantMismatch, TypeError, AttributeError) as error:
                found[name] = repr(error)
            except Exception:  # an IntegrityError, or Django's own refusal
                pass
            transaction.set_rollback(True)
    assert found == {}


ASYNCHRONOUS = {
    "update": lambda its, own: Book.objects.aupdate(shelf=its.shelf),
    "add": lambda its, own: own.user.groups.aadd(its.group),
    "remove": lambda its, own: own.user.groups.aremove(its.group),
    "set": lambda its, own: own.user.groups.aset([its.group]),
    "generic remove": lambda its, own: own.place.tags.aremove(its.tag),
    "contains": lambda its, own: Shelf.objects.acontains(its.shelf),
    "save": lambda its, own: its.shelf.asave(),
    "delete": lambda its, own: its.shelf.adelete(),
    "refresh": lambda its, own: its.shelf.arefresh_from_db(),
    "get": lambda its, own: Book.objects.aget(shelf=its.shelf),
    "in_bulk": lambda its, own: Restaurant.objects.ain_bulk([its.place]),
    "bulk_update": lambda its, own: Shelf.objects.abulk_update([its.shelf], ["name"]),
    "get_object_or_404": lambda its, own: aget_object_or_404(Book, shelf=its.shelf),
}


def test_asynchronous_twins_are_refused(pair):
    async def tried(function, its, own):
        try:
            return f"was allowed: {await function(its, own)}"
        except TenantMismatch:
            return "refused"

    async def all_of_them(its, own):
        found = {name: await tried(function, its, own) for name, function in ASYNCHRONOUS.items()}
        await sync_to_async(connections.close_all)()
        return {name: what for name, what in found.items() if what != "refused"}

    with tenant_context_bind("a.test"):
        its = Rows()
    with tenant_context_bind("b.test"):
        own, before = Rows(), _everything()
        assert asyncio.run(all_of_them(its, own)) == {}
        assert _everything() == before


# --- nobody bound, and an alias that names another tenant ---

BY_ALIAS = {
    "save": lambda its: its.shelf.save(using="b.test_default"),
    "delete": lambda its: its.shelf.delete(using="b.test_default"),
    "refresh": lambda its: its.shelf.refresh_from_db(using="b.test_default"),
    **(
        {"refresh from": lambda its: its.shelf.refresh_from_db(from_queryset=Shelf.objects.using("b.test_default"))}
        if django.VERSION >= (5, 1)
        else {}
    ),
    "update": lambda its: Book.objects.using("b.test_default").update(shelf=its.shelf),
    "contains": lambda its: Shelf.objects.using("b.test_default").contains(its.shelf),
    "bulk_create": lambda its: Shelf.objects.using("b.test_default").bulk_create([its.shelf]),
    "collect": lambda its: Collector(using="b.test_default").collect([its.shelf]),
    "filter": lambda its: list(Book.objects.using("b.test_default").filter(shelf=its.shelf)),
    "filter in": lambda its: list(Book.objects.using("b.test_default").filter(shelf__in=[its.shelf])),
}


def test_refused_where_nobody_is_bound_and_an_alias_names_another_tenant(pair):
    with tenant_context_bind("a.test"):
        its = Rows()
    before = [list(model.objects.using("b.test_default").values()) for model in (Shelf, Book)]
    for function in BY_ALIAS.values():
        with CaptureQueriesContext(connections["b.test_default"]) as captured, pytest.raises(TenantMismatch):
            function(its)
        assert len(captured) == 0
    assert [list(model.objects.using("b.test_default").values()) for model in (Shelf, Book)] == before


def test_instances_of_two_tenants_in_one_lookup_are_refused(pair):
    with tenant_context_bind("a.test"):
        of_a = Shelf.objects.get()
    with tenant_context_bind("b.test"):
        of_b = Shelf.objects.get()
    with pytest.raises(TenantMismatch, match=r"a\.test, b\.test"):
        Book.objects.filter(shelf__in=[of_a, of_b])


# --- what was prepared under one tenant and is used under another ---

PREPARED = {
    "many to many": lambda its: its.user.groups.all(),
    "many to many, refined": lambda its: its.user.groups.exclude(name="x"),
    "many to many, backwards": lambda its: its.group.user_set.all(),
    "generic": lambda its: its.place.tags.filter(name__startswith="of"),
}
USED = {
    "in a subquery": lambda rows: list(rows.model.objects.filter(pk__in=rows)),
    "in a subquery of values": lambda rows: list(rows.model.objects.exclude(pk__in=rows.values("pk"))),
    "in Exists": lambda rows: list(rows.model.objects.filter(Exists(rows.filter(pk=OuterRef("pk"))))),
    "in a union": lambda rows: list(rows.model.objects.all().union(rows)),
    "beside others": lambda rows: list(rows | rows.model.objects.all()),
    "by the literal alias": lambda rows: list(rows.using("default")),
    "counted": lambda rows: rows.using("default").count(),
    "updated": lambda rows: rows.using("default").update(id=7),
    "deleted": lambda rows: rows.using("default").delete(),
    "copied": lambda rows: list(_with_query(rows.model.objects.all(), copy.deepcopy(rows.query))),
}


def _with_query(queryset, query):
    queryset.query = query
    return queryset


@pytest.mark.parametrize("use", USED.values(), ids=USED)
@pytest.mark.parametrize("prepare", PREPARED.values(), ids=PREPARED)
def test_rows_of_a_related_manager_are_asked_of_its_tenant_alone(pair, prepare, use):
    with tenant_context_bind("a.test"):
        rows = prepare(Rows())
    with tenant_context_bind("b.test"):
        before = _everything()
        with CaptureQueriesContext(connection) as captured, pytest.raises(TenantMismatch):
            use(rows)
        assert {query["sql"] for query in captured} <= {"BEGIN", "ROLLBACK"}
        assert _everything() == before
    with tenant_context_bind("a.test"), transaction.atomic():
        with contextlib.suppress(IntegrityError):
            use(rows)
        transaction.set_rollback(True)


def test_the_condition_of_a_related_manager_is_no_sql(pair):
    with tenant_context_bind("a.test"):
        groups = User.objects.get(id=1).groups
        sql = str(groups.filter(name="x").query)
        assert sql.endswith('WHERE ("auth_user_groups"."user_id" = 1 AND "auth_group"."name" = x)')
        assert groups.annotate(n=Count("user")).filter(n__gt=0).values("name", "n").get() == {"name": "of a", "n": 1}
        assert groups.aggregate(n=Count("pk")) == {"n": 1}
        assert groups.filter(~Q(name="x")).exclude(name="y").distinct().count() == 1
        assert list(User.objects.filter(groups__in=groups.all()).prefetch_related("groups")) == [User.objects.get()]
        assert groups.filter(Q(name="x") ^ Q(name="of a")).exists()
        groups.set([])
        assert not groups.exists()


@pytest.mark.parametrize("collector", [Collector, NestedObjects])
def test_a_collector_deletes_where_its_instances_were_collected(pair, collector):
    collectors = [collector(using="default") for _ in range(2)]
    with tenant_context_bind("a.test"):
        its = Rows()
        for each, instance in zip(collectors, (its.note, its.shelf), strict=True):
            each.collect([instance])
    with tenant_context_bind("b.test"):
        before = _everything()
        for each in collectors:
            with pytest.raises(TenantMismatch):
                each.delete()
        assert _everything() == before
    with tenant_context_bind("a.test"):
        for each in collectors:
            each.delete()
        assert not Note.objects.filter(id=1).exists()
        assert not Shelf.objects.exists()


def test_users_are_not_asked_for_by_another_tenants_permission(pair):
    with tenant_context_bind("a.test"):
        permission = Permission.objects.get(codename="add_note")
        assert User.objects.with_perm(permission, backend=MODEL_BACKEND).get().username == "of a"
    with tenant_context_bind("b.test"):
        with pytest.raises(TenantMismatch):
            User.objects.with_perm(permission, backend=MODEL_BACKEND)
        assert not User.objects.with_perm("app.add_note", backend=MODEL_BACKEND).exists()


# --- lookups that outlive their tenant, and what is everybody's ---


@pytest.mark.parametrize("lookup", ["shelf", "shelf__in"])
def test_a_lookup_by_an_instance_is_answered_by_its_tenant_alone(pair, lookup):
    with tenant_context_bind("a.test"):
        shelf = Shelf.objects.get()
        books = Book.objects.filter(**{lookup: [shelf] if lookup.endswith("in") else shelf})
    with tenant_context_bind("b.test"):
        with CaptureQueriesContext(connection) as captured, pytest.raises(TenantMismatch):
            list(books)
        assert len(captured) == 0
    with tenant_context_bind("a.test"):
        assert [book.title for book in books] == ["of a"]


def test_deserialized_objects_stay_with_the_tenant_for_which_they_were_read(pair):
    with tenant_context_bind("a.test"):
        text = serializers.serialize("json", Shelf.objects.all())
        (read,) = serializers.deserialize("json", text)
    with tenant_context_bind("b.test"):
        with pytest.raises(TenantMismatch):
            read.save()
        assert Shelf.objects.get().name == "of b"
        for each in serializers.deserialize("json", text):  # its values, taken along
            each.save()
        assert Shelf.objects.get().name == "of a"


def test_central_instances_are_everybodys(pair):
    with connections["central"].schema_editor() as editor:
        editor.create_model(Plan)
    try:
        Plan.objects.create(id=1, name="central")
        with tenant_context_bind("a.test"):
            plan = Plan.objects.get()
        with tenant_context_bind("b.test"):
            assert Plan.objects.contains(plan)
            assert ContentType.objects.get_for_model(plan).model == "plan"
            assert forms.ModelChoiceField(Plan.objects.all()).clean(plan) == plan
            Plan.objects.bulk_update([plan], ["name"])
            prefetch_related_objects([plan])
            plan.full_clean()
            plan.delete()
    finally:
        with connections["central"].schema_editor() as editor:
            editor.delete_model(Plan)
