"""``manage.py tenant_store show|check|accept|purge|min-reader``."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from typing import Any

from django.core.management.base import CommandError, CommandParser

from tenant_router import runtime
from tenant_router.config_store.base import DELETED, META_ID, READS, STATE_NAMES, ConfigStore, packed_state
from tenant_router.exceptions import printable
from tenant_router.lifecycle import Writer, refused_records
from tenant_router.management.operator import OperatorCommand, confirm
from tenant_router.reactive.shrinking import ACCEPTED

LASTS = 600.0  # seconds for which an acceptance holds: every process looks again within its resync, or its backoff


class Command(OperatorCommand):
    """For the day on which a store comes back with less than it had, and the one before an upgrade."""

    help = "Shows the config store, lists refused records, accepts that it lost tenants, or keeps it tidy."

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the sub-commands."""
        commands = parser.add_subparsers(dest="command", required=True)
        commands.add_parser("show", help="Its history and how many tenants it has.")
        commands.add_parser("check", help="The records that this release would refuse, with what is wrong in each.")
        accept = commands.add_parser(
            "accept", help="Let every process drop the tenants that the store lost without their having been deleted."
        )
        accept.add_argument("--epoch", required=True, help="The history that you looked at, as `show` prints it.")
        purge = commands.add_parser("purge", help="Forget the tombstones of tenants that were deleted long ago.")
        purge.add_argument(
            "--older-than", type=_seconds, required=True, metavar="TIME", help="Such as 30d, 12h, 90m or 45s."
        )
        for command in (accept, purge):
            command.add_argument("--yes", action="store_true", help="Do not ask.")
        insist = commands.add_parser("min-reader", help="Refuse processes that understand older formats only.")
        insist.add_argument("format", type=int, help=f"This release understands {READS}.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it."""
        if options["command"] == "show":
            self._show()
        elif options["command"] == "check":
            self._check()
        elif options["command"] == "accept":
            self._accept(options["epoch"], options["yes"])
        elif options["command"] == "purge":
            self._purge(options["older_than"], options["yes"])
        else:
            self._insist(options["format"])

    def _show(self) -> None:
        router = runtime.get()
        head = router.store.head()
        states = self._states(router)
        self.stdout.write(f"service   {router.conf.service}\nepoch     {head.epoch}\nrevision  {head.rev}")
        for state, name in STATE_NAMES.items():
            self.stdout.write(f"{name:<13} {states.get(state, 0)}")

    def _check(self) -> None:
        refused = 0
        for tenant_id, faults in refused_records(runtime.get()):
            refused += 1
            for path, what in faults:
                self.stdout.write("\t".join(filter(None, (printable(tenant_id[:260]), path, what))))
        if refused:
            raise CommandError("records are refused as listed above: change them before processes of this release run")
        self.stdout.write("no record is refused")

    def _states(self, router: runtime.Runtime) -> Counter[str]:
        index = Writer(router).index()
        index.pop(META_ID, None)
        return Counter(map(packed_state, index.values()))

    def _purge(self, older_than: float, yes: bool) -> None:
        store = self._keeping_house()
        confirm(
            "the tenants that were deleted that long ago will be unknown (404) instead of deleted (410)",
            answer="yes",
            otherwise="nothing was purged",
            yes=yes,
        )
        self.stdout.write(f"purged {store.purge(older_than)} tombstones; running processes forget them within RESYNC")

    def _insist(self, min_reader: int) -> None:
        if not 0 <= min_reader <= READS:
            raise CommandError(f"this release understands format {READS}: a newer one can be asked for by newer ones")
        self._keeping_house().insist(min_reader)
        self.stdout.write(f"readers must understand format {min_reader}")

    def _keeping_house(self) -> ConfigStore:
        store = runtime.get().store
        if not store.keeps_house:
            raise CommandError("this config store has neither tombstones that end nor a minimal reader")
        return store

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


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+)([dhms])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 30d, 12h, 90m or 45s")
    return float(found[1]) * {"d": 86400, "h": 3600, "m": 60, "s": 1}[found[2]]
