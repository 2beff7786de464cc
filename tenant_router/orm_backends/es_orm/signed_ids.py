"""Ids that the cluster gives out, such as those of scrolls, sealed so that only their tenant can use them.

The cluster would take a scroll id from anybody. What the application gets is the id behind a
keyed hash of it and of its tenant. The key is derived from ``SECRET_KEY``, so every process
of the service can open what another one sealed.
"""

from __future__ import annotations

from typing import Any

from django.utils.crypto import constant_time_compare, salted_hmac

from tenant_router.exceptions import TenantMismatch
from tenant_router.orm_backends.es_orm.errors import RequestRefused

_SALT = "tenant_router.orm_backends.es_orm.signed_ids"


class Seals:
    """Seals and opens the ids of one tenant at one alias."""

    __slots__ = ("_owner",)

    def __init__(self, tenant_id: str, alias: str) -> None:
        self._owner = f"{tenant_id}/{alias}"

    def seal(self, kind: str, plain: str) -> str:
        """What the application gets for an id. ``kind``: "scroll", "pit", "async", "eql" or "task"."""
        return f"{self._mark(kind, plain)}.{plain}"

    def open(self, kind: str, sealed: Any) -> str:
        """The id for the cluster. Raises ``TenantMismatch`` unless this tenant got it here."""
        if not isinstance(sealed, str):
            raise RequestRefused(f"the id of a {kind} is a string, not a {type(sealed).__name__}")
        mark, _, plain = sealed.partition(".")
        if not constant_time_compare(mark, self._mark(kind, plain)):
            raise TenantMismatch(f"the {kind} id was not given to tenant {self._owner.partition('/')[0]!r}")
        return plain

    def open_all(self, kind: str, sealed: Any) -> list[str]:
        """The ids of a list, or of a string with commas."""
        ids = sealed.split(",") if isinstance(sealed, str) else sealed
        if not isinstance(ids, list | tuple):
            raise RequestRefused(f"ids of a {kind} are a list, not a {type(ids).__name__}")
        return [self.open(kind, one) for one in ids]

    def _mark(self, kind: str, plain: str) -> str:
        return salted_hmac(_SALT, f"{self._owner}/{kind}/{plain}", algorithm="sha256").hexdigest()[:32]
