"""``manage.py tenant_status``: is a revision live everywhere?"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from django.core.management.base import CommandError, CommandParser

from tenant_router import runtime
from tenant_router.config_store.base import Head
from tenant_router.management import fleet
from tenant_router.management.operator import OperatorCommand, tenant_name
from tenant_router.reactive.fleet import Standing, refusal_to_write


class Command(OperatorCommand):
    """Exit codes as of ``kubectl rollout status``: 0 every living process has it, 1 some lag, 2 a record is refused."""

    help = "Shows every living process and the revision it serves; --wait waits until all of them have it."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument("--wait", action="store_true", help="Wait until no process lags, or for --timeout seconds.")
        parser.add_argument("--revision", type=_revision, help="Instead of the store's latest.")
        parser.add_argument(
            "--tenant", type=tenant_name, metavar="ID", help="Ask for the latest change of this tenant alone."
        )
        parser.add_argument("--timeout", type=fleet.seconds, default=60.0, help="Seconds; default: %(default)s.")
        parser.add_argument("--json", action="store_true", help="For programs.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it."""
        router = runtime.get()
        target = self._target(options)
        asked = [] if options["tenant"] is None else [options["tenant"]]
        lasts = router.conf.store_options["STATUS_TTL"]

        def looks() -> Standing:
            return fleet.look(router.store, target, asked, lasts)

        found = fleet.wait(looks, options["timeout"]) if options["wait"] else looks()
        if options["json"]:
            self.stdout.write(_as_json(found, target))
        else:
            self._tell(found, target)
        if (why := refusal_to_write(router.store)) is not None:
            self.stderr.write(f"the store takes no reports, so these are the last ones that it took: {why}")
        code = fleet.RAN_OUT if not found.settled else fleet.REFUSED if found.refusing else fleet.CONVERGED
        if options["wait"] and not found.members:  # nobody has it: that is not what was waited for
            code = fleet.RAN_OUT
        if code:
            sys.exit(code)

    def _target(self, options: dict[str, Any]) -> Head:
        store, revision = runtime.get().store, options["revision"]
        head = store.head()
        if revision is not None and revision > head.rev:
            raise CommandError(f"the store is at revision {head.rev}: nobody can have {revision}")
        if options["tenant"] is not None and revision is None:
            found = store.get_many([options["tenant"]]).get(options["tenant"])
            if found is None:
                raise CommandError(f"the store has no tenant {options['tenant']!r}; for a deletion, give --revision")
            revision = found.rev
        return head if revision is None else Head(head.epoch, revision, "")

    def _tell(self, found: Standing, target: Head) -> None:
        for line in fleet.table(found, target) if found.members else ():
            self.stdout.write(line)
        if not found.settled:
            self.stderr.write(f"revision {target.rev} is not at: {fleet.behind(found)}")
        if found.refusing:
            self.stderr.write(f"a record is refused by: {fleet.names(found.refusing)}")
        if found.converged:
            self.stdout.write(fleet.everywhere(found, target))


def _revision(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no revision: the first one is 1")
    return int(text)


def _as_json(found: Standing, target: Head) -> str:
    lagging, refusing = {one.uid for one in found.lagging}, {one.uid for one in found.refusing}
    members = [
        {**one._asdict(), "age": round(one.age, 3), "lagging": one.uid in lagging, "refusing": one.uid in refusing}
        for one in found.members
    ]
    said = {
        "epoch": target.epoch,
        "revision": target.rev,
        "converged": bool(members) and found.converged,
        "processes": members,
        "unreadable": found.unreadable,
    }
    return json.dumps(said, indent=2)
