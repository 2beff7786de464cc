"""Instances in lookups: ``filter(shelf=shelf)`` keeps the primary key of ``shelf``, and whose it is.

``RelatedLookupMixin`` and ``RelatedIn`` (django/db/models/fields/related_lookups.py) are behind
every lookup of an instance: in ``filter``, ``exclude``, ``get``, ``Q``, ``When``, ``in_bulk``
and ``get_object_or_404``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from functools import wraps
from typing import Any, NoReturn

from django.core.exceptions import FullResultSet
from django.db.models import Model
from django.db.models.base import ModelState
from django.db.models.fields.related_lookups import RelatedIn, RelatedLookupMixin

from tenant_router import context as _context
from tenant_router.exceptions import TenantMismatch
from tenant_router.orm_backends.django_orm.ownership import is_static, refuse_foreign, tenant_of
from tenant_router.tenant_context import TenantContext

_GIVEN = "_tenant_router_given"  # of a lookup: the value, and the id of the tenant whose keys were taken from it

Replace = Callable[[Any, str, Any], None]


def install(replace: Replace) -> None:
    """Guard lookups; ``replace`` sets an attribute and knows how to undo it."""
    for owner in (RelatedLookupMixin, RelatedIn):
        replace(owner, "get_prep_lookup", _preparing(vars(owner)["get_prep_lookup"]))
        replace(owner, "as_sql", _compiling(vars(owner)["as_sql"]))


def _preparing(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def get_prep_lookup(self: Any) -> Any:
        """The keys; an instance of another tenant is refused, and whose the keys are is noted."""
        value = self.rhs
        if isinstance(value, Model):
            # no call for what is the bound tenant's: each use of a related manager comes here
            bound, state = _context.stack.get() or _context.ambient, value._state
            context = bound[-1] if bound and state.__class__ is ModelState else None
            if context.__class__ is TenantContext and state.__dict__.get("db") in context.parts["django_orm"]:
                self.__dict__[_GIVEN] = None, context.id
            else:
                _note(self, value, (value,))
        elif isinstance(self, RelatedIn) and not hasattr(value, "resolve_expression"):
            if not isinstance(value, list | tuple | set | frozenset):
                value = self.rhs = list(value)
            _note(self, value, [each for each in value if isinstance(each, Model)])
        return original(self)

    return get_prep_lookup


def _note(lookup: Any, value: Any, instances: Collection[Model]) -> None:
    if not instances:
        return
    owners, kept = set(), False
    for instance in instances:
        refuse_foreign(instance, kept=True)
        owners.add(_owner(instance))
        kept = kept or getattr(instance._state, "is_kept", False)
    owners.discard("")
    if len(owners) > 1:
        raise TenantMismatch(f"instances of several tenants in one lookup: {', '.join(sorted(owners))}")
    if owners:
        lookup.__dict__[_GIVEN] = value if kept else None, owners.pop()


def _owner(instance: Model) -> str:
    """The id of the tenant whose key is taken from ``instance``; empty for what is everybody's."""
    bound, origin = _context.current(), instance._state.__dict__.get("db")
    if bound is None or origin is None or is_static(origin):
        return tenant_of(origin) or ""
    return bound.id


class OfTenant:
    """A condition without SQL: whoever is asked for rows by a tenant's key is that tenant's database.

    Where Django takes the key from an instance before it builds a lookup, nothing of the instance is left in it. A leaf
    of a ``WhereNode``, as Django's own ``NothingNode`` is (django/db/models/sql/where.py).
    """

    contains_aggregate = contains_over_clause = is_summary = False

    def __init__(self, owner: str) -> None:
        self._owner = owner

    def as_sql(self, compiler: Any, connection: Any) -> NoReturn:
        """Refuses another tenant's database; else it is always true."""
        database = getattr(connection, "database", None)
        if database is not None and database.tenant_id != self._owner:
            _refuse(self._owner, database)
        raise FullResultSet

    def replace_expressions(self, replacements: Any) -> OfTenant:
        """It holds none."""
        return self

    def get_refs(self) -> set[str]:
        """It refers to nothing."""
        return set()

    def get_group_by_cols(self) -> list[Any]:
        """It has no columns."""
        return []


def bind_to_owner(queryset: Any, instance: Model) -> None:
    """Have ``queryset``, which was filtered by the key of ``instance``, refuse other tenants' databases."""
    bound, state = _context.stack.get() or _context.ambient, instance._state
    context = bound[-1] if bound else None
    if context.__class__ is TenantContext and state.__dict__.get("db") in context.parts["django_orm"]:
        owner = context.id  # no call for what is the bound tenant's
    else:
        owner = _owner(instance)
    if owner and not getattr(state, "is_kept", False):
        queryset.query.where.children.append(OfTenant(owner))


def _refuse(owner: str, database: Any) -> NoReturn:
    raise TenantMismatch(
        f"a lookup by an instance of tenant {owner!r} is used in a query for the database {database.alias!r}"
    )


def _compiling(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def as_sql(self: Any, compiler: Any, connection: Any) -> Any:
        """Refuses the keys of one tenant in a query for another's database; those of value objects are taken anew."""
        given, database = self.__dict__.get(_GIVEN), getattr(connection, "database", None)
        if given is None or database is None or database.tenant_id == given[1]:
            return original(self, compiler, connection)
        return original(_taken_anew(self, given, database), compiler, connection)

    return as_sql


def _taken_anew(lookup: Any, given: tuple[Any, str], database: Any) -> Any:
    value, owner = given
    bound = _context.current()
    if value is None or bound is None or bound.id != database.tenant_id:
        _refuse(owner, database)
    again = copy.copy(lookup)
    again.rhs = value
    again.rhs = again.get_prep_lookup()  # which refuses all but value objects
    return again
