"""The connection of a tenant that is not bound: an explicit alias alone has named it."""

from __future__ import annotations

from functools import cache, partial
from typing import Any, cast

from tenant_router import context as _context
from tenant_router import unit_of_work as units
from tenant_router.orm_backends.django_orm.backend_classes import mixed
from tenant_router.orm_backends.django_orm.wrapper import TenantWrapper
from tenant_router.unit_of_work import Unit


class NamedByAlias(TenantWrapper):
    """A wrapper that an alias named while nothing was bound: in use while a cursor or a transaction is open."""

    _transaction: Unit | None = None

    def _cursor(self, name: str | None = None) -> Any:
        bound = _context.stack.get()
        if bound and self in bound[0].uses:
            return super()._cursor(name)  # type: ignore[misc]
        unit = units.Current()
        self._use(unit)
        try:
            cursor = super()._cursor(name)  # type: ignore[misc]
        except BaseException:
            unit.end()
            raise
        # An attribute of the cursor, so that the unit is over when the cursor is garbage, too.
        cursor.__dict__["close"] = partial(_close_cursor, cursor.cursor, unit)
        return cursor

    def set_autocommit(self, autocommit: bool, *args: Any, **kwargs: Any) -> None:
        """Django's; a transaction begins where it is turned off and ends where it is turned on again."""
        if not autocommit and self._transaction is None:
            self._transaction = units.Current()
            self._use(self._transaction)
        try:
            super().set_autocommit(autocommit, *args, **kwargs)
        finally:
            if self.autocommit and self._transaction is not None:
                unit, self._transaction = self._transaction, None
                unit.end()

    def _use(self, unit: Unit) -> None:
        if self.owner is not None:
            self.owner.use(self, unit)


def _close_cursor(cursor: Any, unit: Unit) -> None:
    try:
        cursor.close()
    finally:
        unit.end()


@cache
def named_by_alias_class(engine: str) -> type[NamedByAlias]:
    """The backend named ``engine`` as the connection of a tenant that is not bound."""
    return cast("type[NamedByAlias]", mixed(NamedByAlias, engine))
