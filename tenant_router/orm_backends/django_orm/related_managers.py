"""Methods of querysets and of related managers that take instances: another tenant's are refused before any SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from django.apps import apps
from django.db.models import Model, QuerySet
from django.db.models.fields import related_descriptors

from tenant_router.orm_backends.django_orm.lookups import bind_to_owner
from tenant_router.orm_backends.django_orm.ownership import own_aliases, refuse_all_foreign, refuse_foreign

Replace = Callable[[Any, str, Any], None]
_TAKING_OBJECTS = ("add", "remove", "set", "create", "get_or_create", "update_or_create")


def install(replace: Replace) -> None:
    """Guard the methods; ``replace`` sets an attribute and knows how to undo it."""
    for name in ("bulk_create", "bulk_update"):
        replace(QuerySet, name, _each_of_own_tenant(getattr(QuerySet, name)))
    replace(QuerySet, "contains", _containing(QuerySet.contains))
    for name in ("update", "get_or_create", "update_or_create"):
        replace(QuerySet, name, _with_values(getattr(QuerySet, name)))
    for name, by_key in (("create_reverse_many_to_one_manager", False), ("create_forward_many_to_many_manager", True)):
        replace(related_descriptors, name, guarded_managers(getattr(related_descriptors, name), by_key))
    forget_related_managers()


def guarded_managers(factory: Callable[..., Any], by_key: bool) -> Callable[..., Any]:
    """Wrap a factory of classes of related managers, so that each method that takes instances checks them first.

    ``by_key``: they filter by the key of their instance (``core_filters``), not by the instance itself.
    """

    @wraps(factory)
    def create(*args: Any, **kwargs: Any) -> Any:
        made = factory(*args, **kwargs)
        for name in _TAKING_OBJECTS:
            if name in vars(made):
                setattr(made, name, _with_objects(vars(made)[name]))
        if by_key:
            made._apply_rel_filters = _of_its_instance(made._apply_rel_filters)
        return made

    return create


def forget_related_managers() -> None:
    """Have the classes of related managers made anew: each descriptor keeps the one that it has made first."""
    for model in apps.get_models(include_auto_created=True):
        for attribute in vars(model).values():
            if isinstance(attribute, related_descriptors.ReverseManyToOneDescriptor):
                attribute.__dict__.pop("related_manager_cls", None)


def _each_of_own_tenant(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def bulk(self: Any, objs: Any, *args: Any, **kwargs: Any) -> Any:
        objs, own = list(objs), own_aliases()
        for instance in objs:
            for each in (instance, *instance._state.__dict__.get("fields_cache", {}).values()):
                if isinstance(each, Model) and each._state.__dict__.get("db") not in own:
                    refuse_foreign(each, self._db, kept=each is not instance)
        return original(self, objs, *args, **kwargs)

    return bulk


def _containing(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def contains(self: Any, obj: Any) -> Any:
        refuse_foreign(obj, self._db, kept=True)
        return original(self, obj)

    return contains


def _with_values(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        refuse_all_foreign(_values(args, kwargs), self._db)
        return original(self, *args, **kwargs)

    return method


def _with_objects(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if original.__name__ == "set":
            objs = list(kwargs.pop("objs") if "objs" in kwargs else args[0])
            refuse_all_foreign(objs, self.instance._state.db)
            args = (objs, *args[1:])
        refuse_all_foreign(_values(args, kwargs), self.instance._state.db)
        return original(self, *args, **kwargs)

    return method


def _of_its_instance(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def _apply_rel_filters(self: Any, queryset: Any) -> Any:
        filtered = original(self, queryset)
        bind_to_owner(filtered, self.instance)
        return filtered

    return _apply_rel_filters


def _values(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
    """The arguments, and what is in those that are dictionaries: ``defaults``, ``through_defaults``."""
    for value in (*args, *kwargs.values()):
        yield value
        if isinstance(value, dict):
            yield from value.values()
