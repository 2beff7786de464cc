"""Signs the ids that Elasticsearch gives out (of scrolls, points in time, tasks): only their tenant can use them.

The cluster would take a scroll id from anybody. What the application gets is the id behind a
keyed hash of it and of its tenant. The key is derived from ``SECRET_KEY``, so every process
of the service can verify what another one signed.
"""

from __future__ import annotations

from typing import Any

from django.utils.crypto import constant_time_compare, salted_hmac

from tenant_router.exceptions import TenantMismatch
from tenant_router.orm_backends.es_orm.errors import RequestRefused

_SALT = "tenant_router.orm_backends.es_orm.signed_ids"


class SignedIds:
    """Signs and verifies the ids of one tenant at one alias."""

    __slots__ = ("_owner",)

    def __init__(self, tenant_id: str, alias: str) -> None:
        self._owner = f"{tenant_id}/{alias}"

    def sign(self, kind: str, plain: str) -> str:
        """What the application gets for an id. ``kind``: "scroll", "pit", "async", "eql" or "task"."""
        return f"{self._signature(kind, plain)}.{plain}"

    def unsign(self, kind: str, signed: Any) -> str:
        """The id for the cluster. Raises ``TenantMismatch`` unless it was signed for this tenant and alias."""
        if not isinstance(signed, str):
            raise RequestRefused(f"the id of a {kind} is a string, not a {type(signed).__name__}")
        signature, _, plain = signed.partition(".")
        if not constant_time_compare(signature, self._signature(kind, plain)):
            raise TenantMismatch(f"the {kind} id was not given to tenant {self._owner.partition('/')[0]!r}")
        return plain

    def unsign_all(self, kind: str, signed: Any) -> list[str]:
        """The ids of a list, or of a string with commas."""
        ids = signed.split(",") if isinstance(signed, str) else signed
        if not isinstance(ids, list | tuple):
            raise RequestRefused(f"ids of a {kind} are a list, not a {type(ids).__name__}")
        return [self.unsign(kind, one) for one in ids]

    def _signature(self, kind: str, plain: str) -> str:
        return salted_hmac(_SALT, f"{self._owner}/{kind}/{plain}", algorithm="sha256").hexdigest()[:32]
