"""Keeps a test run from opening any database that is not a test database."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

from tenant_router.exceptions import RealDatabase
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.django_orm.databases import Database

_ORM = "django_orm"


class DatabaseGuard:
    """Checks each database before it is opened; raises ``RealDatabase``.

    A database is a test database when its tenant is one of the run's and Django has replaced
    its name by the test database's.
    """

    def __init__(self, test_tenant_id: str) -> None:
        self._test_tenant_id = test_tenant_id
        self._real: dict[tuple[str, str], str] = {}  # tenant id, template -> the name before Django replaced it

    def note(self, tenant_id: str, template: str, settings: Mapping[str, Any]) -> None:
        """Remember the name that a database has before its test database is created."""
        self._real[tenant_id, template] = str(settings["NAME"])

    def admit(self, database: Database, settings: Mapping[str, Any]) -> None:
        """Raise ``RealDatabase`` unless ``database`` belongs to a tenant of this run and is a test database."""
        held = tenant_context_manager.prepared.get(database.tenant_id)
        if held is None or held.parts[_ORM].get(database.alias) is not database:
            raise RealDatabase(
                f"{database.alias!r} is a database of tenant {database.tenant_id!r}, who is no test tenant"
            )
        self._admit_name(database.tenant_id, database.template, settings)

    def guard(self, wrapper: Any) -> None:
        """Have a template's own connection checked before it connects."""
        # On the object, so that copies (Django makes one to reach the server and no database) are left alone;
        # and weakly, because a connection must close with the thread that drops it.
        template, found = wrapper.alias, weakref.ref(wrapper)

        def get_new_connection(parameters: Any) -> Any:
            own: Any = found()
            self._admit_name(self._test_tenant_id, template, own.settings_dict)
            return type(own).get_new_connection(own, parameters)

        wrapper.get_new_connection = get_new_connection

    def _admit_name(self, tenant_id: str, template: str, settings: Mapping[str, Any]) -> None:
        name = str(settings["NAME"])
        chosen = settings.get("TEST", {}).get("NAME")
        if name == self._real.get((tenant_id, template)) and name != str(chosen) and not _in_memory(name):
            raise RealDatabase(
                f"database alias {template!r} still means {name!r}, which is no test database: a test run creates one "
                "for the aliases that its tests declare (in 'databases', or with pytest's mark django_db), once all "
                "tests are imported"
            )


def _in_memory(name: str) -> bool:
    return name == ":memory:" or "mode=memory" in name
