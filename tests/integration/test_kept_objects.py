"""Content types and the site that code keeps for the whole process mean the same at each tenant."""

import copy
import pickle
import shutil
from functools import lru_cache

import pytest
from django import forms
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.contrib.sites.models import Site
from django.db import connection, router
from django.db.models import Case, Q, Value, When, prefetch_related_objects
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from tenant_router import context
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantMismatch
from tests.app.models import Counter, Note
from tests.isolation_models import Place, Tag


def _kept_from(tenant_id, model=Note):
    with tenant_context_bind(tenant_id):
        return ContentType.objects.get_for_model(model)


@pytest.fixture
def kept(pair):
    """The content type of ``Note``, kept from ``a``: its key at ``b`` is another one, and its key at ``a`` is another
    content type's at ``b``.
    """
    found = _kept_from("a.test")
    with tenant_context_bind("b.test"):
        assert ContentType.objects.get_for_model(Counter).pk == found.__dict__["id"]
        ContentType.objects.clear_cache()
    return found


def test_its_key_is_the_bound_tenants(kept):
    with tenant_context_bind("b.test"):
        own = ContentType.objects.get(app_label="app", model="note")
        assert kept.pk == kept.id == kept.serializable_value("pk") == own.pk != kept.__dict__["id"]
        assert kept == own
        assert own == kept
        assert kept != ContentType.objects.get_for_model(Counter)
        assert hash(kept) == hash(own)
        assert {own: "found"}[kept] == "found"
        assert ContentType.objects.get_for_id(kept.pk).model == "note"
    with tenant_context_bind("a.test"):
        assert kept.pk == kept.__dict__["id"]
    assert kept.pk == kept.__dict__["id"]


def test_it_may_be_looked_up_with(kept):
    with tenant_context_bind("b.test"):
        (tag,) = Tag.objects.filter(content_type=kept)
        assert (tag.id, tag.name) == (2, "of b")
        assert Tag.objects.filter(content_type__in=[kept]).get() == tag
        assert Tag.objects.filter(Q(content_type=kept) & ~Q(id=9)).get() == tag
        assert Tag.objects.filter(content_type_id=kept.pk).get() == tag
        assert Tag.objects.exclude(content_type=kept).get().id == 1
        assert Tag.objects.annotate(x=Case(When(content_type=kept, then=Value(1)), default=Value(0))).get(x=1) == tag
        assert ContentType.objects.get(pk=kept.pk) == kept
        assert ContentType.objects.contains(kept)
        permissions = Permission.objects.filter(content_type=kept).select_related("content_type")
        assert [permission.content_type.model for permission in permissions] == ["note"] * 4
        assert set(kept.permission_set.all()) == set(permissions)
        assert kept.get_object_for_this_type(id=1).text == "of b"
        assert [note.text for note in kept.get_all_objects_for_this_type()] == ["of b"]
        assert forms.ModelChoiceField(ContentType.objects.all()).clean(kept) == kept


def test_it_may_be_assigned(kept):
    with tenant_context_bind("b.test"):
        key = ContentType.objects.get_for_model(Note).pk
        made = Tag.objects.create(name="x", content_type=kept, object_id=1)
        assert (made._state.db, made.content_type_id, made.content_object.text) == ("b.test_default", key, "of b")
        tag = Tag.objects.get(id=1)
        tag.content_type = kept
        tag.save()
        assert Tag.objects.get(id=1).content_type_id == key
        Tag.objects.update(content_type=kept)
        assert set(Tag.objects.values_list("content_type", flat=True)) == {key}
        Tag.objects.bulk_create([Tag(name="y", content_type=kept, object_id=1)])
        Tag.objects.bulk_update([tag], ["content_type"])
        found, created = Tag.objects.get_or_create(name="z", defaults={"content_type": kept, "object_id": 1})
        assert (created, found.content_type_id) == (True, key)
        assert router.allow_relation(kept, tag)
        made.delete()
    with tenant_context_bind("a.test"):
        assert Tag.objects.count() == 2


def test_it_costs_one_query_for_each_database(kept):
    for number in (1, 0):
        with tenant_context_bind("b.test"):
            with CaptureQueriesContext(connection) as captured:
                assert kept.pk == kept.id
            assert len(captured) == number


def test_the_own_tenants_cost_none(pair):
    with tenant_context_bind("a.test"):
        kept = ContentType.objects.get_for_model(Note)
        with CaptureQueriesContext(connection) as captured:
            assert len({each.pk for each in ContentType.objects.all()}) == len({*ContentType.objects.all()})
            made = ContentType.objects.create(app_label="app", model="made")
            assert made.pk
            assert made in {made}
            assert kept.pk
        assert len(captured) == 3


def test_a_tenant_that_has_none_is_a_clear_error(pair):
    with tenant_context_bind("b.test"):
        kept = ContentType.objects.get(model="earlier")
    with tenant_context_bind("a.test"):
        with pytest.raises(
            TenantMismatch, match=r"'isolation\.earlier' was kept from 'b\.test_default'.*'a\.test' has none"
        ):
            Tag.objects.filter(content_type=kept)
        with pytest.raises(TenantMismatch):
            kept.pk  # noqa: B018
    assert kept.pk


