"""From a template and a tenant's record to the settings of one connection."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

from django.db.utils import ConnectionHandler

from tenant_router.exceptions import RecordInvalid
from tenant_router.orm_backends.django_orm import sqlite_names
from tenant_router.orm_backends.django_orm.allowed_options import SQLITE, family
from tenant_router.orm_backends.django_orm.database_url import with_url
from tenant_router.orm_backends.django_orm.validation import faults
from tenant_router.secrets import SecretText, mask_in_place

_ATOMS = frozenset({str, int, float, bool, type(None), SecretText})


class SettingsDict(dict[str, Any]):
    """The settings of one tenant's connection; its ``repr`` shows where it leads and no secret."""

    def __repr__(self) -> str:
        shown = {key: self[key] for key in ("ENGINE", "NAME", "HOST", "PORT") if self.get(key)}
        return f"<{type(self).__name__} {shown}>"


def complete(template: dict[str, Any]) -> None:
    """Fill in what a template leaves to Django, in place, as Django does when ``connections`` is first used.

    Its secrets are masked from now on.
    """
    # for every alias of the dictionary it is given, which must have one called "default"
    ConnectionHandler().configure_settings({"default": template})
    mask_in_place(template)


def build(
    template: Mapping[str, Any],
    config: Mapping[str, Any],
    engines: Collection[str] = (),
    allowed_options: Collection[str] = (),
) -> SettingsDict:
    """Merge a tenant's ``config`` into its ``template``, which is :func:`complete`.

    ``OPTIONS`` and ``TEST`` merge one level deep, ``PASS`` is ``PASSWORD``, ``URL`` is taken
    apart, a relative SQLite file lies below ``BASE_DIR``. ``engines`` are allowed besides the
    template's own, ``allowed_options`` besides the allow-listed. Raises ``RecordInvalid`` with
    every fault, by key and without values.
    """
    found = list(faults(template, config, engines, allowed_options))
    if found:
        raise RecordInvalid(found)
    given = with_url(config, config.get("ENGINE", template.get("ENGINE")))
    if "PASS" in given:
        given["PASSWORD"] = given.pop("PASS")
    nested = {key: {**template.get(key, {}), **given.get(key, {})} for key in ("OPTIONS", "TEST")}
    merged = SettingsDict(_copied({**template, **given, **nested}))
    if merged.get("PASSWORD"):
        merged["PASSWORD"] = SecretText(merged["PASSWORD"])
    if family(merged["ENGINE"]) == SQLITE:
        merged["NAME"] = sqlite_names.absolute(merged["NAME"])
    return merged


def _copied(value: Any) -> Any:
    """``copy.deepcopy``, three times as fast for what nearly all settings are: it is done for each tenant."""
    if type(value) is dict:
        return {key: each if type(each) in _ATOMS else _copied(each) for key, each in value.items()}
    return copy.deepcopy(value)
