"""Instances in forms, and deserialized objects: another tenant's are refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.core.serializers.base import DeserializedObject
from django.forms.models import BaseModelForm, ModelChoiceField

from tenant_router import context as _context
from tenant_router.exceptions import TenantMismatch
from tenant_router.orm_backends.django_orm.ownership import refuse_foreign
from tenant_router.tenant_context import TenantContext

Replace = Callable[[Any, str, Any], None]


def install(replace: Replace) -> None:
    """Guard forms and deserialized objects; ``replace`` sets an attribute and knows how to undo it."""
    replace(DeserializedObject, "__init__", _deserialized(DeserializedObject.__init__))
    replace(DeserializedObject, "save", _of_the_same_tenant(DeserializedObject.save))
    replace(BaseModelForm, "__init__", _form(BaseModelForm.__init__))
    replace(ModelChoiceField, "to_python", _choosing(ModelChoiceField.to_python))
    replace(ModelChoiceField, "prepare_value", _prepare_value)


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
