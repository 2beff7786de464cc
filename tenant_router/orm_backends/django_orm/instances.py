"""Another tenant's instance is refused wherever its primary key alone would be used, before any SQL.

Each guard stands where Django itself comes through (django/db/models, 4.2 to 6.0): asynchronous
methods call the synchronous ones, and the managers, forms and shortcuts call these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from django.apps import apps
from django.core.serializers.base import DeserializedObject
from django.db.models import Model, QuerySet, query
from django.db.models.deletion import Collector
from django.db.models.fields import related_descriptors
from django.db.models.fields.mixins import NOT_PROVIDED, FieldCacheMixin
from django.db.models.fields.related import RelatedField
from django.forms.models import BaseModelForm, ModelChoiceField

from tenant_router import context as _context
from tenant_router.context import TenantContext
from tenant_router.exceptions import TenantMismatch
from tenant_router.orm_backends.django_orm.ownership import own_alias, refuse_all_foreign, refuse_foreign

Replace = Callable[[Any, str, Any], None]
_TAKING_OBJECTS = ("add", "remove", "set", "create", "get_or_create", "update_or_create")


def install(replace: Replace) -> None:
    """Guard instances; ``replace`` sets an attribute and knows how to undo it."""
    replace(Model, "save_base", _saving(Model.save_base))  # which save() and deserialized objects call
    replace(Model, "refresh_from_db", _refreshing(Model.refresh_from_db))
    for name in ("validate_unique", "validate_constraints", "prepare_database_save", "_get_next_or_previous_in_order"):
        replace(Model, name, _of_own_tenant(getattr(Model, name)))
    replace(FieldCacheMixin, "get_cached_value", _memoised(FieldCacheMixin.get_cached_value))
    for name in ("bulk_create", "bulk_update"):
        replace(QuerySet, name, _each_of_own_tenant(getattr(QuerySet, name)))
    replace(QuerySet, "contains", _containing(QuerySet.contains))
    for name in ("update", "get_or_create", "update_or_create"):
        replace(QuerySet, name, _with_values(getattr(QuerySet, name)))
    # prefetch_related_objects() is imported by name; this is what it calls, and nothing before it sends SQL.
    replace(query, "prefetch_one_level", _prefetching(query.prefetch_one_level))
    replace(Collector, "add", _collecting(Collector.add))
    replace(DeserializedObject, "__init__", _deserialized(DeserializedObject.__init__))
    replace(DeserializedObject, "save", _of_the_same_tenant(DeserializedObject.save))
    replace(BaseModelForm, "__init__", _form(BaseModelForm.__init__))
    replace(ModelChoiceField, "to_python", _choosing(ModelChoiceField.to_python))
    replace(ModelChoiceField, "prepare_value", _prepare_value)
    for name in ("create_reverse_many_to_one_manager", "create_forward_many_to_many_manager"):
        replace(related_descriptors, name, guarded_managers(getattr(related_descriptors, name)))
    # Of reverse one-to-one relations, and of order_with_respect_to, which asks no router.
    replace(RelatedField, "get_forward_related_filter", _filtering(RelatedField.get_forward_related_filter))
    forget_related_managers()


def guarded_managers(factory: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a factory of classes of related managers, so that each method that takes instances checks them first."""

    @wraps(factory)
    def create(*args: Any, **kwargs: Any) -> Any:
        made = factory(*args, **kwargs)
        for name in _TAKING_OBJECTS:
            if name in vars(made):
                setattr(made, name, _with_objects(vars(made)[name]))
        return made

    return create


def forget_related_managers() -> None:
    """Have the classes of related managers made anew: each descriptor keeps the one that it has made first."""
    for model in apps.get_models(include_auto_created=True):
        for attribute in vars(model).values():
            if isinstance(attribute, related_descriptors.ReverseManyToOneDescriptor):
                attribute.__dict__.pop("related_manager_cls", None)


# --- instances ---


def _saving(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def save_base(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Checks the instance, and the related ones whose keys are its values."""
        own, state, using = _own_aliases(), self._state.__dict__, kwargs.get("using")
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
        refuse_foreign(self, using)
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


def _own_aliases() -> Any:
    bound = _context.stack.get() or _context.ambient
    return bound[-1].parts["django_orm"] if bound and not isinstance(bound[-1], _context.DeniedContext) else ()


# --- querysets and managers ---


def _each_of_own_tenant(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def bulk(self: Any, objs: Any, *args: Any, **kwargs: Any) -> Any:
        objs, own = list(objs), _own_aliases()
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


def _values(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Any]:
    """The arguments, and what is in those that are dictionaries: ``defaults``, ``through_defaults``."""
    for value in (*args, *kwargs.values()):
        yield value
        if isinstance(value, dict):
            yield from value.values()


def _prefetching(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def prefetch_one_level(instances: Any, *args: Any) -> Any:
        own = _own_aliases()
        for instance in instances:
            if instance._state.__dict__.get("db") not in own:
                refuse_foreign(instance, kept=True)
        return original(instances, *args)

    return prefetch_one_level


def _collecting(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def add(self: Any, objs: Any, *args: Any, **kwargs: Any) -> Any:
        own = _own_aliases()
        for instance in objs:
            if instance._state.__dict__.get("db") not in own:
                refuse_foreign(instance, self.using)
        return original(self, objs, *args, **kwargs)

    return add


# --- serializers and forms ---


def _deserialized(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        bound = _context.current()
        self._tenant_router_owner = bound.id if bound else None

    return __init__


def _of_the_same_tenant(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def save(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Natural keys were looked up in the database of the tenant under which it was read."""
        owner, bound = self._tenant_router_owner, _context.current()
        if owner and bound and owner != bound.id:
            raise TenantMismatch(f"{self!r}, deserialized for tenant {owner!r}, is saved under tenant {bound.id!r}")
        return original(self, *args, **kwargs)

    return save


def _form(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        refuse_foreign(self.instance)

    return __init__


def _choosing(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def to_python(self: Any, value: Any) -> Any:
        refuse_foreign(value, kept=True)
        return original(self, value)

    return to_python


def _prepare_value(self: Any, value: Any) -> Any:
    """``ModelChoiceField.prepare_value`` (django/forms/models.py), called for each choice: it makes no more calls."""
    if not hasattr(value, "_meta"):
        return super(ModelChoiceField, self).prepare_value(value)
    bound = _context.stack.get() or _context.ambient
    if bound and (
        bound[-1].__class__ is not TenantContext or value._state.__dict__.get("db") not in bound[-1].parts["django_orm"]
    ):
        refuse_foreign(value, kept=True)
    return value.serializable_value(self.to_field_name) if self.to_field_name else value.pk
