"""What a tenant id is, and which connection aliases it yields.

An alias is ``<tenant id>_<template alias>``. It is resolved by taking each known template
alias off its end and looking the rest up among the known tenants; it is never searched for
substrings, so ``tenant_1`` and ``tenant_10`` are strangers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator

from tenant_router.exceptions import InvalidTenantId

MAX_TENANT_ID = 253  # characters; the longest DNS name
_TENANT_ID = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?")
_MANY = re.compile(rf"(?:[a-z0-9](?:[a-z0-9._-]{{0,{MAX_TENANT_ID - 2}}}[a-z0-9])?\n)*")
RULE = (
    "lower-case letters and digits first and last, '.', '_' and '-' also between, "
    f"no '..', at most {MAX_TENANT_ID} characters"
)


def is_tenant_id(value: object) -> bool:
    """Whether ``value`` is a string that may name a tenant."""
    return (
        isinstance(value, str)
        and len(value) <= MAX_TENANT_ID
        and ".." not in value
        and _TENANT_ID.fullmatch(value) is not None
    )


def no_tenant_ids(names: Collection[str]) -> list[str]:
    """Those of ``names`` that are no tenant ids: one look at all of them, because a store may have 100,000."""
    text = "".join(f"{name}\n" for name in names)
    if ".." not in text and text.count("\n") == len(names) and _MANY.fullmatch(text):
        return []
    return [name for name in names if not is_tenant_id(name)]


def check_tenant_id(value: object) -> str:
    """Return ``value`` as a tenant id, or raise :class:`InvalidTenantId` naming it and the rule."""
    if not is_tenant_id(value):
        shown = repr(value) if len(repr(value)) <= 80 else repr(value)[:77] + "..."
        raise InvalidTenantId(f"{shown} is no tenant id: {RULE}")
    return str(value)


def alias_for(tenant_id: str, template_alias: str) -> str:
    """The connection alias of one tenant's copy of a template alias."""
    return f"{tenant_id}_{template_alias}"


def candidates(alias: str, template_aliases: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each ``(tenant id, template alias)`` that ``alias`` could stand for."""
    for template in template_aliases:
        tenant_id = alias.removesuffix(f"_{template}")
        if tenant_id != alias and tenant_id:
            yield tenant_id, template


def alias_twin(tenant_id: str, template_aliases: Iterable[str], known: Callable[[str], bool]) -> str | None:
    """Another known tenant that would share an alias with ``tenant_id``, if there is one.

    Only possible when one template alias ends in ``_`` and another one: with the templates
    ``x`` and ``a_x``, the tenants ``t_a`` and ``t`` both yield ``t_a_x``.
    """
    names = list(template_aliases)
    for template in names:
        for other_id, _ in candidates(alias_for(tenant_id, template), names):
            if other_id != tenant_id and known(other_id):
                return other_id
    return None
