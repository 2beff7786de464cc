"""``MongoengineOrmManager``: tenants' databases for MongoEngine."""

from __future__ import annotations

from tenant_router.orm_backends.mongo.manager import MongoManager
from tenant_router.orm_backends.mongoengine_orm import patch
from tenant_router.orm_backends.mongoengine_orm.migration_asst import MongoengineMigrationAsst


class MongoengineOrmManager(MongoManager):
    """Documents whose ``db_alias`` is a template alias (``default``, if they name none) are the bound tenant's."""

    default_migration_asst = MongoengineMigrationAsst

    def install(self) -> None:
        """Take over MongoEngine's connections."""
        super().install()
        patch.install(self)

    def uninstall(self) -> None:
        """Undo :meth:`install` and close all clients."""
        patch.uninstall()
        super().uninstall()
