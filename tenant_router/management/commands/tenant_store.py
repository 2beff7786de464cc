"""``manage.py tenant_store show|accept``."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.core.management.base import CommandError, CommandParser

from tenant_router import runtime
from tenant_router.config_store.base import DELETED, META_ID, STATE_NAMES, packed_state
from tenant_router.lifecycle import Writer
from tenant_router.management.operator import OperatorCommand, confirm
from tenant_router.reactive.shrinking import ACCEPTED

LASTS = 600.0  # seconds for which an acceptance holds: every process looks again within its resync, or its backoff


class Command(OperatorCommand):
    """For the day on which a store comes back with less than it had."""

    help = "Shows the config store, or accepts that it lost tenants."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the sub-commands."""
        commands = parser.add_subparsers(dest="command", required=True)
        commands.add_parser("show", help="Its history and how many tenants it has.")
        accept = commands.add_parser(
            "accept", help="Let every process drop the tenants that the store lost without their having been deleted."
        )
        accept.add_argument("--epoch", required=True, help="The history that you looked at, as `show` prints it.")
        accept.add_argument("--yes", action="store_true", help="Do not ask.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it."""
        if options["command"] == "show":
            self._show()
        else:
            self._accept(options["epoch"], options["yes"])

    def _show(self) -> None:
        router = runtime.get()
        head = router.store.head()
        states = self._states(router)
        self.stdout.write(f"service   {router.conf.service}\nepoch     {head.epoch}\nrevision  {head.rev}")
        for state, name in STATE_NAMES.items():
            self.stdout.write(f"{name:<13} {states.get(state, 0)}")

    def _states(self, router: runtime.Runtime) -> Counter[str]:
        index = Writer(router).index()
        index.pop(META_ID, None)
        return Counter(map(packed_state, index.values()))

    def _accept(self, epoch: str, yes: bool) -> None:
        router = runtime.get()
        head = router.store.head()
        if epoch != head.epoch:
            raise CommandError(f"the store's history is {head.epoch!r} and not {epoch!r}: look at it again (show)")
        if not router.store.keeps_claims:
            raise CommandError("this config store keeps no claims: restart the processes instead")
        states = self._states(router)
        tenants = states.total() - states[DELETED]
        confirm(
            f"every process will serve the {tenants} tenants of this store and no others",
            answer="yes",
            otherwise="nothing was accepted",
            yes=yes,
        )
        router.store.claim(ACCEPTED, f"{head.epoch}:{head.rev}", LASTS)
        self.stdout.write(f"accepted {tenants} tenants at revision {head.rev}, for {LASTS:.0f} s; see tenant_status")
