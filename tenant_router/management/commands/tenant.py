"""``manage.py tenant list|show|check|delete``."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenant_router import runtime
from tenant_router.config_store.base import DELETED, META_ID, STATE_NAMES, unpack
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.lifecycle import Writer
from tenant_router.log import redact
from tenant_router.managers import tenant_context_manager


class Command(BaseCommand):
    """Looks at the config store itself, not at what this process has taken from it."""

    help = "Lists, shows, checks or deletes tenants."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the sub-commands."""
        commands = parser.add_subparsers(dest="command", required=True)
        commands.add_parser("list", help="One line per tenant: id, state, revision.")
        show = commands.add_parser("show", help="One tenant's record, secrets masked.")
        show.add_argument("id")
        check = commands.add_parser("check", help="Ask each of a tenant's databases for a sign of life.")
        check.add_argument("id")
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
        elif options["command"] == "check":
            self._check(options["id"])
        else:
            self._delete(writer, options["id"], options["yes"])

    def _list(self, writer: Writer) -> None:
        for tenant_id, entry in sorted(writer.index().items()):
            revision, state, _ = unpack(entry)
            if tenant_id != META_ID and state != DELETED:
                self.stdout.write(f"{tenant_id}\t{STATE_NAMES.get(state, state)}\t{revision}")

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

    def _check(self, tenant_id: str) -> None:
        with tenant_context_bind(tenant_context_manager.get_in_any_state(tenant_id)):
            answers = [self._told(*answer) for answer in runtime.get().check_health()]
        if not all(answers):
            raise CommandError(f"{answers.count(False)} of {len(answers)} databases of {tenant_id!r} do not answer")

    def _told(self, orm_id: str, alias: str, fault: Exception | None) -> bool:
        """Tell what a database answers; whether it answers at all."""
        said = f"{type(fault).__name__}: {str(fault).partition(chr(10))[0][:200]}" if fault else "ok"
        self.stdout.write(f"{orm_id}\t{alias}\t{said}")
        return fault is None

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