def test_as_a_row_it_stays_its_own_tenants(kept):
    with tenant_context_bind("b.test"):
        assert kept.pk
        for use in (
            kept.save,
            kept.delete,
            kept.refresh_from_db,
            lambda: kept.save(using="default"),
            lambda: ContentType.objects.bulk_update([kept], ["model"]),
            lambda: ContentType.objects.bulk_create([kept]),
        ):
            with CaptureQueriesContext(connection) as captured, pytest.raises(TenantMismatch):
                use()
            assert len(captured) == 0


@pytest.mark.parametrize("carry", [copy.copy, copy.deepcopy, lambda kept: pickle.loads(pickle.dumps(kept))])
def test_copies_are_kept_too(kept, carry):
    with tenant_context_bind("b.test"):
        copied = carry(kept)
        assert copied.pk == kept.pk == ContentType.objects.get(app_label="app", model="note").pk
        assert copied == kept
    with tenant_context_bind("a.test"):
        assert carry(copied).pk == kept.__dict__["id"]


def test_it_is_kept_within_what_was_selected_with_it(kept):
    """The content type of a permission that another tenant's request has loaded, as caches of permissions hold them."""
    with tenant_context_bind("a.test"):
        loaded = Permission.objects.select_related("content_type").get(codename="add_note").content_type
    with tenant_context_bind("b.test"):
        assert Tag.objects.get(content_type=loaded).id == 2


def test_a_queryset_with_it_is_answered_by_whoever_is_bound(kept):
    @lru_cache
    def tags():
        return Tag.objects.filter(content_type=kept), Tag.objects.filter(content_type__in=[kept])

    for letter in "abab":
        with tenant_context_bind(f"{letter}.test"):
            for queryset in tags():
                assert [(tag.id, tag.name) for tag in queryset.all()] == [(2, f"of {letter}")]


def test_prefetching_and_following_it(kept):
    with tenant_context_bind("b.test"):
        prefetch_related_objects([kept], "permission_set")
        assert kept.permission_set.count() == 4
        tag = Tag(name="x", content_type=kept, object_id=1)
        assert tag.content_type is kept
        assert tag.content_object.text == "of b"


def test_its_tenant_may_be_deleted(pair):
    pair.put("c.test")
    shutil.copy(pair.directory / "a.test.db", pair.directory / "c.test.db")
    pair.arrived("c.test")
    kept = _kept_from("c.test")
    pair.arrived("c.test", pair.delete("c.test"))
    with tenant_context_bind("b.test"):
        assert Tag.objects.get(content_type=kept).id == 2


def test_after_a_change_it_is_the_new_databases(pair):
    """The same tenant and alias, and a database in which the keys are others."""
    kept = _kept_from("a.test")
    with tenant_context_bind("a.test"):
        old = context.current()
        pair.arrived("a.test", pair.put("a.test", pair.record("b.test")))
        assert kept.pk == kept.__dict__["id"]  # this unit of work goes on where it began
    pair.delete("b.test")
    with tenant_context_bind("a.test"):
        assert context.current() is not old
        assert kept.pk == ContentType.objects.get(app_label="app", model="note").pk != kept.__dict__["id"]
        assert Tag.objects.get(content_type=kept).id == 2


def test_where_nobody_is_bound_nothing_is_kept_by_alias_alone(pair):
    """Neither content types nor sites: after a change, and at another tenant, the alias leads elsewhere."""
    types, sites = ContentType.objects.db_manager("a.test_default"), Site.objects.db_manager("a.test_default")
    key = types.get_for_model(Note).pk
    assert types.get_for_id(key).model == "note"
    with tenant_context_bind("b.test"):
        Site.objects.filter(pk=1).update(domain="of.b")
    assert sites.get_current().domain == "example.com"
    assert Site.objects.db_manager("b.test_default").get_current().domain == "of.b"
    pair.arrived("a.test", pair.put("a.test", pair.record("b.test")))
    assert types.get_for_model(Note).pk != key
    assert types.get_for_id(key).model == "counter"
    assert sites.get_current().domain == "of.b"


def test_the_site_of_the_settings_is_kept(pair):
    with tenant_context_bind("a.test"):
        kept = Site.objects.get_current()
        other = Site.objects.create(id=7, domain="other", name="x")
    with tenant_context_bind("b.test"):
        Site.objects.create(id=7, domain="of.b", name="x")
        own = Site.objects.get_current()
        assert (kept.pk, kept, hash(kept)) == (own.pk, own, hash(own))
        assert Site.objects.contains(kept)
        assert router.allow_relation(kept, own)
        assert forms.ModelChoiceField(Site.objects.all()).clean(kept).domain == own.domain
        for use in (kept.save, kept.delete, kept.refresh_from_db, lambda: Site.objects.contains(other), other.save):
            with CaptureQueriesContext(connection) as captured, pytest.raises(TenantMismatch):
                use()
            assert len(captured) == 0
        with override_settings(SITE_ID=7):
            assert not router.allow_relation(other, own)  # it was not that of the settings when it was loaded


def test_contents_of_a_content_type_are_loaded_when_they_are_deferred(pair):
    with tenant_context_bind("a.test"):
        kept = ContentType.objects.only("app_label").get(app_label="app", model="note")
        assert kept.model == "note"
        assert kept.pk == ContentType.objects.get_for_model(Note).pk
        assert Place.objects.filter(tags__content_type=kept).count() == 0
