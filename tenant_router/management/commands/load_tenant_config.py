"""``manage.py load_tenant_config``: from the configuration file to the config store."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from tenant_router import config_file, runtime
from tenant_router.config_store.base import META_ID
from tenant_router.exceptions import RecordInvalid
from tenant_router.lifecycle import CHANGED, CREATED, REMOVED, UNCHANGED, Plan, Writer, differences
from tenant_router.log import redact
from tenant_router.management import fleet
from tenant_router.management.operator import OperatorCommand, confirm
from tenant_router.management.publishing import Publishing, named
from tenant_router.runtime import Runtime


class Command(OperatorCommand):
    """Validates everything first and writes nothing when there is a fault."""

    without_tenant = "loads every tenant of its file"
    so_far = "nothing was written"
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
            "--migrate",
            action="store_true",
            help="Migrate new tenants, and new databases of existing ones, before they are served.",
        )
        parser.add_argument("--dry-run", action="store_true", help="Show what would change, key by key; write nothing.")
        parser.add_argument("--yes", action="store_true", help="Do not ask.")
        fleet.add_wait(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it."""
        router = runtime.get()
        if options["wait"] is not None:
            fleet.require_leases(router.store)
        writer = Writer(router)
        loaded, plan = self._plan(router, writer, options)
        self._show(plan, options["verbosity"])
        if options["dry_run"]:
            self._show_differences(plan)
            return
        removed = plan.with_outcome(REMOVED)
        if removed:
            confirm(
                f"{len(removed)} tenant(s) will be deleted from the config store: {named(set(removed))}",
                answer="yes",
                otherwise="nothing was written",
                yes=options["yes"],
            )
        self._commit(writer, plan)
        if options["migrate"]:
            Publishing(router, writer, plan, self.stdout, options["verbosity"]).run()
        else:
            self._note_unmigrated(plan)
        if options["wait"] is not None:
            self._wait(router, [*loaded.records], options["wait"])

    def _plan(self, router: Runtime, writer: Writer, options: dict[str, Any]) -> tuple[config_file.ConfigFile, Plan]:
        try:
            loaded = self._read(router, options["file"])
            plan = writer.plan(
                loaded.records, loaded.mapping_metadata, flush=options["flush_all"], migrate=options["migrate"]
            )
        except RecordInvalid as error:
            raise CommandError(_listed(options["file"], error)) from error
        for service, tenant_ids in loaded.skipped.items():
            self.stdout.write(f"skipped   {len(tenant_ids)} section(s) of service {service!r}")
        return loaded, plan

    def _read(self, router: Runtime, name: str) -> config_file.ConfigFile:
        stdin = getattr(sys.stdin, "buffer", None) or io.BytesIO()  # it may have been closed before we began
        data = config_file.read(name, Path(getattr(settings, "BASE_DIR", ".")), stdin)
        return config_file.parse(
            data,
            service=router.conf.service,
            templates=router.templates(),
            reserved=router.reserved(),
            cache_templates=router.caches.template_aliases,
            cache_reserved=router.caches.reserved_aliases,
        )

    def _show(self, plan: Plan, verbosity: int) -> None:
        moved = set(plan.moved)
        for outcome in (CREATED, CHANGED, UNCHANGED, REMOVED):
            lines = [
                f"{outcome:<10}{tenant_id}{' (another database)' if tenant_id in moved else ''}"
                for tenant_id in plan.with_outcome(outcome)
            ]
            if lines and verbosity > 0:
                self.stdout.write("\n".join(lines))

    def _show_differences(self, plan: Plan) -> None:
        for tenant_id, after in plan.after.items():
            before = plan.before.get(tenant_id)
            if before is None and plan.outcomes.get(tenant_id) == CREATED:
                continue
            self.stdout.write("mapping_metadata" if tenant_id == META_ID else tenant_id)
            for line in _differences(before, after):
                self.stdout.write(f"    {line}")
        self.stdout.write(f"dry run: {len(plan.ops) + len(plan.withheld)} change(s), nothing was written")

    def _commit(self, writer: Writer, plan: Plan) -> None:
        if not plan.ops:
            kept = "" if plan.withheld else ", nothing changed"
            self.stdout.write(f"revision {runtime.get().store.head().rev}{kept}")
            return
        self.so_far = "the store was being written; run the command again to complete it"
        revision = writer.commit(plan)
        self.so_far = f"revision {revision} is written; run the command again for what was to follow"
        self.stdout.write(f"revision {revision}: {plan.written} written")

    def _note_unmigrated(self, plan: Plan) -> None:
        """Say of whom nobody has looked whether there are tables."""
        tenant_ids = {*plan.with_outcome(CREATED), *plan.moved}
        if tenant_ids:
            self.stdout.write(f"not migrated by this command (see --migrate, migrate_all): {named(tenant_ids)}")

    def _wait(self, router: Runtime, tenant_ids: list[str], timeout: float) -> None:
        self.stdout.write(fleet.wait_everywhere(router, tenant_ids, timeout))


def _differences(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Iterator[str]:
    """What differs, key by key, as people may see it."""
    if before is None:
        yield "the stored record cannot be read"
        return
    old, new = redact(before), redact(after)
    for path in differences(before, after):
        yield f"{'.'.join(path)}: {_at(old, path)} -> {_at(new, path)}"


def _at(redacted: Any, path: Iterable[str]) -> str:
    """What stands at a path of a record whose secrets are masked: the mask of all, if it is within a secret."""
    for key in path:
        if not isinstance(redacted, Mapping):
            break
        redacted = redacted.get(key)
    return "-" if redacted is None else json.dumps(redacted, default=str)


def _listed(name: str, error: RecordInvalid) -> str:
    lines = [f"{path}: {what}" if path else what for path, what in error.problems]
    if len(lines) == 1:
        return f"{lines[0]} (nothing was written)"
    return f"{len(lines)} errors in {name}, nothing was written\n  " + "\n  ".join(lines)
