"""A chord belongs to one tenant: its headers' results are counted and read where they are stored.

Facts relied on, each with a test: ``chord.run`` is where every chord begins that is not eager, also one that a chain
has reached; a result backend in a database counts the headers in a row that ``apply_chord`` makes there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celery import canvas

from tenant_router.celery import binding, patching
from tenant_router.celery.headers import TENANT, current, tenant_of
from tenant_router.celery.publishing import stamped
from tenant_router.exceptions import TenantMismatch


def connect() -> None:
    """Have chords and what may hold them look at the tenants of their headers."""
    patching.replace(canvas._chord, "run", _bound_run)
    patching.replace(canvas._chain, "apply_async", _checked)
    patching.replace(canvas.group, "apply_async", _checked)


def _bound_run(run: Any) -> Any:
    def bound_run(self: Any, header: Any, body: Any, partial_args: Any, *args: Any, **kwargs: Any) -> Any:
        named = ((kwargs.get("headers") or self.options.get("headers")) or {}).get(TENANT)
        tenant_id = str(named) if named is not None else _tenant_of_headers(header)
        _check(body or {})
        headers = current()
        if headers and body is not None:
            body = canvas.maybe_signature(stamped(body, headers), app=body._app)
        with binding.bound(tenant_id):
            return run(self, header, body, partial_args, *args, **kwargs)

    return bound_run


def _checked(apply_async: Any) -> Any:
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        _check(self)
        return apply_async(self, *args, **kwargs)

    return checked


def _check(signature: Any) -> None:
    """Look at the chords within a signature. Raises ``TenantMismatch``."""
    kind, kwargs = signature.get("subtask_type"), signature.get("kwargs") or {}
    if kind == "chord":
        _tenant_of_headers(kwargs.get("header"))
        _check(kwargs.get("body") or {})
    if kind in ("chain", "group"):
        for task in _listed(kwargs.get("tasks")):
            _check(task)


def _tenant_of_headers(header: Any) -> str | None:
    """The tenant whose tasks a chord waits for, ``None`` for whoever is bound. Raises ``TenantMismatch`` for two."""
    bound: str | None = current().get(TENANT)
    tenants = {named for tenant_id in _tenants(header) if (named := tenant_id or bound) is not None}
    if len(tenants) > 1:
        raise TenantMismatch(
            f"the headers of a chord belong to different tenants ({', '.join(sorted(tenants))}), so nobody would find "
            "all of their results: make one chord for each tenant, or bind the others inside of its tasks"
        )
    return tenants.pop() if tenants else None


def _tenants(signature: Any) -> Iterator[str | None]:
    """Whose the tasks are whose results a chord would wait for."""
    if not isinstance(signature, dict):
        for task in _listed(signature):
            yield from _tenants(task)
        return
    kind, kwargs = signature.get("subtask_type"), signature.get("kwargs") or {}
    named = tenant_of(signature)
    if kind == "group":
        yield from (named or tenant_id for tenant_id in _tenants(kwargs.get("tasks")))
    elif kind == "chord":
        yield from (named or tenant_id for tenant_id in _tenants(kwargs.get("body")))
    elif kind == "chain":
        yield from _tenants(_listed(kwargs.get("tasks"))[-1:])
    else:
        yield named


def _listed(tasks: Any) -> list[Any]:
    # Celery wraps generators in a list that keeps what they yield; anything else must stay unread.
    return list(tasks) if isinstance(tasks, list | tuple) else []
