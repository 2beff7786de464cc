"""Every exception of the package.

All of them derive from :class:`TenantRouterError`, so one ``except`` clause covers the
package. Leaves are named by the situation; a message says what happened, to which tenant
or alias, and what to do about it. No message ever carries a credential.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.exceptions import ImproperlyConfigured


class TenantRouterError(Exception):
    """Root of all errors raised by tenant_router."""


class ConfigurationError(TenantRouterError, ImproperlyConfigured):
    """A setting of the project is missing, misspelt or of a wrong type."""


class BootError(ConfigurationError):
    """A server may not start: its config store is unreachable, empty or refused."""


# --- identity and context -------------------------------------------------------------


class InvalidTenantId(TenantRouterError, ValueError):
    """A string that is no tenant id was offered as one."""


class TenantContextMissing(TenantRouterError):
    """Something that belongs to a tenant was used while no tenant was bound."""


class TenantMismatch(TenantRouterError):
    """Something that belongs to one tenant was used while another one was bound."""


class TransactionOpen(TenantMismatch):
    """The bound tenant was to change while a transaction on its database was open."""


class RealDatabase(TenantRouterError):
    """A test run was to open a database that is no test database."""


class TenantUnresolved(TenantRouterError):
    """A tenant cannot be bound; the subclasses say why."""

    def __init__(self, message: str, tenant_id: str = "") -> None:
        super().__init__(message)
        self.tenant_id = tenant_id


class TenantNotFound(TenantUnresolved):
    """No tenant of this id is known to this process or to the config store."""


class TenantDeleted(TenantUnresolved):
    """The tenant was deleted, or is being drained before its deletion."""


class TenantUnavailable(TenantUnresolved):
    """The tenant exists but cannot be served now; asking again later may succeed."""


class TenantSuspended(TenantUnavailable):
    """The tenant was suspended by an operator."""


class TenantProvisioning(TenantUnavailable):
    """The tenant is being created: its databases are not ready yet."""


class TenantMisconfigured(TenantUnavailable):
    """The tenant's record was refused and no earlier good one is held."""


class TenantNotLoaded(TenantUnavailable):
    """The tenant is known, but its record could not be read while the store is away."""


class WrongDatabase(TenantUnavailable):
    """A tenant's record leads to a database that says that it is somebody else's, or does not say whose it is."""


class TooManyConnections(TenantUnavailable):
    """As many tenant connections or clients are open as may be, and all of them are in use."""


# --- records --------------------------------------------------------------------------


def printable(text: str) -> str:
    """``text`` that others chose, with escapes for what a terminal obeys or cannot show."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def one_line(error: BaseException) -> str:
    """An error in one line, of its kind and at most 500 characters of what it says."""
    text = " ".join(str(error).split())[:500]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class RecordInvalid(TenantRouterError, ValueError):
    """A tenant's configuration was refused.

    ``problems`` lists every fault as ``(json path, what is wrong and what to do)``; the message tells the
    first ones, because it is logged for each process and may be told for each request.
    """

    TOLD, LONGEST = 8, 300  # faults in the message, and characters of each

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = tuple((printable(path), printable(what)) for path, what in problems)
        told = [f"{path}: {what}" if path else what for path, what in self.problems[: self.TOLD]]
        left = len(self.problems) - len(told)
        told = [each if len(each) <= self.LONGEST else f"{each[: self.LONGEST]}..." for each in told]
        super().__init__("; ".join(told) + (f"; and {left} more" if left else ""))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.problems,)


class SerializerError(TenantRouterError, ValueError):
    """Stored bytes are not what the configured serializer writes."""


# --- config store ---------------------------------------------------------------------


class StoreError(TenantRouterError):
    """Root of the five errors that a config store may raise."""


class StoreUnavailable(StoreError):
    """The store did not answer, or cannot take writes now."""


class EpochChanged(StoreError):
    """The store's history is not the one that the caller has followed."""


class Compacted(StoreError):
    """The log no longer reaches back to the caller's position: read the whole index."""


class Conflict(StoreError):
    """A compare-and-set did not hold: somebody else wrote first; nothing was written."""

    def __init__(self, tenant_id: str, expected: int, have: int) -> None:
        self.tenant_id, self.expected, self.have = tenant_id, expected, have
        what = "mapping_metadata" if tenant_id == "@meta" else f"tenant {tenant_id!r}"
        now = f"is at revision {have}, not {expected}" if have else f"was deleted and is not at revision {expected}"
        super().__init__(f"{what} was changed by somebody else meanwhile: it {now}; nothing was written, try again")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.tenant_id, self.expected, self.have)


class Denied(StoreError):
    """The store refused the credentials or the command."""


class Locked(TenantRouterError):
    """Somebody else works on the same tenant's database."""


class MigrationInterrupted(TenantRouterError):
    """A migration was killed in the middle that its database cannot roll back: somebody must look at it."""


class ProvisioningError(TenantRouterError):
    """A tenant was not created, or not removed: the message says at which step, why, and how it goes on."""


class LastGoodUnusable(TenantRouterError):
    """There is no last-good file, or it is too old, damaged, another service's, or encrypted with another key."""
