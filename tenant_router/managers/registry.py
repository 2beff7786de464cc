"""What this process knows of the tenants: the index, the prepared contexts and the refusals.

One writer at a time (``reactive.publishing``) publishes by single item assignments of immutable
values; readers take no lock and do no I/O once the process has synchronised.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn, Protocol, TypeVar

from tenant_router import identity
from tenant_router.config_store.base import packed_state, unpack
from tenant_router.exceptions import (
    TenantDeleted,
    TenantMisconfigured,
    TenantNotFound,
    TenantNotLoaded,
    TenantProvisioning,
    TenantSuspended,
    TenantUnresolved,
)
from tenant_router.tenant_context import DeniedContext, FixedContext, NamedContext, PlainContext, TenantContext

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_CLOSED: dict[str, tuple[type[TenantUnresolved], str]] = {
    "P": (TenantProvisioning, "is being provisioned"),
    "S": (TenantSuspended, "is suspended"),
    "D": (TenantDeleted, "is being deleted"),
    "X": (TenantDeleted, "was deleted"),
}
_ODD = (TenantMisconfigured, "has an entry in the store's index that this process cannot understand")


class Refusal(NamedTuple):
    """A record that this process did not take: its revision, and why (no values, no secrets).

    ``again``: the ``time.monotonic()`` at which it is tried again, after so many ``tries``, because the record need
    not be at fault; infinite where it is.
    """

    revision: int
    reason: str
    again: float = math.inf
    tries: int = 0


class Perishable(dict[str, TenantContext]):
    """What a process serves when it may not serve what is too old: each look at it asks ``too_old`` first.

    Asked, and not emptied by somebody when it is time: a stopped process would serve what it had when it goes on.
    """

    def __init__(self, too_old: Callable[[], bool]) -> None:
        self._too_old = too_old

    def get(self, tenant_id: str, default: Any = None) -> Any:
        """Like a dictionary's. Raises ``TenantNotLoaded`` when all of it is too old."""
        if self._too_old():
            raise TenantNotLoaded(
                f"tenant {tenant_id!r} is not served: the config store is away for too long", tenant_id
            )
        return super().get(tenant_id, default)


class Source(Protocol):
    """Where the registry gets what it does not hold; the runtime implements it."""

    def synchronise(self) -> None:
        """Fill the registry if this process has not done so yet."""

    def load(self, tenant_id: str) -> TenantContext:
        """Prepare a tenant that the index knows. Raises ``TenantUnavailable``."""

    def look_up(self, tenant_id: str) -> bool:
        """Ask the store for an id that the index does not know; whether it is known now."""


