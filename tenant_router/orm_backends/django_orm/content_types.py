"""Content types: each database's are kept apart, and one that code keeps has the key of the bound tenant's."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.db.models import Model

from tenant_router.exceptions import TenantMismatch
from tenant_router.orm_backends.django_orm.databases import Database
from tenant_router.orm_backends.django_orm.kept import KeptState, database_now, keeping
from tenant_router.orm_backends.django_orm.ownership import refuse_foreign
from tenant_router.orm_backends.django_orm.per_database import PerAlias
from tenant_router.orm_backends.django_orm.related_managers import guarded_managers

Replace = Callable[[Any, str, Any], None]


class _ContentTypeKey:
    """``ContentType.id``: of the bound tenant, by the natural key. One query for each database, which Django caches."""

    def __init__(self, original: Any) -> None:
        self._original = original  # Django's own, which loads what was deferred

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self._original
        if "id" not in instance.__dict__:
            return self._original.__get__(instance, owner)
        state = instance._state
        database = database_now(state) if state.__class__ is KeptState else None
        return instance.__dict__["id"] if database is None else _key_at(database, instance)

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__["id"] = value


def _key_at(database: Database, instance: Any) -> Any:
    model = type(instance)
    try:
        found = model.objects.db_manager(database.alias).get_by_natural_key(*instance.natural_key())
    except model.DoesNotExist:
        raise TenantMismatch(
            f"content type {'.'.join(instance.natural_key())!r} was kept from {instance._state.__dict__['db']!r}, "
            f"and tenant {database.tenant_id!r} has none"
        ) from None
    return found.__dict__["id"]


def _equal(self: Any, other: object) -> Any:
    """``Model.__eq__`` (django/db/models/base.py), by the natural key."""
    if not isinstance(other, Model):
        return NotImplemented
    if self._meta.concrete_model != other._meta.concrete_model:
        return False
    if self.__dict__.get("id") is None or other.__dict__.get("id") is None:
        return self is other
    return self.natural_key() == other.natural_key()  # type: ignore[attr-defined]


def _hash(self: Any) -> int:
    if self.__dict__.get("id") is None:
        raise TypeError("Model instances without primary key value are unhashable")
    return hash(self.natural_key())


class _ContentTypeCache:
    """``ContentTypeManager._cache`` (django/contrib/contenttypes/models.py), set on each manager in ``__init__``."""

    def __get__(self, manager: Any, owner: type) -> Any:
        if manager is None:
            return self
        return manager.__dict__.setdefault("_tenant_router_cache", PerAlias())

    def __set__(self, manager: Any, value: Any) -> None:
        manager.__dict__["_tenant_router_cache"] = PerAlias()


def install(replace: Replace) -> None:
    """Translate content types; ``replace`` sets an attribute and knows how to undo it."""
    from django.contrib.contenttypes import fields
    from django.contrib.contenttypes.models import ContentType, ContentTypeManager

    replace(ContentTypeManager, "_cache", _ContentTypeCache())
    # Managers are copied (by db_manager(), and from local_managers when Django expires its caches): as with
    # Django's own dictionary, all copies share one cache, which so must be there before they are made.
    shared = PerAlias()
    for manager in (*ContentType._meta.local_managers, *ContentType._meta.managers):
        manager.__dict__["_tenant_router_cache"] = shared
    # Generic relations, foreign keys and forms come here with the instance whose key they are going to use.
    replace(ContentTypeManager, "get_for_model", _of_own_tenant(ContentTypeManager.get_for_model))
    replace(
        fields, "create_generic_related_manager", guarded_managers(fields.create_generic_related_manager, by_key=True)
    )
    replace(ContentType, "__init__", keeping(ContentType.__init__, lambda instance: True))
    replace(ContentType, "id", _ContentTypeKey(vars(ContentType)["id"]))
    replace(ContentType, "__eq__", _equal)
    replace(ContentType, "__hash__", _hash)


def _of_own_tenant(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def get_for_model(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(model, Model):
            refuse_foreign(model, kept=True)
        return original(self, model, *args, **kwargs)

    return get_for_model
