"""Checks that a record names the ORMs and aliases of the project's settings, and no others.

Takes records whose structure is wrong as well, and says nothing of what the JSON Schema
reports, so that both kinds of fault can be told at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from tenant_router.config_file.paths import Fault, Keys, listing, shown


class KnownNames(NamedTuple):
    """The names that settings give: template and reserved aliases, by ORM id and of caches."""

    templates: Mapping[str, Collection[str]]
    reserved: Mapping[str, Collection[str]]
    cache_templates: Collection[str]
    cache_reserved: Collection[str]

    def all_templates(self) -> set[str]:
        """Every template alias, of whatever ORM or cache."""
        return {*self.cache_templates}.union(*self.templates.values())


def as_object(value: object) -> dict[str, Any]:
    """``value``, or no entries when it is no object."""
    return value if isinstance(value, dict) else {}


def record_faults(at: Keys, record: dict[str, Any], known: KnownNames) -> Iterator[Fault]:
    """What is wrong with the names in the record that stands at ``at``."""
    orms = record.get("orm_config")
    if isinstance(orms, dict):
        yield from _orm_faults((*at, "orm_config"), orms, known)
    caches = as_object(record.get("cache_config"))
    at = (*at, "cache_config")
    yield from _alias_faults(at, caches, known.cache_templates, known.cache_reserved, "CACHES")
    for alias, config in caches.items():
        if "BACKEND" in as_object(config):
            yield (
                (*at, alias, "BACKEND"),
                "BACKEND is that of the template in settings for every tenant: remove the key",
            )


def _orm_faults(at: Keys, orms: dict[str, Any], known: KnownNames) -> Iterator[Fault]:
    for orm, given in orms.items():
        if orm not in known.templates:
            names = listing(known.templates)
            yield (*at, orm), f"unknown ORM {shown(orm)}: TENANT_ROUTER_ORM_SETTINGS has {names}"
        else:
            yield from _alias_faults(
                (*at, orm), as_object(given), known.templates[orm], known.reserved.get(orm, ()), shown(orm)
            )
    for orm, templates in known.templates.items():
        given = orms.get(orm, {})
        for alias in sorted({*templates} - given.keys()) if isinstance(given, dict) else ():
            what = f"template alias {shown(alias)} is missing: every one of {shown(orm)} must be given"
            yield (*at, orm), f'{what}, for example "{alias}": {{...}}'


def _alias_faults(
    at: Keys, given: dict[str, Any], templates: Collection[str], reserved: Collection[str], owner: str
) -> Iterator[Fault]:
    for alias in given:
        if alias in reserved:
            yield (
                (*at, alias),
                f"{shown(alias)} is a reserved alias: its configuration stays in settings, remove it",
            )
        elif alias not in templates:
            yield (*at, alias), f"unknown template alias {shown(alias)}: {owner} has {listing(templates)}"
