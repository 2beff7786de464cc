"""Names the test databases of the other test tenants, after those of the templates."""

from __future__ import annotations

import copy
import hashlib
from typing import Any, cast

from django.db import connections

from tenant_router import identity
from tenant_router.orm_backends.django_orm.databases import Database, Databases
from tenant_router.orm_backends.django_orm.manager import DjangoOrmManager
from tenant_router.testing.database_guard import DatabaseGuard

_ORM = "django_orm"
_LONGEST = 63 - len("test_") - len("_99")  # PostgreSQL's limit, less what Django puts before and after


def databases_of(tenant_id: str, manager: DjangoOrmManager, guard: DatabaseGuard) -> Databases:
    """The databases of another test tenant, named after those of the templates; Django creates them later."""
    databases, handler = Databases(), cast(Any, connections)
    for template in manager.template_aliases:
        settings = copy.deepcopy(handler.settings.static.raw(template))
        _name_for_tenant(settings, tenant_id)
        dependencies = settings["TEST"].get("DEPENDENCIES")
        if dependencies:  # what is central was created before
            settings["TEST"]["DEPENDENCIES"] = [alias for alias in dependencies if alias in manager.templates]
        guard.note(tenant_id, template, settings)
        alias = identity.alias_for(tenant_id, template)
        databases[template] = databases[alias] = Database(tenant_id, template, alias, settings)
    databases.default = manager.default_alias(tenant_id)
    return databases


def _name_for_tenant(settings: dict[str, Any], tenant_id: str) -> None:
    """Derive the name of another tenant's database, whatever the template's own test name is."""
    suffix = hashlib.blake2b(tenant_id.encode(), digest_size=4).hexdigest()
    for holder in (settings, settings["TEST"]):
        name = str(holder.get("NAME") or "")
        if name and name != ":memory:" and not name.startswith("file:"):
            is_path = "/" in name or settings["ENGINE"].endswith(("sqlite3", "spatialite"))
            holder["NAME"] = f"{name if is_path else name[: _LONGEST - 9]}_{suffix}"
