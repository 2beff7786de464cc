"""``manage.py tenant list|show|check|adopt|suspend|resume|drain|delete``."""

from __future__ import annotations

import json
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError

from tenant_router import runtime
from tenant_router.config_store.base import DELETED, STATE_NAMES
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.lifecycle import TRANSITIONS, Stamping, Writer
from tenant_router.log import redact
from tenant_router.management import listing
from tenant_router.management.operator import OperatorCommand, confirm, tenant_name
from tenant_router.managers import tenant_context_manager


class Command(OperatorCommand):
    """Looks at the config store itself, not at what this process has taken from it."""

    help = "Lists, shows, checks, adopts, suspends, resumes, drains or deletes tenants."
    without_tenant = "names its tenant itself"

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the sub-commands."""
        commands = parser.add_subparsers(dest="command", required=True)
        listed = commands.add_parser("list", help="One line per tenant: id, state, revision, databases.")
        listed.add_argument("--json", action="store_true", help="For programs.")
        for name, what in _OF_ONE.items():
            one = commands.add_parser(name, help=what)
            one.add_argument("id", type=tenant_name)
            if name in _ASKING:
                one.add_argument("--yes", action="store_true", help="Do not ask.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it."""
        writer, command = Writer(runtime.get()), options["command"]
        if command == "list":
            self._list(writer, options["json"])
        elif command == "show":
            self._show(writer, options["id"])
        elif command == "check":
            self._check(options["id"])
        elif command == "adopt":
            self._adopt(writer, options["id"], options["yes"])
        elif command == "delete":
            self._delete(writer, options["id"], options["yes"])
        else:
            self._change(writer, options["id"], command)

    def _list(self, writer: Writer, as_json: bool) -> None:
        rows = listing.rows(writer, runtime.get().orms)
        if as_json:
            self.stdout.write(json.dumps([row.as_dict() for row in rows], indent=2))
        else:
            for line in listing.table(rows):
                self.stdout.write(line)

    def _show(self, writer: Writer, tenant_id: str) -> None:
        stored = writer.record(tenant_id)
        record = writer.decoded(tenant_id, stored)
        shown = {
            "id": tenant_id,
            "state": STATE_NAMES.get(stored.state, stored.state),
            "revision": stored.rev,
            **(redact(record) if record is not None else {"error": "the record cannot be read"}),
        }
        self.stdout.write(json.dumps(shown, indent=2, default=_bytes))

    def _check(self, tenant_id: str) -> None:
        with tenant_context_bind(tenant_context_manager.get_in_any_state(tenant_id)):
            answers = [self._told(*answer) for answer in runtime.get().check_health()]
        if not all(answers):
            raise CommandError(f"{answers.count(False)} of {len(answers)} databases of {tenant_id!r} do not answer")

    def _told(self, orm_id: str, alias: str, fault: Exception | None) -> bool:
        """Tell what a database answers; ``False`` if it does not, and not if nobody knows how to ask it."""
        unasked = isinstance(fault, NotImplementedError)
        said = "not checked: " if unasked else f"{type(fault).__name__}: " if fault else "ok"
        said += str(fault).partition("\n")[0][:200] if fault else ""
        self.stdout.write(f"{orm_id}\t{alias}\t{said}")
        return fault is None or unasked

    def _change(self, writer: Writer, tenant_id: str, command: str) -> None:
        transition = TRANSITIONS[command]
        plan, state = writer.plan_transition(tenant_id, transition), STATE_NAMES[transition.target]
        if plan.ops:
            self.stdout.write(f"{tenant_id} is {state} at revision {writer.commit(plan)}")
        else:
            self.stdout.write(f"{tenant_id} is {state} already, nothing changed")

    def _adopt(self, writer: Writer, tenant_id: str, yes: bool) -> None:
        def consent(consequence: str) -> None:
            confirm(consequence, answer=tenant_id, otherwise="nothing was adopted", yes=yes)

        try:
            count, revision = Stamping(runtime.get(), writer).adopt(tenant_id, consent)
        except DatabaseError as error:
            said = " ".join(str(error).split())[:500]
            raise CommandError(f"{tenant_id} is not adopted: {type(error).__name__}: {said}") from error
        self.stdout.write(f"{tenant_id}: {count} database{'s' * (count != 1)} stamped, revision {revision}")

    def _delete(self, writer: Writer, tenant_id: str, yes: bool) -> None:
        plan = writer.plan_state([tenant_id], DELETED)  # as it is now: who changes it while we ask is not overruled
        confirm(f"every process stops serving {tenant_id}", answer=tenant_id, otherwise="nothing was deleted", yes=yes)
        self.stdout.write(f"deleted {tenant_id}, revision {writer.commit(plan)}")


def _bytes(value: bytes) -> str:
    """What a pickled record may hold besides JSON."""
    return f"<{len(value)} bytes>"


_ASKING = ("adopt", "delete")
_OF_ONE = {
    "show": "One tenant's record, secrets masked.",
    "check": "Ask each of a tenant's databases for a sign of life.",
    "adopt": "Write into a tenant's databases whose they are, and compare at each new connection from now on.",
    "suspend": "Answer 503 for a tenant until it is resumed.",
    "resume": "Serve a suspended or draining tenant again.",
    "drain": "Answer 410 to new requests of a tenant; those that run end as they began.",
    "delete": "Delete a tenant, live. Its databases are left as they are.",
}
