"""The Django ORM's migration assistant: ``migrate`` for every tenant, then for each reserved alias."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from django.core.management import call_command, get_commands, load_command_class
from django.core.management.base import BaseCommand
from django.db import connections

from tenant_router import identity
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.orm_backends.base import BaseOrmMigrationAsst
from tenant_router.orm_backends.django_orm.advisory_lock import locked
from tenant_router.tenant_context import TenantContext


class DjangoMigrationAsst(BaseOrmMigrationAsst):
    """Runs the project's ``migrate`` on each database; ``OPTIONS`` are passed to it."""

    def up_to_date(self, context: TenantContext) -> dict[str, str]:
        """The release's fingerprint, for each database."""
        from tenant_router.orm_backends.django_orm import fingerprints  # what servers, which import this, do not need

        databases = context.parts[self.manager.orm_id]
        own = [databases[template] for template in self.manager.template_aliases]
        return {database.alias: fingerprints.of_release(database.settings) for database in own}

    def perform_migrate(self) -> None:
        """Migrate all databases; one that fails is reported and the next is tried."""
        self.run.each(self.run.contexts, self._migrate_tenant)
        for alias in self.manager.reserved_aliases if self.run.reserved else ():
            self._migrate(alias, None)

    def _migrate_tenant(self, context: TenantContext) -> None:
        for template in self.manager.template_aliases:
            self._migrate(identity.alias_for(context.id, template), context)

    def _migrate(self, alias: str, context: TenantContext | None) -> None:
        command, lines = _migrate_command(), _Lines(self._named_lines(alias) if self.run.several else self.run.write)
        under_way = _follow(command, self._irreversible(alias))
        if self.run.plan:
            self.run.write(f"{self.named(alias)}:")
        try:
            with self.run.holding(alias), tenant_context_bind(context) if context else nullcontext():
                self._call(command, alias, lines)
        # One tenant's failure, of whatever kind, must not stop the others: migrations may call sys.exit(), too.
        except (Exception, SystemExit) as error:
            lines.end()
            if under_way[0]:
                self.run.under_way(alias, None)  # it failed and said so; who is killed cannot
            self.run.report(alias, error, under_way[0])
        else:
            lines.end()
            self.run.report(alias, None)

    def _named_lines(self, alias: str) -> Callable[[str], None]:
        return lambda line: self.run.write(f"{alias} | {line}")

    def _irreversible(self, alias: str) -> Callable[[Any, bool], None]:
        """What tells the run of those migrations that this database cannot roll back."""

        def tell(migration: Any, begins: bool) -> None:
            if not (connections[alias].features.can_rollback_ddl and migration.atomic):
                self.run.under_way(alias, str(migration) if begins else None)

        return tell

    def _call(self, command: BaseCommand, alias: str, lines: _Lines) -> None:
        # The system checks are the same for every tenant: the command that runs us has made them.
        own = {"plan": self.run.plan, "verbosity": self.run.verbosity, "skip_checks": True, **self.options}
        try:
            with nullcontext() if self.run.plan else locked(connections[alias]):
                call_command(command, database=alias, interactive=False, stdout=lines, **own)
        finally:
            connections[alias].close()


def _migrate_command() -> BaseCommand:
    """The project's command ``migrate``, as ``call_command`` finds it."""
    found: Any = get_commands()["migrate"]
    return found if isinstance(found, BaseCommand) else load_command_class(found, "migrate")


def _follow(command: Any, tell: Callable[[Any, bool], None]) -> list[str]:
    """A list of one: the migration that ``command`` is applying or unapplying, or an empty text.

    ``tell(migration, begins)`` is called when one begins and when it has ended well.

    ``migrate`` makes its executor with ``self.migration_progress_callback`` (Django 4.2 to 5.2), which hears
    ``apply_start`` and ``unapply_start`` with the migration, and ``..._success`` after it.
    """
    under_way, told = [""], command.migration_progress_callback

    def callback(action: str, migration: Any = None, fake: bool = False) -> None:
        if action.endswith("apply_start"):
            under_way[0] = str(migration)
            tell(migration, True)
        elif action.endswith("apply_success"):
            under_way[0] = ""
            tell(migration, False)
        told(action, migration, fake)

    command.migration_progress_callback = callback
    return under_way


class _Lines:
    """A text stream that passes on whole lines: the command writes some in pieces."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write, self._begun = write, ""

    def write(self, text: str) -> None:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._write(line)

    def end(self) -> None:
        """Pass on the line that was begun, if one was."""
        if self._begun:
            self._write(self._begun)
            self._begun = ""
