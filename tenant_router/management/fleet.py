"""Waiting for the fleet: shared by ``tenant_status`` and all commands that have ``--wait``."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable, Iterator

from django.core.management.base import CommandError

from tenant_router.config_store.base import ConfigStore, Head
from tenant_router.exceptions import printable
from tenant_router.reactive.fleet import Member, Standing, standing
from tenant_router.runtime import Runtime

POLL = 0.25  # seconds between two looks at the fleet
CONVERGED, RAN_OUT, REFUSED = 0, 1, 2  # exit codes, as of ``kubectl rollout status``
_COLUMNS = ("HOST", "PID", "ROLE", "REVISION", "LAG", "STATE", "SEEN", "TENANTS", "REFUSED")


def require_leases(store: ConfigStore) -> None:
    """Raise ``CommandError`` for a store in which no process says what it has."""
    if not store.keeps_leases:
        raise CommandError("this config store keeps no leases, so nobody knows which processes there are: do not wait")


def look(store: ConfigStore, target: Head, tenant_ids: Iterable[str], lasts: float) -> Standing:
    """The fleet as it stands now. Raises ``CommandError`` for a store that keeps no leases, ``StoreError``."""
    require_leases(store)
    return standing(store, target, tenant_ids, silent_after=lasts * 0.45)


def wait(looks: Callable[[], Standing], timeout: float) -> Standing:
    """Look until nobody lags any more, or for ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        found = looks()
        if found.settled or time.monotonic() >= deadline:
            return found
        time.sleep(POLL)


def wait_everywhere(runtime: Runtime, tenant_ids: list[str], timeout: float) -> str:
    """Wait until every living process has what the store has now, and return what to say then.

    Raises ``CommandError``: with exit code 3 when ``timeout`` (seconds) runs out, and for a record that is refused.
    """
    target, lasts = runtime.store.head(), runtime.conf.store_options["STATUS_TTL"]
    found = wait(lambda: look(runtime.store, target, tenant_ids, lasts), timeout)
    if not found.settled:
        raise CommandError(f"after {timeout:g} s not at: {behind(found)}", returncode=3)
    if found.refusing:
        raise CommandError(f"a record is refused by: {names(found.refusing)}")
    return everywhere(found, target)


def everywhere(found: Standing, target: Head) -> str:
    """What to say when all have converged."""
    if not found.members:
        return f"revision {target.rev}: no process follows the store"
    return f"revision {target.rev} is live in all {len(found.members)} processes"


def table(found: Standing, target: Head) -> Iterator[str]:
    """A line per process, the columns aligned."""
    rows = [_COLUMNS, *(tuple(map(printable, _row(one, target))) for one in found.members)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(one: Member, target: Head) -> tuple[str, ...]:
    lag = str(max(0, target.rev - one.revision)) if one.epoch == target.epoch else "other history"
    seen, count = f"{one.age:.0f}s ago", str(one.tenants)
    return one.host, str(one.pid), one.role, str(one.revision), lag, one.state, seen, count, refusals(one) or "-"


def refusals(one: Member) -> str:
    """The tenants whose records a process refuses, and at which revision."""
    told = ",".join(f"{tenant_id}@{revision}" for tenant_id, revision in sorted(one.refusals.items()))
    more = one.refused - len(one.refusals)
    return told + (f" and {more} more" if more > 0 else "")


def behind(found: Standing) -> str:
    """Who lags, or may lag for all that is known here."""
    unread = f"{len(found.unreadable)} processes whose leases this release cannot read" if found.unreadable else ""
    return ", ".join(filter(None, (names(found.lagging), unread)))


def seconds(text: str) -> float:
    """An argument: a time to wait, which ends. Raises ``argparse.ArgumentTypeError``."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, 0 or more")
    return found


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Declare ``--wait``."""
    parser.add_argument(
        "--wait",
        type=seconds,
        nargs="?",
        const=60.0,
        metavar="SECONDS",
        help="Return when every living process has it (default: %(const)s seconds); else exit with 3.",
    )


def names(members: Iterable[Member]) -> str:
    """Processes as an operator finds them: host and pid."""
    return ", ".join(
        f"{printable(one.host)} pid {one.pid} ({printable(one.role)}, {printable(one.state)}, revision {one.revision})"
        for one in members
    )
