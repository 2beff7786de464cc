"""Another tenant's instance is refused wherever its primary key alone would be used, before any SQL.

Each guard stands where Django itself comes through (django/db/models, 4.2 to 6.0): asynchronous
methods call the synchronous ones, and the managers, forms and shortcuts call these.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.db.models import Model, query
from django.db.models.deletion import Collector
from django.db.models.fields.mixins import NOT_PROVIDED, FieldCacheMixin
from django.db.models.fields.related import RelatedField

from tenant_router import context as _context
from tenant_router.orm_backends.django_orm.ownership import own_alias, own_aliases, refuse_foreign
from tenant_router.tenant_context import TenantContext

Replace = Callable[[Any, str, Any], None]


def install(replace: Replace) -> None:
    """Guard instances; ``replace`` sets an attribute and knows how to undo it."""
    replace(Model, "save_base", _saving(Model.save_base))  # which save() and deserialized objects call
    replace(Model, "refresh_from_db", _refreshing(Model.refresh_from_db))
    for name in ("validate_unique", "validate_constraints", "prepare_database_save", "_get_next_or_previous_in_order"):
        replace(Model, name, _of_own_tenant(getattr(Model, name)))
    replace(FieldCacheMixin, "get_cached_value", _memoised(FieldCacheMixin.get_cached_value))
    # Of reverse one-to-one relations, and of order_with_respect_to, which asks no router.
    replace(RelatedField, "get_forward_related_filter", _filtering(RelatedField.get_forward_related_filter))
    # prefetch_related_objects() is imported by name; this is what it calls, and nothing before it sends SQL.
    replace(query, "prefetch_one_level", _prefetching(query.prefetch_one_level))
    replace(Collector, "add", _collecting(Collector.add))


def _saving(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def save_base(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Checks the instance, and the related ones whose keys are its values."""
        own, state, using = own_aliases(), self._state.__dict__, kwargs.get("using")
        origin = state.get("db")
        if origin not in own:
            refuse_foreign(self, using)
        elif using != origin and using is not None and own_alias(using) == origin:
            kwargs["update_fields"] = kwargs.get("update_fields") or _loaded_fields(self)
        for related in state.get("fields_cache", {}).values():
            if isinstance(related, Model) and related._state.__dict__.get("db") not in own:
                refuse_foreign(related, using, kept=True)
        return original(self, *args, **kwargs)

    return save_base


def _loaded_fields(instance: Model) -> frozenset[str] | None:
    """What a deferred instance saves. ``Model.save`` finds it, but compares the aliases of one database for that."""
    deferred = instance.get_deferred_fields()
    if not deferred:
        return None
    fields = instance._meta.concrete_fields
    return frozenset(field.attname for field in fields if not field.primary_key and field.attname not in deferred)


def _refreshing(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def refresh_from_db(self: Any, using: str | None = None, *args: Any, **kwargs: Any) -> Any:
        queryset = kwargs.get("from_queryset") if len(args) < 2 else args[1]  # since Django 5.1
        refuse_foreign(self, queryset._db if using is None and queryset is not None else using)
        return original(self, using, *args, **kwargs)

    return refresh_from_db


def _of_own_tenant(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def guarded(instance: Any, *args: Any, **kwargs: Any) -> Any:
        refuse_foreign(instance, kept=True)
        return original(instance, *args, **kwargs)

    return guarded


def _memoised(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def get_cached_value(self: Any, instance: Any, default: Any = NOT_PROVIDED) -> Any:
        bound = _context.stack.get() or _context.ambient
        # no call for what is the bound tenant's: each access to a relation comes here
        if bound and (
            bound[-1].__class__ is not TenantContext
            or instance._state.__dict__.get("db") not in bound[-1].parts["django_orm"]
        ):
            refuse_foreign(instance)
        return original(self, instance, default)

    return get_cached_value


def _filtering(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def get_forward_related_filter(self: Any, obj: Any) -> Any:
        refuse_foreign(obj, kept=True)
        return original(self, obj)

    return get_forward_related_filter


def _prefetching(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def prefetch_one_level(instances: Any, *args: Any) -> Any:
        own = own_aliases()
        for instance in instances:
            if instance._state.__dict__.get("db") not in own:
                refuse_foreign(instance, kept=True)
        return original(instances, *args)

    return prefetch_one_level


def _collecting(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def add(self: Any, objs: Any, *args: Any, **kwargs: Any) -> Any:
        """Checks what is to be deleted, and binds the collector to the tenant: ``delete()`` uses nothing but keys."""
        own = own_aliases()
        for instance in objs:
            if instance._state.__dict__.get("db") not in own:
                refuse_foreign(instance, self.using)
        if self.using in own:
            self.using = own[self.using].alias
        return original(self, objs, *args, **kwargs)

    return add