class TenantContextManager:
    """The registry of tenants (``tenant_router.managers.tenant_context_manager``)."""

    def __init__(self) -> None:
        self.owner: object = None  # the process's runtime
        self.source: Source | None = None
        self._template_aliases: tuple[str, ...] = ()
        self._too_old: Callable[[], bool] | None = None
        self.withheld = False  # nothing is served before the next ``serve``
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        # tenant id -> what the store's index says of it, packed
        self.index: dict[str, str] = {}
        self.prepared: dict[str, TenantContext] = {}  # every state
        # active ones only: what the request path reads
        self.serving: dict[str, TenantContext] = self._nothing()
        self.withheld = False
        self.refusals: dict[str, Refusal] = {}
        # tenant id -> the revision of a record that led to somebody else's database
        self.wrong_databases: dict[str, int] = {}
        # In a test run: who answers requests for a host that is nobody's, such as "testserver"
        self.any_host: TenantContext | None = None

    def attach(
        self,
        source: Source | None,
        template_aliases: tuple[str, ...] = (),
        too_old: Callable[[], bool] | None = None,
    ) -> None:
        """Take what is missing from ``source`` from now on; connection aliases end in ``template_aliases``.

        While ``too_old()`` is true, nothing is served.
        """
        self.source, self._template_aliases, self._too_old = source, template_aliases, too_old
        self.serving = self._nothing()

    def get_by_id(self, tenant_id: str) -> TenantContext:
        """The current context of an active tenant.

        Raises ``TenantNotFound``, ``TenantDeleted`` or a ``TenantUnavailable`` that says why.
        """
        context = self.serving.get(tenant_id)
        return context if context is not None else self._resolve(tenant_id, "A")

    def get_in_any_state(self, tenant_id: str) -> TenantContext:
        """Like :meth:`get_by_id` for operators: provisioning and suspended tenants too."""
        return self._resolve(tenant_id, "APSD")

    def find_again(self, context: TenantContext) -> TenantContext:
        """The current context of a tenant of which ``context`` was kept; raises as :meth:`get_by_id` does.

        One that is current still stays, whatever the tenant's state: an operator may have bound it.
        """
        if self.source is None or isinstance(context, PlainContext | DeniedContext | FixedContext):
            return context
        if isinstance(context, NamedContext) and context.any_state:
            return self.get_in_any_state(context.id)
        held = self.prepared.get(context.id)
        if held is context or (held is not None and self.state_of(context.id) == "P"):
            return held
        return self.get_by_id(context.id)

    def get_by_alias(self, alias: str) -> TenantContext:
        """The context of the tenant whose connection alias ``alias`` is; raises as :meth:`get_by_id` does."""
        tenant_id = self.owner_of(alias)
        if tenant_id is None:
            raise TenantNotFound(f"no known tenant has the connection alias {alias[:300]!r}")
        return self.get_by_id(tenant_id)

    def owner_of(self, alias: str) -> str | None:
        """The id of the tenant whose connection alias ``alias`` is, or ``None`` when it is nobody's."""
        for tenant_id, _ in identity.candidates(alias, self._template_aliases):
            if self.contains(tenant_id):
                return tenant_id
        return None

    def contains(self, tenant_id: str) -> bool:
        """Whether the tenant exists and is not deleted. A misconfigured one exists."""
        return self.state_of(tenant_id) not in (None, "X")

    def get_tenant_ids(self) -> list[str]:
        """The ids of all tenants but the deleted ones, in no particular order."""
        self._synchronise()
        return self.get_known_ids()

    def get_known_ids(self) -> list[str]:
        """Like :meth:`get_tenant_ids`, of what is known so far: no I/O ever."""
        # a copy, because others write meanwhile; without a call for each of 100,000
        return [tenant_id for tenant_id, entry in self.index.copy().items() if ":X:" not in entry]

    def all(self) -> Iterator[TenantContext]:
        """The contexts of the active tenants, prepared one by one as the iteration reaches them.

        One that cannot be prepared is left out, with a warning: it must not hide those after it.
        """
        for tenant_id in self.get_tenant_ids():
            if self.state_of(tenant_id) != "A":
                continue
            try:
                context = self.get_by_id(tenant_id)
            except TenantUnresolved as error:
                logger.warning("left out: %s", error, extra={"tenant_id": tenant_id})
            else:
                yield context

    def state_of(self, tenant_id: str) -> str | None:
        """The tenant's state letter (see ``config_store.base``), or ``None`` if it is unknown."""
        self._synchronise()
        entry = self.index.get(tenant_id)
        return None if entry is None else packed_state(entry)

    def revision_of(self, tenant_id: str) -> int:
        """The revision that is known of a tenant, that of its deletion too; 0 if it is unknown. No I/O."""
        entry = self.index.get(tenant_id)
        return unpack(entry)[0] if entry else 0

    def refused(self, tenant_id: str) -> NoReturn:
        """Raise what says why there is nothing to serve of a tenant: its record was refused, or cannot be read now."""
        refusal = self.refusals.get(tenant_id)
        if refusal is None or refusal.again == math.inf:
            reason = refusal.reason if refusal else "no config store is attached"
            raise TenantMisconfigured(f"the configuration of tenant {tenant_id!r} was refused: {reason}", tenant_id)
        raise TenantNotLoaded(f"tenant {tenant_id!r} cannot be served now: {refusal.reason}", tenant_id)

    # --- written by the publisher, one change at a time ---

    def publish(
        self, tenant_id: str, entry: str | None, context: TenantContext | None, refusal: Refusal | None = None
    ) -> None:
        """Make all of it what everybody sees; ``None`` is for what there is not (any more)."""
        _put(self.index, tenant_id, entry)
        _put(self.prepared, tenant_id, context)
        _put(self.refusals, tenant_id, refusal)
        self.wrong_databases.pop(tenant_id, None)
        self._show(tenant_id)

    def withhold(self) -> None:
        """Serve nothing before :meth:`serve`: a forked child has its parent's knowledge, which ages."""
        self.withheld, self.serving = True, {}  # a look-up must lead to ``source``, however old all of it is

    def serve(self) -> None:
        """Undo :meth:`withhold`."""
        self.withheld, self.serving = False, self._nothing()
        for tenant_id in self.prepared:
            self._show(tenant_id)

    # --- inside ---

    def _nothing(self) -> dict[str, TenantContext]:
        return Perishable(self._too_old) if self._too_old else {}

    def _show(self, tenant_id: str) -> None:
        context = self.prepared.get(tenant_id)
        if context is not None and not self.withheld and packed_state(self.index[tenant_id]) == "A":
            self.serving[tenant_id] = context
        else:
            self.serving.pop(tenant_id, None)

    def _synchronise(self) -> None:
        if self.source is not None:
            self.source.synchronise()

    def _resolve(self, tenant_id: str, states: str) -> TenantContext:
        self._synchronise()
        if states == "A":
            self.serving.get(
                tenant_id
            )  # raises if all of it is too old, which the first look could not tell in a child
        entry = self.index.get(tenant_id)
        if entry is None:
            if self.source is None or not identity.is_tenant_id(tenant_id) or not self.source.look_up(tenant_id):
                raise TenantNotFound(f"no tenant {tenant_id[:260]!r} is known", tenant_id)
            entry = self.index[tenant_id]
        if packed_state(entry) not in states:
            error, what = _CLOSED.get(packed_state(entry), _ODD)
            raise error(f"tenant {tenant_id!r} {what}", tenant_id)
        context = self.prepared.get(tenant_id)
        if context is not None:
            return context
        return self._load(tenant_id)

    def _load(self, tenant_id: str) -> TenantContext:
        refusal = self.refusals.get(tenant_id)
        if self.source is None or (refusal is not None and refusal.again > time.monotonic()):
            self.refused(tenant_id)
        return self.source.load(tenant_id)


def _put(known: dict[str, _T], tenant_id: str, value: _T | None) -> None:
    if value is None:
        known.pop(tenant_id, None)
    else:
        known[tenant_id] = value
