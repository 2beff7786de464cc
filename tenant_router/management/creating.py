"""``tenant create`` and ``tenant template refresh``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from tenant_router import runtime
from tenant_router.lifecycle import provision, refresh_reference, undo_provisioning
from tenant_router.management import fleet
from tenant_router.management.operator import USAGE, OperatorCommand, confirm, tenant_name

CREATE = "Make a tenant: record, databases, migrations, first data. The same command goes on after a failure."


def add_arguments(commands: Any) -> None:
    """Declare the sub-commands."""
    create = commands.add_parser("create", help=CREATE)
    create.add_argument("id", type=tenant_name)
    create.add_argument(
        "--record", metavar="FILE", help="What the record says besides what is derived: JSON; '-': stdin."
    )
    create.add_argument("--from-template", action="store_true", help="Copy the reference databases.")
    create.add_argument("--seed", action="append", default=[], metavar="FIXTURE", help="For loaddata; may be repeated.")
    create.add_argument("--undo", action="store_true", help="Remove what was made for a tenant that is not active yet.")
    create.add_argument("--yes", action="store_true", help="Do not ask.")
    fleet.add_wait(create)
    template = commands.add_parser("template", help="The databases that --from-template copies.")
    template.add_argument("action", choices=["refresh"], help="Make or migrate them.")


def create(command: OperatorCommand, options: dict[str, Any]) -> None:
    """Run ``tenant create``. Raises ``CommandError``, ``TenantRouterError``."""
    router, tenant_id = runtime.get(), options["id"]
    if options["wait"] is not None:
        fleet.require_leases(router.store)
    record = _read(options["record"], router.conf.service) if options["record"] else None
    command.so_far = "run the same command again to go on, or with --undo to remove what it has made"

    def tell(step: str) -> None:
        if options["verbosity"] > 1:
            command.stdout.write(f"{tenant_id}: {step}")

    revision = provision(
        tenant_id, record=record, from_template=options["from_template"], seed=options["seed"], tell=tell
    )
    command.so_far = f"{tenant_id} is active at revision {revision}"
    command.stdout.write(command.so_far)
    if options["wait"] is not None:
        command.stdout.write(fleet.wait_everywhere(router, [tenant_id], options["wait"]))


def refresh(command: OperatorCommand) -> None:
    """Run ``tenant template refresh``."""
    command.so_far = "run the same command again to complete it"
    for name in refresh_reference(runtime.get()):
        command.stdout.write(f"{name}: the reference database is up to date")


def undo(command: OperatorCommand, options: dict[str, Any]) -> None:
    """Run ``tenant create --undo``. Raises ``CommandError``, ``TenantRouterError``."""
    if options["record"] or options["from_template"] or options["seed"] or options["wait"] is not None:
        raise CommandError("--undo takes no other option but --yes", returncode=USAGE)
    tenant_id = options["id"]

    def consent(consequence: str) -> None:
        confirm(consequence, answer=tenant_id, otherwise="nothing was removed", yes=options["yes"])
        command.so_far = "run it with --undo again to complete it"

    for what in undo_provisioning(tenant_id, consent):
        command.stdout.write(f"removed {what}")
    command.stdout.write(f"{tenant_id} is not being created any more")


def _read(name: str, service: str) -> dict[str, Any]:
    """The record in a file: what a configuration file has for a tenant, with or without the service's name."""
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
        found = json.loads(text)
    except (OSError, ValueError) as error:
        raise CommandError(f"--record {name}: {error}") from error
    if not isinstance(found, dict):
        raise CommandError(f'--record {name}: is no JSON object such as {{"orm_config": {{...}}}}')
    if found.keys() == {service} and isinstance(found[service], dict):
        return dict(found[service])
    return found
