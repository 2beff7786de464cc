"""The base class of what makes tenants' databases, and removes what it has made."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

Config = Mapping[str, Mapping[str, Any]]  # a record's section for one ORM, by template alias
Names = Mapping[str, str]  # kind of what is made ("database", "role") -> its name


class DatabaseIdentity(NamedTuple):
    """Whose a database is, as the row says that is written into it.

    ``incarnation``: 32 hex digits that the tenant's record has, too. ``alias``: the template alias.
    """

    service: str
    tenant_id: str
    incarnation: str
    alias: str


class BaseOrmProvisioner(ABC):
    """Makes the databases of tenants of one ORM; ``BaseOrmManager.provisioner`` returns one.

    A database is made together with a mark that has its ``DatabaseIdentity``, at once or not at all. So whoever finds
    one can tell whether it was made for this incarnation of this tenant, and nothing else is touched or removed. All
    verbs raise ``ProvisioningError`` for what is refused, and what the drivers raise.
    """

    @abstractmethod
    def complete(self, service: str, tenant_id: str, config: Config) -> dict[str, Mapping[str, Any]]:
        """``config`` with what it leaves out: names, and the roles and passwords that the settings ask for. No I/O."""

    @abstractmethod
    def names(self, tenant_id: str, config: Config) -> dict[str, Names]:
        """What would be made for each template alias. No I/O."""

    @abstractmethod
    def check(self, stamp: DatabaseIdentity, config: Config, from_template: bool) -> None:
        """Refuse what could not be made for the alias of ``stamp``, before anything is."""

    @abstractmethod
    def create(self, stamp: DatabaseIdentity, config: Config, from_template: bool) -> bool:
        """Make the database for the alias of ``stamp``; ``False`` if it has been made before.

        What an earlier call that was killed has left undone is done. ``from_template``: as a copy of the reference.
        """

    @abstractmethod
    def remove(self, stamp: DatabaseIdentity, names: Names) -> list[str]:
        """Remove what was made with ``stamp`` under these names, be it half-made; returns what was there."""

    @abstractmethod
    def reference(self, service: str) -> Any:
        """What a context carries that is bound to the reference databases. No I/O."""

    @abstractmethod
    def refreshing(self, service: str) -> AbstractContextManager[None]:
        """Make the reference databases that are missing, and let them be connected to while the block runs."""
