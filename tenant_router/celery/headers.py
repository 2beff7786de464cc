"""What a task's message says of its tenant: the header ``tenant_id`` is the whole protocol.

Facts relied on, each with a test: custom headers of a message are keys of a worker's request, and in
``task.request.headers``; those of an eager task and of a message of protocol 1 are in ``headers``; those of a
signature in its options.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tenant_router import context as _context

TENANT, REVISION, TRIES = "tenant_id", "tenant_revision", "tenant_tries"


def headers_of(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where a request, or the headers of a message, names its tenant, if it names one."""
    return request if TENANT in request else request.get("headers") or request


def tenant_of(signature: Any) -> str | None:
    """The tenant that a signature names in its headers."""
    found = ((signature.get("options") or {}).get("headers") or {}).get(TENANT)
    return None if found is None else str(found)


def current() -> dict[str, Any]:
    """The headers that name the bound tenant and the revision at which it is bound; empty where none is."""
    bound = _context.current()
    return {} if bound is None else {TENANT: bound.id, REVISION: bound.revision}
