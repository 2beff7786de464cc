"""``manage.py tenant create|template|list|show|check|adopt|suspend|resume|drain|delete``."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError

from tenant_router import runtime
from tenant_router.config_store.base import DELETED, STATE_NAMES
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantUnresolved, one_line
from tenant_router.fleet.selectors import EXISTING, states_in
from tenant_router.lifecycle import TRANSITIONS, Stamping, Writer
from tenant_router.log import redact
from tenant_router.management import creating, listing, selecting
from tenant_router.management.operator import OperatorCommand, confirm, tenant_name
from tenant_router.managers import tenant_context_manager

NAMED = 20  # tenants that one line names


class Command(OperatorCommand):
    """Looks at the config store itself, not at what this process has taken from it."""

    help = "Creates, lists, shows, checks, adopts, suspends, resumes, drains or deletes tenants."
    without_tenant = "names its tenant itself"

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the sub-commands."""
        commands = parser.add_subparsers(dest="command", required=True)
        listed = commands.add_parser("list", help="One line per tenant: id, state, revision, databases.")
        listed.add_argument("--json", action="store_true", help="For programs.")
        selecting.add_selectors(listed)
        commands.add_parser("show", help="One tenant's record, secrets masked.").add_argument("id", type=tenant_name)
        adopt = commands.add_parser("adopt", help=_ADOPT)
        adopt.add_argument("id", type=tenant_name)
        adopt.add_argument("--yes", action="store_true", help="Do not ask.")
        creating.add_arguments(commands)
        for name, what in _OF_SEVERAL.items():
            several = commands.add_parser(name, help=what)
            selecting.add_selectors(several)
            selecting.add_noinput(several)
            if name == "delete":
                several.add_argument("--yes", action="store_true", help="Do not ask whether it is meant.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it."""
        writer, command = Writer(runtime.get()), options["command"]
        if command == "show":
            self._show(writer, options["id"])
        elif command == "list":
            self._list(writer, self._chosen(writer, options) if _selects(options) else None, options["json"])
        elif command == "check":
            self._check(self._chosen(writer, options))
        elif command == "create":
            (creating.undo if options["undo"] else creating.create)(self, options)
        elif command == "template":
            creating.refresh(self)
        elif command == "adopt":
            self._adopt(writer, options["id"], options["yes"])
        elif command == "delete":
            self._delete(writer, self._chosen(writer, options), options["yes"])
        else:
            self._change(writer, self._chosen(writer, options), command)

    def _chosen(self, writer: Writer, options: dict[str, Any]) -> list[str]:
        """Who is selected; patterns mean those with whom the sub-command has something to do."""
        command = options["command"]
        chosen = selecting.choose(
            options["tenants"] or ([":all:"] if command == "list" else []),
            options["exclude"],
            states_in(writer.index()),
            meant=TRANSITIONS[command].sources if command in TRANSITIONS else EXISTING,
            interactive=options.get("interactive", True),
            otherwise="nothing was changed",
        )
        selecting.tell(chosen.remarks, self.stderr)
        return chosen.tenant_ids

    def _list(self, writer: Writer, tenant_ids: Collection[str] | None, as_json: bool) -> None:
        rows = listing.rows(writer, runtime.get().orms, tenant_ids)
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

    def _check(self, tenant_ids: list[str]) -> None:
        answers: list[bool] = []
        for tenant_id in tenant_ids:
            answers += self._answers(tenant_id, f"{tenant_id}\t" if len(tenant_ids) > 1 else "")
        if not all(answers):
            names = _named([*map(repr, tenant_ids)])
            raise CommandError(f"{answers.count(False)} of {len(answers)} databases of {names} do not answer")

    def _answers(self, tenant_id: str, before: str) -> list[bool]:
        try:
            with tenant_context_bind(tenant_context_manager.get_in_any_state(tenant_id)):
                return [self._told(before, *answer) for answer in runtime.get().check_health()]
        except TenantUnresolved as error:
            if not before:
                raise
            self.stdout.write(f"{before}{type(error).__name__}: {error}")
            return [False]

    def _told(self, before: str, orm_id: str, alias: str, fault: Exception | None) -> bool:
        """Tell what a database answers; ``False`` if it does not, and not if nobody knows how to ask it."""
        unasked = isinstance(fault, NotImplementedError)
        said = "not checked: " if unasked else f"{type(fault).__name__}: " if fault else "ok"
        said += str(fault).partition("\n")[0][:200] if fault else ""
        self.stdout.write(f"{before}{orm_id}\t{alias}\t{said}")
        return fault is None or unasked

    def _change(self, writer: Writer, tenant_ids: list[str], command: str) -> None:
        transition = TRANSITIONS[command]
        plan, state = writer.plan_transition(tenant_ids, transition), STATE_NAMES[transition.target]
        writer.commit(plan)
        for tenant_id in tenant_ids:
            revision = plan.revisions.get(tenant_id)
            how = f"at revision {revision}" if revision else "already, nothing changed"
            self.stdout.write(f"{tenant_id} is {state} {how}")

    def _adopt(self, writer: Writer, tenant_id: str, yes: bool) -> None:
        def consent(consequence: str) -> None:
            confirm(consequence, answer=tenant_id, otherwise="nothing was adopted", yes=yes)

        try:
            count, revision = Stamping(runtime.get(), writer).adopt(tenant_id, consent)
        except DatabaseError as error:
            raise CommandError(f"{tenant_id} is not adopted: {one_line(error)}") from error
        self.stdout.write(f"{tenant_id}: {count} database{'s' * (count != 1)} stamped, revision {revision}")

    def _delete(self, writer: Writer, tenant_ids: list[str], yes: bool) -> None:
        plan = writer.plan_state(tenant_ids, DELETED)  # as they are now: who changes one while we ask is not overruled
        answer = tenant_ids[0] if len(tenant_ids) == 1 else f"{len(tenant_ids)} tenants"
        confirm(
            f"every process stops serving {_named(tenant_ids)}",
            answer=answer,
            otherwise="nothing was deleted",
            yes=yes,
        )
        writer.commit(plan)
        for tenant_id in tenant_ids:
            self.stdout.write(f"deleted {tenant_id}, revision {plan.revisions[tenant_id]}")


def _bytes(value: bytes) -> str:
    """What a pickled record may hold besides JSON."""
    return f"<{len(value)} bytes>"


def _selects(options: dict[str, Any]) -> bool:
    return bool(options["tenants"] or options["exclude"])


def _named(tenant_ids: list[str]) -> str:
    """Some of them, and how many more."""
    more = len(tenant_ids) - NAMED
    return ", ".join(tenant_ids[:NAMED]) + (f" and {more} more" if more > 0 else "")


_ADOPT = "Write into a tenant's databases whose they are, and compare at each new connection from now on."
_OF_SEVERAL = {
    "check": "Ask each of the tenants' databases for a sign of life.",
    "suspend": "Answer 503 for tenants until they are resumed.",
    "resume": "Serve suspended or draining tenants again.",
    "drain": "Answer 410 to new requests of tenants; those that run end as they began.",
    "delete": "Delete tenants, live. Their databases are left as they are.",
}
