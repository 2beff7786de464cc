"""Validates our settings: each fault with where it is and what to do."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple, cast

from django.conf import settings as django_settings

from tenant_router.allow_lists import nearest
from tenant_router.conf.settings import (
    ALL_SETTINGS,
    BOOT_CHOICES,
    BOOTSTRAP,
    CACHES,
    CELERY,
    COLLECTIONS,
    CONTEXT,
    DURABILITY_CHOICES,
    FLEET,
    MIDDLEWARE,
    ORM_KEYS,
    ORMS,
    ROUTER_OPTS,
    SERVICE,
    STORE,
    TABLES,
    TESTS,
    Key,
)


class Problem(NamedTuple):
    """One fault in the settings: where it is, what is wrong, and a hint that says what to do."""

    where: str
    what: str
    hint: str


def problems() -> Iterator[Problem]:
    """Every fault in our settings that can be seen without importing or connecting to anything."""
    yield from _unknown_settings()
    yield from _check_service(getattr(django_settings, SERVICE, None))
    store = getattr(django_settings, STORE, None)
    yield from _check_table(STORE, store, required=True)
    if isinstance(store, Mapping) and isinstance(options := store.get("OPTIONS", {}), Mapping):
        yield from _check_table(f"{STORE}['OPTIONS']", options)
        if isinstance(serializer := options.get("SERIALIZER", {}), Mapping):
            yield from _check_table(f"{STORE}['OPTIONS']['SERIALIZER']", serializer)
        yield from _check_boot(options)
    yield from _check_health(getattr(django_settings, MIDDLEWARE, {}))
    for name in (MIDDLEWARE, CACHES, CELERY, CONTEXT, FLEET, TESTS):
        yield from _check_table(name, getattr(django_settings, name, {}))
    yield from _check_orms(getattr(django_settings, ORMS, None))
    yield from _check_reserved_caches(getattr(django_settings, CACHES, {}))
    yield from _check_open_caches(getattr(django_settings, CACHES, {}))
    if not _all_strings(getattr(django_settings, BOOTSTRAP, ())):
        yield Problem(BOOTSTRAP, "is not a sequence of dotted paths", "List the callables as strings.")


def _unknown_settings() -> Iterator[Problem]:
    for name in dir(django_settings):
        if name.startswith("TENANT_ROUTER_") and name not in ALL_SETTINGS:
            yield Problem(name, "is not a setting of tenant_router", _did_you_mean(name, ALL_SETTINGS))


def _check_service(value: object) -> Iterator[Problem]:
    if value is None or value == "":
        yield Problem(SERVICE, "is not set", "Set it to a string, the name of this service in the config file.")
    elif not isinstance(value, str) or set(value) & set("{}*?[]\r\n "):
        yield Problem(SERVICE, "is not a plain name", "Use a string without spaces, braces or wildcards.")


def _check_table(where: str, value: object, required: bool = False) -> Iterator[Problem]:
    table = TABLES[where]
    if required and not value:
        yield Problem(where, "is not set", f"Set it to a dictionary with {', '.join(map(repr, table))}.")
    elif not isinstance(value, Mapping):
        yield Problem(where, f"is a {type(value).__name__}, not a dictionary", f"Its keys are {', '.join(table)}.")
    else:
        yield from _check_keys(where, value, table)


def _check_keys(where: str, value: Mapping[str, Any], table: Mapping[str, Key]) -> Iterator[Problem]:
    for name in value:
        if name not in table:
            yield Problem(f"{where}[{name!r}]", "is not known", _did_you_mean(str(name), table))
    for name, key in table.items():
        if name not in value:
            if key.required:
                yield Problem(f"{where}[{name!r}]", "is missing", f"Give it as a {_names(key.types)}.")
        elif not isinstance(value[name], key.types) or (isinstance(value[name], bool) and bool not in key.types):
            found = type(value[name]).__name__
            yield Problem(f"{where}[{name!r}]", f"is a {found}", f"Give it as a {_names(key.types)}.")
        elif key.types is COLLECTIONS and not _all_strings(value[name]):
            yield Problem(f"{where}[{name!r}]", "holds something that is not a string", "List strings only.")


def _check_boot(options: Mapping[str, Any]) -> Iterator[Problem]:
    where = f"{STORE}['OPTIONS']"
    for name, choices in (("BOOT", BOOT_CHOICES), ("DURABILITY", DURABILITY_CHOICES)):
        if isinstance(value := options.get(name), str) and value not in choices:
            yield Problem(f"{where}[{name!r}]", f"is {value!r}", f"Choose one of {', '.join(choices)}.")
    if options.get("BOOT") == "last_good" and not options.get("LAST_GOOD"):
        yield Problem(f"{where}['LAST_GOOD']", "is missing", "BOOT 'last_good' starts from the file that it names.")
    if options.get("LAST_GOOD") and not options.get("KEYS"):
        yield Problem(f"{where}['KEYS']", "is missing", "The last-good file holds passwords, so it is encrypted.")


def _check_health(value: object) -> Iterator[Problem]:
    prefix = value.get("HEALTH_PREFIX") if isinstance(value, Mapping) else None
    if isinstance(prefix, str) and prefix and not (prefix.startswith("/") and prefix.endswith("/") and prefix != "/"):
        yield Problem(f"{MIDDLEWARE}['HEALTH_PREFIX']", f"is {prefix!r}", "Write a path such as '/health/'.")


def _check_orms(value: object) -> Iterator[Problem]:
    if not isinstance(value, Mapping) or not value:
        yield Problem(ORMS, "is not a dictionary of ORMs", "For example {'django_orm': {'SETTINGS_KEY': 'DATABASES'}}.")
        return
    for orm_id, raw in value.items():
        where = f"{ORMS}[{orm_id!r}]"
        if not isinstance(raw, Mapping):
            yield Problem(where, f"is a {type(raw).__name__}, not a dictionary", "Its keys are " + ", ".join(ORM_KEYS))
            continue
        yield from _check_keys(where, raw, ORM_KEYS)
        key = raw.get("SETTINGS_KEY")
        if isinstance(key, str) and not isinstance(getattr(django_settings, key, None), Mapping):
            yield Problem(f"{where}['SETTINGS_KEY']", f"names {key!r}, which is no dictionary in the settings", "")
        if orm_id == "django_orm" and isinstance(options := raw.get("OPTIONS", {}), Mapping):
            yield from _check_table(ROUTER_OPTS, options.get("ROUTER_OPTS", {}))


def _check_reserved_caches(value: object) -> Iterator[Problem]:
    """A misspelt one would leave the cache that it means to the tenants."""
    aliases = value.get("RESERVED_ALIASES", ()) if isinstance(value, Mapping) else ()
    for alias in aliases if _all_strings(aliases) else ():
        if alias not in django_settings.CACHES:
            hint = _did_you_mean(alias, django_settings.CACHES)
            yield Problem(f"{CACHES}['RESERVED_ALIASES']", f"names {alias!r}, which is not in CACHES", hint)


def _check_open_caches(value: object) -> Iterator[Problem]:
    limit = value.get("MAX_OPEN_CACHES") if isinstance(value, Mapping) else None
    if isinstance(limit, int) and not isinstance(limit, bool) and limit < 1:
        yield Problem(f"{CACHES}['MAX_OPEN_CACHES']", f"is {limit}", "Give it as a number of at least 1.")


def _all_strings(value: object) -> bool:
    return isinstance(value, COLLECTIONS) and all(isinstance(item, str) for item in cast(Any, value))


def _names(types: tuple[type, ...]) -> str:
    return " or ".join("dictionary" if kind is Mapping else kind.__name__ for kind in types)


def _did_you_mean(name: str, known: Collection[str]) -> str:
    close = nearest(name, known)
    return f"Did you mean {close}?" if close else f"Known are {', '.join(sorted(known))}."
