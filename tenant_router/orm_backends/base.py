"""The base classes of an ORM's manager, which turns tenants' records into connections, and of its migrations.

To support another ORM, subclass :class:`BaseOrmManager` (see CONTRIBUTING) and name the class
as ``MANAGER`` in ``TENANT_ROUTER_ORM_SETTINGS``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, Protocol

from django.utils.module_loading import import_string

from tenant_router.exceptions import ConfigurationError, RealDatabase
from tenant_router.orm_backends.provisioning import BaseOrmProvisioner, DatabaseIdentity
from tenant_router.tenant_context import TenantContext

__all__ = [
    "BaseOrmManager",
    "BaseOrmMigrationAsst",
    "BaseOrmProvisioner",
    "DatabaseIdentity",
    "MigrationRun",
    "Report",
]

_ASST_KEYS = {"CLASS", "OPTIONS"}


class BaseOrmManager(ABC):
    """Base of all managers, one per ORM.

    ``orm_id``: its key in ``TENANT_ROUTER_ORM_SETTINGS``. ``settings``: the dictionary that
    ``SETTINGS_KEY`` names, alias to template. ``options``: the entry's ``OPTIONS``.
    """

    OPTION_NAMES: Collection[str] = ("RESERVED_CONN_ALIASES", "MIGRATION_ASST")
    default_migration_asst: type[BaseOrmMigrationAsst] | None = None
    location_noun = "the database"  # what two tenants with one location share
    nested_locations = False  # whether the first part of a location is a prefix: see ``places.Places``
    # Managers of one kind compare their ``locations``: their databases can be the same. Empty: nobody else's can.
    location_kind = ""
    # What a test run has in the place of its databases. With ``None`` no test run begins: it would use the real ones.
    test_databases: type[BaseTestDatabases] | None = None

    def __init__(self, orm_id: str, settings: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]) -> None:
        self.orm_id, self.options = orm_id, options
        reserved = frozenset(options.get("RESERVED_CONN_ALIASES", ()))
        self.reserved_aliases = tuple(alias for alias in settings if alias in reserved)
        self._settings = settings
        self.templates = {alias: template for alias, template in settings.items() if alias not in reserved}
        self._refuse_wrong_options(reserved - set(settings))

    @property
    def template_aliases(self) -> tuple[str, ...]:
        """The aliases that are replicated for each tenant."""
        return tuple(self.templates)

    def settings_of(self, alias: str) -> Mapping[str, Any]:
        """What the project's settings say of a template or a reserved alias."""
        return self._settings[alias]

    @abstractmethod
    def prepare(self, tenant_id: str, config: Mapping[str, Mapping[str, Any]], previous: Any) -> Any:
        """Build, from the tenant's section for this ORM, what its contexts carry. No I/O.

        ``previous`` is what was prepared before for this tenant, or ``None``; unchanged pieces
        of it may be taken over. Raises ``RecordInvalid`` with every fault.
        """

    @abstractmethod
    def retire(self, previous: Any, current: Any) -> None:
        """Let go of what ``previous`` holds and ``current`` (``None`` after a deletion) does not.

        Called after the change is visible. What a unit of work still uses is closed when it ends.
        """

    def install(self) -> None:  # noqa: B027 - an ORM that asks for its connections itself needs none
        """Take the ORM over: patch what leads to its connections. Idempotent; undone by :meth:`uninstall`."""

    def uninstall(self) -> None:  # noqa: B027
        """Undo :meth:`install`."""

    def locations(
        self, tenant_id: str, config: Mapping[str, Mapping[str, Any]]
    ) -> Iterable[tuple[str, tuple[str, ...]]]:
        """Each template alias with what tells the database that ``config`` gives the tenant from every other one.

        Two tenants with one location (or whose ``nested_locations`` overlap) are refused unless
        ``OPTIONS["ALLOW_SHARED_DATABASES"]``, which a manager that says locations has among its ``OPTION_NAMES``.
        A database has several where it has several hosts: two tenants that share one of them have one database.
        Raises nothing: a bad ``config`` has none.
        """
        return ()

    def reserved_locations(self) -> Iterable[tuple[str, tuple[str, ...]]]:
        """Each reserved alias with what tells its database from every other one: no tenant may have it."""
        return ()

    def check_health(self, alias: str) -> None:
        """Ask the bound tenant's database of a template alias for a sign of life, within the driver's own limits.

        Raises what the driver raises, ``TenantContextMissing`` without a tenant, and ``NotImplementedError``
        where the manager cannot ask.
        """
        raise NotImplementedError(f"the manager of {self.orm_id!r} cannot ask its databases for a sign of life")

    stamps = False
    """Whether the manager has the three verbs below: its databases can say whose they are."""

    def expect_stamp(self, prepared: Any, incarnation: str) -> None:  # noqa: B027
        """Have each new connection of what was ``prepared`` find ``incarnation`` in the database; empty: any.

        One that does not raises ``WrongDatabase`` before its first statement.
        """

    def read_stamps(self, alias: str) -> list[DatabaseIdentity]:
        """What the bound tenant's database of a template alias says of whose it is. Raises what the driver raises."""
        raise NotImplementedError

    def write_stamp(self, alias: str, stamp: DatabaseIdentity) -> None:
        """Have the bound tenant's database say that it is ``stamp``'s alone. Raises what the driver raises."""
        raise NotImplementedError

    @property
    def provisioner(self) -> BaseOrmProvisioner | None:
        """Makes and removes tenants' databases; ``None`` where the manager cannot."""
        return None

    def reset_after_fork(self) -> None:  # noqa: B027 - an ORM that keeps no sockets has nothing to do
        """In a forked child: forget inherited sockets without disturbing the parent."""

    @property
    def migration_asst(self) -> BaseOrmMigrationAsst | None:
        """The migration assistant: the one in ``OPTIONS['MIGRATION_ASST']``, the ORM's own, or ``None``."""
        chosen = self.options.get("MIGRATION_ASST")
        if chosen is None:
            return self.default_migration_asst(self) if self.default_migration_asst else None
        where = f"OPTIONS['MIGRATION_ASST'] of {self.orm_id!r}"
        if not isinstance(chosen, Mapping) or not isinstance(chosen.get("CLASS"), str) or chosen.keys() - _ASST_KEYS:
            raise ConfigurationError(f"{where} is not {{'CLASS': <dotted path>, 'OPTIONS': {{...}}}}")
        try:
            made = import_string(chosen["CLASS"])(manager=self, **chosen.get("OPTIONS", {}))
        except Exception as error:  # anybody can write one
            raise ConfigurationError(f"{where} is wrong: {type(error).__name__}: {error}") from error
        if not isinstance(made, BaseOrmMigrationAsst):
            raise ConfigurationError(f"{where} is wrong: {chosen['CLASS']!r} is no subclass of BaseOrmMigrationAsst")
        return made

    @property
    def migrates(self) -> bool:
        """Whether this ORM has a migration assistant."""
        return self.options.get("MIGRATION_ASST") is not None or self.default_migration_asst is not None

    def migrate_to_all(self, run: MigrationRun) -> bool:
        """Migrate the databases that ``run`` names; ``False`` when this ORM has no migration assistant."""
        assistant = self.migration_asst
        if assistant is None:
            return False
        assistant.run = run
        assistant.perform_migrate()
        return True

    def _refuse_wrong_options(self, unknown_reserved: Iterable[str]) -> None:
        wrong = [f"OPTIONS[{name!r}] is not known" for name in self.options if name not in self.OPTION_NAMES]
        wrong += [f"RESERVED_CONN_ALIASES names {alias!r}, which has no settings" for alias in unknown_reserved]
        if wrong:
            known = ", ".join(sorted(self.OPTION_NAMES))
            raise ConfigurationError(f"{self.orm_id}: {'; '.join(wrong)} (known options: {known})")


