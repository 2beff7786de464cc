"""``manage.py tenant list|show|delete``."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenant_router import runtime
from tenant_router.config_store.base import DELETED, META_ID, STATE_NAMES
from tenant_router.lifecycle import Writer
from tenant_router.log import redact


class Command(BaseCommand):
    """Looks at the config store itself, not at what this process has taken from it."""

    help = "Lists, shows or deletes tenants in the config store."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the sub-commands."""
        commands = parser.add_subparsers(dest="command", required=True)
        commands.add_parser("list", help="One line per tenant: id, state, revision.")
        show = commands.add_parser("show", help="One tenant's record, secrets masked.")
        show.add_argument("id")
        delete = commands.add_parser("delete", help="Delete a tenant, live. Its databases are left as they are.")
        delete.add_argument("id")
        delete.add_argument("--yes", action="store_true", help="Do not ask.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it."""
        writer = Writer(runtime.get())
        if options["command"] == "list":
            self._list(writer)
        elif options["command"] == "show":
            self._show(writer, options["id"])
        else:
            self._delete(writer, options["id"], options["yes"])

    def _list(self, writer: Writer) -> None:
        for tenant_id, entry in sorted(writer.index().items()):
            if tenant_id != META_ID and entry.state != DELETED:
                self.stdout.write(f"{tenant_id}\t{STATE_NAMES.get(entry.state, entry.state)}\t{entry.rev}")

    def _show(self, writer: Writer, tenant_id: str) -> None:
        stored = writer.records([tenant_id]).get(tenant_id)
        if stored is None:
            raise CommandError(_absent(writer, tenant_id))
        record = writer.decoded(tenant_id, stored)
        shown = {
            "id": tenant_id,
            "state": STATE_NAMES.get(stored.state, stored.state),
            "revision": stored.rev,
            **(redact(record) if record is not None else {"error": "the record cannot be read"}),
        }
        self.stdout.write(json.dumps(shown, indent=2, sort_keys=False))

    def _delete(self, writer: Writer, tenant_id: str, yes: bool) -> None:
        if tenant_id not in writer.records([tenant_id]):
            raise CommandError(_absent(writer, tenant_id))
        if not yes and sys.stdin.isatty():
            typed = input(f"Every process stops serving {tenant_id}. Type its id to delete it: ")
            if typed.strip() != tenant_id:
                raise CommandError("nothing was deleted")
        self.stdout.write(f"deleted {tenant_id}, revision {writer.set_state([tenant_id], DELETED)}")


def _absent(writer: Writer, tenant_id: str) -> str:
    entry = writer.index().get(tenant_id)
    return f"tenant {tenant_id!r} was deleted" if entry else f"the store has no tenant {tenant_id!r}"
