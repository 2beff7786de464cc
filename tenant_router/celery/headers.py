"""What a task's message says of its tenant: the header ``tenant_id`` is the whole protocol.

Facts relied on, each with a test: custom headers of a message are keys of a worker's request and attributes of
``task.request``; an eager task, and a message of protocol 1, have them in ``headers``; a signature in its options.
"""

from __future__ import annotations

from typing import Any

from tenant_router import context as _context

TENANT, REVISION, TRIES = "tenant_id", "tenant_revision", "tenant_tries"


def header(request: Any, name: str) -> Any:
    """A header of a request, a mapping or ``task.request``; ``None`` where there is none."""
    found = request.get(name)
    return (request.get("headers") or {}).get(name) if found is None else found


def tenant_of(signature: Any) -> str | None:
    """The tenant that a signature names in its headers."""
    found = ((signature.get("options") or {}).get("headers") or {}).get(TENANT)
    return None if found is None else str(found)


def current() -> dict[str, Any]:
    """The headers that name the bound tenant and the revision at which it is bound; empty where none is."""
    bound = _context.current()
    return {} if bound is None else {TENANT: bound.id, REVISION: bound.revision}
