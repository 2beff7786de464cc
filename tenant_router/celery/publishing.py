"""Names the tenant in what is published: in the message, and in every signature that travels in it.

A link of a chain, a callback, an errback or the body of a chord is published by whoever has run the task before it,
which may be another tenant's (``.set(headers={"tenant_id": ...})``). So each is stamped where it was made.
Facts relied on, each with a test: the headers and the embedded signatures at ``before_task_publish`` are those that
are sent; what that signal's receivers raise is swallowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tenant_router import context as _context
from tenant_router.celery.headers import REVISION, TENANT, current, tenant_of

CHORD_UNLOCK = "celery.chord_unlock"  # polls the results of a chord's headers, where the backend does not count them
_LINKS = ("link", "link_error", "chain")  # options that hold lists of signatures
_MEMBERS = {"chain": ("tasks",), "group": ("tasks",), "chord": ("header", "body")}  # subtask_type -> keyword arguments


def stamp(sender: Any = None, headers: dict[str, Any] | None = None, body: Any = None, **kwargs: Any) -> None:
    """``before_task_publish``: name the bound tenant in the message, unless the publisher named one."""
    bound = _context.current()
    if headers is None or bound is None:
        return
    if headers.get(TENANT) is None or sender == CHORD_UNLOCK:  # it has its headers from the chord's body
        headers[TENANT], headers[REVISION] = bound.id, bound.revision
    embedded = body[2] if isinstance(body, tuple) and len(body) == 3 else body
    if isinstance(embedded, dict):
        for name in ("callbacks", "errbacks", "chain", "chord"):
            if embedded.get(name):
                embedded[name] = stamped(embedded[name], current())


def stamped(signatures: Any, headers: Mapping[str, Any]) -> Any:
    """Signatures, or one of them, in which all that name no tenant have ``headers``; what is given stays as it is."""
    if isinstance(signatures, list | tuple):
        return [stamped(one, headers) for one in signatures]
    if not isinstance(signatures, Mapping) or "task" not in signatures:
        return signatures
    options = dict(signatures.get("options") or {})
    members = _MEMBERS.get(signatures.get("subtask_type") or "", ())
    # Not what holds others: when it is sent, its headers take the place of theirs (``Signature.apply_async``).
    if not members and tenant_of(signatures) is None:
        options["headers"] = {**(options.get("headers") or {}), **headers}
    _stamp_each(options, (*_LINKS, "chord"), headers)
    kwargs = dict(signatures.get("kwargs") or {})
    _stamp_each(kwargs, members, headers)
    return {**signatures, "options": options, "kwargs": kwargs}


def _stamp_each(holder: dict[str, Any], names: tuple[str, ...], headers: Mapping[str, Any]) -> None:
    for name in names:
        if holder.get(name):
            holder[name] = stamped(holder[name], headers)
