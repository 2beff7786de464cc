"""``PymodmOrmManager``: tenants' databases for PyModm."""

from __future__ import annotations

from tenant_router.orm_backends.mongo.manager import MongoManager
from tenant_router.orm_backends.pymodm_orm import patch
from tenant_router.orm_backends.pymodm_orm.migration_asst import PymodmMigrationAsst


class PymodmOrmManager(MongoManager):
    """Models whose ``connection_alias`` is a template alias (``default``, if they name none) are the bound tenant's."""

    default_migration_asst = PymodmMigrationAsst

    def install(self) -> None:
        """Take over PyModm's connections."""
        super().install()
        patch.install(self)

    def uninstall(self) -> None:
        """Undo :meth:`install` and close all clients."""
        patch.uninstall()
        super().uninstall()