class Report(Protocol):
    """Called once for each database: ``error`` is ``None`` when it went well, ``step`` what was done when it failed."""

    def __call__(self, alias: str, error: BaseException | None, step: str = "") -> None:
        """Hear of one."""


def _ignore(alias: str, error: BaseException | None, step: str = "") -> None:
    pass


def _unheld(alias: str) -> AbstractContextManager[None]:
    return nullcontext()


def _untold(alias: str, migration: str | None) -> None:
    pass


def _one_by_one(contexts: Sequence[TenantContext], function: Callable[[TenantContext], None]) -> None:
    for context in contexts:
        function(context)


class MigrationRun(NamedTuple):
    """What ``migrate_all`` asks of each assistant, and what it hears back.

    ``contexts``: the tenants to migrate; their records need not be published yet, so bind these and not
    their ids. ``reserved``: whether the reserved aliases are wanted too. ``plan``: show what would be done,
    change nothing. ``write``: show a line. ``report``: a database is done, by its alias. ``holding``: a context
    manager for the time in which a database is worked on, by its alias; it raises ``Locked`` when somebody else does.
    ``under_way``: told, for a database by its alias, which migration is begun that cannot be rolled back, and ``None``
    when it has ended. ``each``: calls a function with each of some tenants, if ``several`` with a few at once in
    threads, whose lines then need a name.
    """

    contexts: Sequence[TenantContext]
    reserved: bool = True
    plan: bool = False
    verbosity: int = 1
    write: Callable[[str], None] = print
    report: Report = _ignore
    holding: Callable[[str], AbstractContextManager[None]] = _unheld
    under_way: Callable[[str, str | None], None] = _untold
    each: Callable[[Sequence[TenantContext], Callable[[TenantContext], None]], None] = _one_by_one
    several: bool = False


