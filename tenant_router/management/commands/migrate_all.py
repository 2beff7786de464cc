"""``manage.py migrate_all``: every ORM, every tenant, then each reserved alias."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from django.core.management.base import CommandError, CommandParser

from tenant_router import runtime
from tenant_router.config_store.base import ACTIVE, PROVISIONING, SUSPENDED
from tenant_router.exceptions import TenantUnresolved
from tenant_router.management import executing, reporting, selecting
from tenant_router.management.migrating import Migration
from tenant_router.management.operator import OperatorCommand
from tenant_router.managers import tenant_context_manager
from tenant_router.tenant_context import TenantContext

MIGRATED_STATES = ACTIVE + PROVISIONING + SUSPENDED


class Command(OperatorCommand):
    """Goes on past a database that fails, and exits with 1 in the end."""

    help = "Migrates the databases of all tenants, of every ORM, and each reserved alias once."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        selecting.add_selectors(parser)
        parser.add_argument(
            "--tenant-id",
            nargs="+",
            action="extend",
            metavar="ID",
            help="The same as a SELECTOR (also: TENANT_ID in the environment). Reserved aliases are left as they are.",
        )
        parser.add_argument(
            "--exclude-reserved-aliases", action="store_true", help="Leave the reserved aliases as they are."
        )
        parser.add_argument(
            "--verify",
            action="store_true",
            help="Look at every database, also where nothing is known to be needed.",
        )
        parser.add_argument(
            "--sample", type=_share, default=0.0, metavar="1%%", help="Look at such a share of those all the same."
        )
        parser.add_argument(
            "--jobs", type=executing.at_least_one, default=1, metavar="N", help="Migrate so many tenants at once."
        )
        parser.add_argument(
            "--jobs-per-server",
            type=executing.at_least_one,
            default=8,
            metavar="N",
            help="Of these, so many at most on one database server; default: %(default)s.",
        )
        parser.add_argument(
            "--max-failures", type=_count, metavar="N", help="Begin no more tenants after more than N have failed."
        )
        parser.add_argument("--report", metavar="FILE", help="Write what came of each database, as JSON.")
        parser.add_argument("--plan", action="store_true", help="Show what would be done; change nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it."""
        words = [*options["tenants"], *(options["tenant_id"] or ())] or os.environ.get("TENANT_ID", "").split()
        tenant_ids = self._chosen(words, options["exclude"])
        router = runtime.get()
        migration = Migration(
            router,
            self.stdout,
            plan=options["plan"],
            reserved=not words and not options["exclude_reserved_aliases"],
            verbosity=options["verbosity"],
            sample=1.0 if options["verify"] else options["sample"],
            jobs=options["jobs"],
            per_server=options["jobs_per_server"],
            max_failures=options["max_failures"],
        )
        report = reporting.opened(options["report"])
        contexts = list(_contexts(tenant_ids, migration))
        try:
            migration.run(contexts)
        except KeyboardInterrupt:
            self.so_far = f"{len(migration.done)} database(s) are migrated; run it again to go on"
            raise
        finally:
            if report is not None:
                reporting.write_json(report, {"databases": migration.outcomes(), "left": migration.left})
        if migration.failures:
            left = f"; {len(migration.left)} tenants were not begun" if migration.left else ""
            raise CommandError(f"{len(migration.failures)} of the migrations failed: {migration.failed}{left}")

    def _chosen(self, words: list[str], excluded: list[str]) -> list[str]:
        states = selecting.known_states()
        if not words and not excluded:
            return sorted(tenant_id for tenant_id, state in states.items() if state in MIGRATED_STATES)
        chosen = selecting.choose(
            words or [":all:"], excluded, states, meant=MIGRATED_STATES, otherwise="nothing was migrated"
        )
        selecting.tell(chosen.remarks, self.stderr)
        return chosen.tenant_ids


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError
    return int(text)


def _share(text: str) -> float:
    """A percentage, with or without its sign, as a number from 0 to 1."""
    value = float(text.removesuffix("%"))
    if not 0 <= value <= 100:
        raise ValueError
    return value / 100


def _contexts(tenant_ids: Iterable[str], migration: Migration) -> Iterator[TenantContext]:
    for tenant_id in tenant_ids:
        try:
            yield tenant_context_manager.get_in_any_state(tenant_id)
        except TenantUnresolved as error:
            migration.refuse(tenant_id, error)
