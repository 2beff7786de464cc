"""Instances that Django and packages keep for the whole process: content types, and the site of ``SITE_ID``.

They are values more than rows. ``ContentType.objects.get_for_model(Note)`` in a module's
variable, an ``lru_cache`` or a ``cached_property`` means "the content type of Note" wherever
it is used, so its key is the bound tenant's: ``pk``, comparisons, lookups and assignments. As
a row (saved, deleted, refreshed) it stays its own tenant's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db.models import Model
from django.db.models.base import ModelState

from tenant_router import context as _context
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantMismatch
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.django_orm.databases import Database
from tenant_router.orm_backends.django_orm.ownership import refuse_foreign
from tenant_router.orm_backends.django_orm.per_database import PerAlias, PerDatabase, database_of

Replace = Callable[[Any, str, Any], None]
_READ_FROM = "read_from"  # of a KeptState: the template, and the token, of the database that the instance was read from


def install(replace: Replace) -> None:
    """Translate what is kept; ``replace`` sets an attribute and knows how to undo it."""
    if apps.is_installed("django.contrib.contenttypes"):
        _install_content_types(replace)
    if apps.is_installed("django.contrib.sites"):
        _install_sites(replace)


class _Origin:
    """``db`` of a kept instance's state: the bound tenant's database of the template that it was read from."""

    def __get__(self, state: Any, owner: type) -> Any:
        if state is None:
            return None
        database = _now(state)
        return state.__dict__.get("db") if database is None else database.alias

    def __set__(self, state: Any, alias: str | None) -> None:
        database = None if alias is None else database_of(alias)
        state.__dict__["db"] = alias if database is None else database.alias
        state.__dict__[_READ_FROM] = None if database is None else (database.template, database.token)


class KeptState(ModelState):
    """The state of an instance that means the same at each tenant."""

    is_kept = True
    db = _Origin()


def _now(state: Any) -> Database | None:
    """The bound tenant's database, if it is another one than that from which the instance was read."""
    read_from = state.__dict__.get(_READ_FROM)
    bound = _context.stack.get() or _context.ambient
    if read_from is None or not bound:
        return None
    database: Database | None = bound[-1].parts["django_orm"].get(read_from[0])
    return None if database is None or database.token == read_from[1] else database


# --- content types ---


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
        database = _now(state) if state.__class__ is KeptState else None
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


def _install_content_types(replace: Replace) -> None:
    from django.contrib.contenttypes import fields
    from django.contrib.contenttypes.models import ContentType, ContentTypeManager

    from tenant_router.orm_backends.django_orm.instances import guarded_managers

    replace(ContentTypeManager, "_cache", _ContentTypeCache())
    # Managers are copied (by db_manager(), and from local_managers when Django expires its caches): as with
    # Django's own dictionary, all copies share one cache, which so must be there before they are made.
    shared = PerAlias()
    for manager in (*ContentType._meta.local_managers, *ContentType._meta.managers):
        manager.__dict__["_tenant_router_cache"] = shared
    # Generic relations, foreign keys and forms come here with the instance whose key they are going to use.
    replace(ContentTypeManager, "get_for_model", _of_own_tenant(ContentTypeManager.get_for_model))
    replace(fields, "create_generic_related_manager", guarded_managers(fields.create_generic_related_manager))
    replace(ContentType, "__init__", _keeping(ContentType.__init__, lambda instance: True))
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


def _keeping(original: Callable[..., None], is_kept: Callable[[Any], bool]) -> Callable[..., None]:
    @wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if is_kept(self) and self._state.__class__ is ModelState:
            self._state.__class__ = KeptState

    return __init__


# --- sites ---


def _install_sites(replace: Replace) -> None:
    # SITE_CACHE (django/contrib/sites/models.py) is keyed by SITE_ID and host; clear_cache() binds the name anew.
    from django.contrib.sites import models

    replace(models, "SITE_CACHE", PerDatabase())
    replace(models.SiteManager, "clear_cache", lambda manager: models.SITE_CACHE.clear())
    for name in ("_get_site_by_id", "_get_site_by_request"):
        replace(models.SiteManager, name, _by_alias(getattr(models.SiteManager, name)))
    # Its natural key, the domain, differs between tenants: only the one that the settings name means the same.
    replace(models.Site, "__init__", _keeping(models.Site.__init__, _is_site_of_settings))


def _is_site_of_settings(site: Any) -> bool:
    return bool(site.__dict__.get("id") == getattr(settings, "SITE_ID", None))


def _by_alias(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def get_site(self: Any, asked: Any) -> Any:
        """Where nothing is bound, the tenant that the manager's alias names, whose site is kept with its database."""
        database = None if _context.current() is not None else database_of(self.db)
        if database is None:
            return original(self, asked)
        with tenant_context_bind(tenant_context_manager.get_in_any_state(database.tenant_id)):
            return original(self, asked)

    return get_site
