"""The connection of a template alias where no tenant is bound: nobody's."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn, cast

from tenant_router import context as _context
from tenant_router.orm_backends.django_orm.backend_classes import mixed

if TYPE_CHECKING:
    from django.db.backends.base.base import BaseDatabaseWrapper as _Base
else:
    _Base = object


class UnboundWrapper(_Base):
    """Mixed into a backend's ``DatabaseWrapper``: a template alias while no tenant is bound.

    It answers what needs no connection (``ops``, ``vendor``, most ``features``); whatever needs
    one raises ``TenantContextMissing``.
    """

    def connect(self) -> NoReturn:
        """Refuse."""
        raise _context.missing(f"database alias {self.alias!r}")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # dbshell would otherwise open the template's own database
        self.client.runshell = self._refuse  # type: ignore[method-assign]

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        self.connect()


@cache
def unbound_wrapper_class(engine: str) -> type[UnboundWrapper]:
    """The backend named ``engine`` as nobody's connection."""
    return cast("type[UnboundWrapper]", mixed(UnboundWrapper, engine))