class BaseOrmMigrationAsst(ABC):
    """Knows how to migrate all databases of one ORM.

    A subclass finds its manager in ``self.manager`` and what is asked of it in ``self.run``.
    ``OPTIONS`` of its registration come as keyword arguments.
    """

    run: MigrationRun

    def __init__(self, manager: BaseOrmManager, **options: Any) -> None:
        self.manager, self.options = manager, options

    def named(self, alias: str) -> str:
        """An alias as people are shown it: several ORMs may have one of that name."""
        return f"{alias} ({self.manager.orm_id})"

    def up_to_date(self, context: TenantContext) -> Mapping[str, str]:
        """The fingerprint of each of a tenant's databases, by alias, if it needs nothing; empty where nobody knows.

        One that the store's ledger has so is left out of a run.
        """
        return {}

    @abstractmethod
    def perform_migrate(self) -> None:
        """Migrate every database that ``self.run`` asks for; go on past one that fails and report it."""


class TestGate(Protocol):
    """What an ORM asks and tells the test run about each of its databases."""

    def admit(self, name: str) -> None:
        """Raise ``RealDatabase`` unless ``name`` is a test database that this run has created."""

    def wrote(self, name: str) -> None:
        """``name`` may have been written to, and is to be emptied after the test."""


def no_test_database(orm_id: str, alias: str) -> RealDatabase:
    """The error for an alias that an application has connected itself and that the settings do not have."""
    return RealDatabase(
        f"alias {alias!r} of {orm_id!r} is connected by the application alone, so that a test run has no test database "
        "for it: add it to the settings that SETTINGS_KEY names, and to RESERVED_CONN_ALIASES"
    )


class BaseTestDatabases(ABC):
    """An ORM's test databases, which a test run has in the place of the real ones.

    A database is known by the alias whose settings say on which server it is, a template's or a reserved
    one, and by the ``name`` that the run gives it: lower case, ``a-z0-9_``, at most ``MAX_NAME`` characters,
    different for each ORM, alias, test tenant and worker process. A subclass finds its manager in ``self.manager``.
    """

    MAX_NAME = 63

    def __init__(self, manager: Any) -> None:
        self.manager = manager

    def real_name(self, alias: str) -> str:
        """What the settings call the database of ``alias``, or ``""``; test databases are named after it."""
        return ""

    @abstractmethod
    def begin(self, gate: TestGate, reserved: Mapping[str, str]) -> None:
        """From now on ask ``gate.admit`` before anything is sent to a database, whoever sends it, and tell
        ``gate.wrote`` what may change one; have the reserved aliases lead to the databases ``reserved``.

        Called again when they change: each process of a parallel run has its own. No I/O.
        """

    @abstractmethod
    def end(self) -> None:
        """Undo :meth:`begin`."""

    @abstractmethod
    def prepare(self, tenant_id: str, names: Mapping[str, str]) -> Any:
        """What the context of a test tenant carries, as ``BaseOrmManager.prepare`` makes it. No I/O."""

    @abstractmethod
    def exists(self, alias: str, name: str) -> bool:
        """Whether there is such a database; a killed run may have left it."""

    def created(self, alias: str, name: str) -> None:  # noqa: B027 - an ORM that flushes documents alone needs none
        """The database is created and migrated: what is there now is its schema, and is kept by :meth:`flush`."""

    @abstractmethod
    def flush(self, alias: str, name: str) -> bool:
        """Empty the database, as Django's ``flush`` does; ``False`` if it has to be migrated again."""

    @abstractmethod
    def remove(self, alias: str, name: str) -> None:
        """Remove the database, if there is one."""
