"""The test databases of the ORMs that are not Django's: names, and what is made, flushed and removed in a run.

Django knows nothing of these databases, so no test declares them: they are created with Django's own, and
emptied after each test that wrote to them.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from tenant_router.exceptions import ConfigurationError, RealDatabase
from tenant_router.orm_backends.base import BaseOrmManager, BaseTestDatabases, MigrationRun
from tenant_router.tenant_context import TenantContext


class Place(NamedTuple):
    """A test database: whose it is (``""``: that of a reserved alias), for which alias, and what it is called."""

    tenant_id: str
    alias: str
    name: str


class Wishes(NamedTuple):
    """What a run was asked for. ``keep``: use the databases of the last run; ``interactive``: else ask about them."""

    verbosity: int = 1
    interactive: bool = False
    keep: bool = False


class OrmDatabases:
    """The test databases of one ORM, and the gate before all its other ones."""

    def __init__(self, manager: BaseOrmManager, service: str) -> None:
        self.manager, self._service = manager, service
        self._databases = _test_databases_of(manager)
        self._prepared: dict[tuple[str, str], Any] = {}
        self._created: dict[str, Place] = {}
        self._trouble: dict[str, str] = {}  # by alias: why its databases could not be created
        self._written: set[str] = set()
        self._kept: set[str] = set()  # of the last run, not emptied yet

    # --- the gate ---

    def admit(self, name: str) -> None:
        """Raise ``RealDatabase`` unless ``name`` is a test database that this run has created."""
        if name not in self._created:
            raise RealDatabase(
                f"{name!r} of {self.manager.orm_id!r} is no test database of this run, which creates one for each "
                f"alias in the settings and each test tenant, once all tests are imported{self._troubles()}"
            )

    def wrote(self, name: str) -> None:
        """``name`` is to be emptied after the test."""
        self._written.add(name)

    def _troubles(self) -> str:
        found = "; ".join(f"{alias!r}: {error}" for alias, error in self._trouble.items())
        return f" (not created: {found})" if found else ""

    # --- which they are ---

    def begin(self, label: str) -> None:
        """Let nothing but test databases be reached, those of the process ``label`` where several run tests."""
        self._databases.begin(self, self._names("", label))

    def end(self) -> None:
        """Undo :meth:`begin`."""
        self._databases.end()

    def parts(self, tenant_id: str, label: str) -> Any:
        """What the context of a test tenant carries for this ORM."""
        key = (tenant_id, label)
        if key not in self._prepared:
            self._prepared[key] = self._databases.prepare(tenant_id, self._names(tenant_id, label))
        return self._prepared[key]

    def _names(self, tenant_id: str, label: str) -> dict[str, str]:
        aliases = self.manager.template_aliases if tenant_id else self.manager.reserved_aliases
        return {alias: self._name(tenant_id, alias, label) for alias in aliases}

    def _name(self, tenant_id: str, alias: str, label: str) -> str:
        """``test_<the real one's name>[_<process>]_<hash>``, the same in each run."""
        real = self._databases.real_name(alias) or self._service
        whole = "\0".join((self._service, self.manager.orm_id, alias, real.lower(), tenant_id, label))
        digest = hashlib.blake2b(whole.encode(), digest_size=5).hexdigest()
        words = re.sub(r"[^a-z0-9]+", "_", f"test {real} {label}".lower()).strip("_")
        return f"{words[: self._databases.MAX_NAME - len(digest) - 1].rstrip('_')}_{digest}"

    # --- made and removed with the run ---

    def create(self, tenant_ids: Sequence[str], label: str, wishes: Wishes) -> None:
        """Make room for the databases of one process; what a killed run has left is removed, or used again.

        A server that cannot be reached is said, and its databases are refused where a test uses them.
        """
        for place in self._places(tenant_ids, label):
            if place.alias not in self._trouble:
                with self._tolerating(place):
                    self._create(place, wishes)

    def migrate(self, contexts: Sequence[TenantContext], verbosity: int = 0) -> None:
        """Have the ORM's migration assistant create what it creates in production."""
        if self._trouble:
            return
        failed: list[tuple[str, BaseException]] = []

        def report(alias: str, error: BaseException | None, step: str = "") -> None:
            if error is not None:
                failed.append((alias, error))

        run = MigrationRun(contexts, verbosity=max(verbosity - 1, 0), write=_say, report=report)
        self.manager.migrate_to_all(run)
        if failed:
            alias, error = failed[0]
            raise ConfigurationError(
                f"the test database {alias!r} of {self.manager.orm_id!r} cannot be migrated: {error}"
            ) from error

    def created(self, tenant_ids: Sequence[str], label: str) -> None:
        """All are migrated: what migrations have written stays. What the last run has left in kept ones does not."""
        self._written.clear()
        for place in self._places(tenant_ids, label):
            if place.name in self._created:
                self._databases.created(place.alias, place.name)
        self._written |= self._kept
        self._kept.clear()

    def adopt(self, tenant_ids: Sequence[str], label: str) -> None:
        """In another process, which runs tests: use what was created there."""
        self._created = {place.name: place for place in self._places(tenant_ids, label)}
        self._trouble.clear()
        for place in [*self._created.values()]:
            with self._tolerating(place):
                self._databases.created(place.alias, place.name)

    def flush(self, contexts: Sequence[TenantContext]) -> None:
        """Empty what was written to."""
        whole = True
        for name in [*self._written]:
            if name in self._created:
                whole = self._databases.flush(self._created[name].alias, name) and whole
        if not whole:
            self.migrate(contexts)
        self._written.clear()

    def remove(self, verbosity: int) -> None:
        """Remove all that were created."""
        for place in [*self._created.values()]:
            if verbosity > 1:
                _say(f"Destroying test database {place.name!r} of {self.manager.orm_id!r}...")
            self._databases.remove(place.alias, place.name)
            del self._created[place.name]

    def _places(self, tenant_ids: Sequence[str], label: str) -> Iterator[Place]:
        for tenant_id in (*tenant_ids, ""):
            yield from (Place(tenant_id, alias, name) for alias, name in self._names(tenant_id, label).items())

    @contextmanager
    def _tolerating(self, place: Place) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # anything that a driver raises
            self._created.pop(place.name, None)
            self._trouble[place.alias] = f"{type(error).__name__}: {error}"
            _say(f"No test database for alias {place.alias!r} of {self.manager.orm_id!r}: {error}")

    def _create(self, place: Place, wishes: Wishes) -> None:
        what = f"test database {place.name!r} for alias {place.alias!r} of {self.manager.orm_id!r}"
        self._created[place.name] = place
        found = self._databases.exists(place.alias, place.name)
        if wishes.verbosity > 1:
            _say(f"{'Using existing' if found and wishes.keep else 'Creating'} {what}...")
        if found and not wishes.keep:
            if wishes.interactive and not _confirmed(what):
                sys.exit(1)
            self._databases.remove(place.alias, place.name)
        elif found:
            self._kept.add(place.name)


def of_orms(orms: Mapping[str, BaseOrmManager], service: str) -> dict[str, OrmDatabases]:
    """The test databases of each ORM but Django's, by ORM id. Raises ``ConfigurationError``."""
    return {orm_id: OrmDatabases(manager, service) for orm_id, manager in orms.items()}


def _test_databases_of(manager: BaseOrmManager) -> BaseTestDatabases:
    if manager.test_databases is None:
        raise ConfigurationError(
            f"the manager of {manager.orm_id!r} has no test databases, so that tests would use the real ones: "
            f"{type(manager).__qualname__}.test_databases must be a subclass of "
            "tenant_router.orm_backends.base.BaseTestDatabases"
        )
    return manager.test_databases(manager)


def _confirmed(what: str) -> bool:
    # As Django asks (django/db/backends/base/creation.py: _create_test_db).
    _say(f"There is already a {what}.")
    answer = input("Type 'yes' if you would like to try deleting it, or 'no' to cancel: ")
    if answer != "yes":
        _say("Tests cancelled.")
    return answer == "yes"


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
