"""``manage.py load_tenant_config``: from the configuration file to the config store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenant_router import config_file, runtime
from tenant_router.config_store.base import ACTIVE, PROVISIONING
from tenant_router.exceptions import RecordInvalid
from tenant_router.lifecycle import CHANGED, CREATED, REMOVED, UNCHANGED, Plan, Writer
from tenant_router.management import fleet
from tenant_router.management.migrating import Migration
from tenant_router.runtime import Runtime


class Command(BaseCommand):
    """Validates everything first and writes nothing when there is a fault."""

    help = "Loads the tenants of a configuration file into the config store; every running process takes them over."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "-f",
            "--file",
            default="tenant_config.json",
            help="A name in BASE_DIR, a path, or '-' for standard input (default: %(default)s).",
        )
        parser.add_argument(
            "--include-tenant-metadata", action="store_true", help="Has no effect: tenants are always loaded."
        )
        parser.add_argument(
            "--flush-all", action="store_true", help="Delete the tenants of this service that the file does not name."
        )
        parser.add_argument(
            "--migrate", action="store_true", help="Migrate the databases of new tenants before they are served."
        )
        parser.add_argument("--dry-run", action="store_true", help="Show what would change; write nothing.")
        parser.add_argument("--yes", action="store_true", help="Do not ask.")
        parser.add_argument(
            "--wait",
            type=float,
            nargs="?",
            const=60.0,
            metavar="SECONDS",
            help="Return when every living process has it (default: %(const)s seconds); else exit with 3.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it."""
        router = runtime.get()
        writer = Writer(router)
        state = PROVISIONING if options["migrate"] else ACTIVE
        try:
            loaded = self._read(router, options["file"])
            plan = writer.plan(loaded.records, loaded.mapping_metadata, flush=options["flush_all"], new_state=state)
        except RecordInvalid as error:
            raise CommandError(_listed(options["file"], error)) from error
        for service, tenant_ids in loaded.skipped.items():
            self.stdout.write(f"skipped   {len(tenant_ids)} section(s) of service {service!r}")
        self._show(plan, options["verbosity"])
        if options["dry_run"]:
            self.stdout.write(f"dry run: {len(plan.ops)} change(s), nothing was written")
            return
        self._confirm(plan, options["yes"])
        revision = writer.commit(plan) if plan.ops else runtime.get().store.head().rev
        self.stdout.write(f"revision {revision}" + ("" if plan.ops else ", nothing changed"))
        if options["migrate"]:
            self._migrate(router, writer, [*plan.with_outcome(CREATED), *plan.provisioning], options["verbosity"])
        if options["wait"] is not None:
            self._wait(router, [*loaded.records], options["wait"])

    def _wait(self, router: Runtime, tenant_ids: list[str], timeout: float) -> None:
        target, lasts = router.store.head(), router.conf.store_options["STATUS_TTL"]
        found = fleet.wait(lambda: fleet.look(router.store, target, tenant_ids, lasts), timeout)
        if found.lagging:
            raise CommandError(f"after {timeout:g} s not at: {fleet.names(found.lagging)}", returncode=3)
        if found.refusing:
            raise CommandError(f"a record is refused by: {fleet.names(found.refusing)}")
        self.stdout.write(f"revision {target.rev} is live in all {len(found.members)} processes")

    def _read(self, router: Runtime, name: str) -> config_file.ConfigFile:
        data = config_file.read(name, Path(getattr(settings, "BASE_DIR", ".")), sys.stdin.buffer)
        return config_file.parse(
            data,
            service=router.conf.service,
            templates=router.templates(),
            reserved=router.reserved(),
            cache_templates=router.caches.template_aliases,
            cache_reserved=router.caches.reserved_aliases,
        )

    def _show(self, plan: Plan, verbosity: int) -> None:
        for outcome in (CREATED, CHANGED, UNCHANGED, REMOVED):
            lines = [f"{outcome:<10}{tenant_id}" for tenant_id in plan.with_outcome(outcome)]
            if lines and verbosity > 0:
                self.stdout.write("\n".join(lines))

    def _confirm(self, plan: Plan, yes: bool) -> None:
        removed = plan.with_outcome(REMOVED)
        if removed and not yes and sys.stdin.isatty():
            answer = input(f"{len(removed)} tenant(s) will be deleted from the config store. Type 'yes' to go on: ")
            if answer.strip().lower() != "yes":
                raise CommandError("nothing was written")

    def _migrate(self, router: Runtime, writer: Writer, created: list[str], verbosity: int) -> None:
        """Migrate the tenants that do not serve yet, also those that failed before, and activate them."""
        if not created:
            return
        router.reflector.synchronise()
        migration = Migration(router, self.stdout, plan=False, reserved=False, verbosity=verbosity)
        migration.run(created)
        failed = {tenant_id for tenant_id in created if any(_belongs(alias, tenant_id) for alias in migration.failures)}
        migrated = [tenant_id for tenant_id in created if tenant_id not in failed]
        if migrated:
            revision = writer.set_state(migrated, ACTIVE)
            self.stdout.write(f"revision {revision}: {len(migrated)} tenant(s) active")
        if failed:
            raise CommandError(f"still provisioning, because their migration failed: {', '.join(sorted(failed))}")


def _belongs(failure: str, tenant_id: str) -> bool:
    aliases = runtime.get().templates().values()
    return failure == tenant_id or any(failure == f"{tenant_id}_{alias}" for orm in aliases for alias in orm)


def _listed(name: str, error: RecordInvalid) -> str:
    lines = [f"{path}: {what}" if path else what for path, what in error.problems]
    if len(lines) == 1:
        return f"{lines[0]} (nothing was written)"
    return f"{len(lines)} errors in {name}, nothing was written\n  " + "\n  ".join(lines)
