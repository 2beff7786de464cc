"""The one reader of our settings: a typed, lazy view with each default written once.

Every setting is described by a table of its keys. The same tables give the values, their
defaults, and the problems that the system checks report.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import Any, NamedTuple, cast

from django.conf import settings as django_settings

from tenant_router.exceptions import ConfigurationError

STORE = "TENANT_ROUTER_CONFIG_STORE_SETTINGS"
SERVICE = "TENANT_ROUTER_SERVICE_NAME"
ORMS = "TENANT_ROUTER_ORM_SETTINGS"
MIDDLEWARE = "TENANT_ROUTER_MIDDLEWARE_SETTINGS"
BOOTSTRAP = "TENANT_ROUTER_BOOTSTRAP_SETTINGS"
CACHES = "TENANT_ROUTER_CACHE_SETTINGS"
CELERY = "TENANT_ROUTER_CELERY_SETTINGS"
TESTS = "TENANT_ROUTER_TEST_SETTINGS"

_ANY_OF_STRINGS = (set, frozenset, list, tuple)


class Key(NamedTuple):
    """One key of a settings dictionary: the types it may have, its default, whether it must be there."""

    types: tuple[type, ...]
    default: Any = None
    required: bool = False


_DICT = Key((Mapping,), {})
_TABLES: dict[str, dict[str, Key]] = {
    STORE: {"BACKEND": Key((str,), required=True), "LOCATION": _DICT, "OPTIONS": _DICT},
    f"{STORE}['OPTIONS']": {
        "CLIENT_KWARGS": _DICT,  # passed to the client of the store
        "SERIALIZER": _DICT,
        "BOOT": Key((str,), "require"),  # what a server does whose store is away: see BOOTS
        "BOOT_TIMEOUT": Key((int, float), 30.0),  # seconds a server waits for its store
        "MAX_BOOT_NACK": Key((int, float), 0.1),  # the share of refused records with which a server starts
        "LAST_GOOD": Key((str,), ""),  # the path of the file that keeps the last state of this host
        "LAST_GOOD_MAX_AGE": Key((int, float), 604_800.0),  # seconds for which its content is served
        "KEYS": Key(_ANY_OF_STRINGS, ()),  # Fernet keys of that file: the first encrypts, all decrypt
        "MAX_STALENESS": Key((int, float), 0),  # seconds without the store after which nothing is served; 0 = never
        "DURABILITY": Key((str,), "default"),  # what a commit waits for: see DURABILITIES
        "STATUS_TTL": Key((int, float), 45.0),  # seconds after which a silent process is no part of the fleet
        "EAGER_MAX": Key((int,), 5_000),  # up to so many tenants all records are read at once
        "IDLE": Key((int, float), 3.0),  # seconds without a push after which the log's head is compared
        "RESYNC": Key((int, float), 600.0),  # seconds between two comparisons of the whole index
        "MAX_SHRINK": Key((int, float), 0.2),  # the share of tenants that may vanish without an operator's word
    },
    f"{STORE}['OPTIONS']['SERIALIZER']": {
        "CLASS": Key((str,), "tenant_router.config_store.serializers.pickle.PickleSerializer"),
        "OPTIONS": _DICT,
    },
    MIDDLEWARE: {
        "WHITELIST_ROUTES": Key(_ANY_OF_STRINGS, frozenset()),
        "TENANT_ID_RESOLVER": Key((str,), "tenant_router.middleware.resolve_by_host"),
        "HEALTH_PREFIX": Key((str,), ""),  # such as "/health/": where the middleware answers probes
        "HEALTH_TOKEN": Key((str,), ""),  # whoever has it may have a tenant's databases checked there
        "CENTRAL_SESSIONS": Key((bool,), False),  # sessions in a reserved database or cache are valid at every tenant
    },
    CELERY: {"BEAT_ALIAS": Key((str,), "")},  # the reserved database alias of django-celery-beat's tables
    CACHES: {"RESERVED_ALIASES": Key(_ANY_OF_STRINGS, frozenset())},
    TESTS: {
        "TENANT_ID": Key((str,), "test-tenant"),
        "OTHER_TENANT_IDS": Key(_ANY_OF_STRINGS, ()),
        "ALIASES": Key((str,), "template"),  # or "tenant": the names that production has
        "STRICT": Key((bool,), False),  # nothing is found where nothing is bound, as in production
    },
}
BOOTS = ("require", "last_good", "lazy")
DURABILITIES = ("default", "wait:1", "waitaof")
_ORM_KEYS = {"MANAGER": Key((str,)), "SETTINGS_KEY": Key((str,), required=True), "OPTIONS": _DICT}
_KNOWN = {STORE, SERVICE, ORMS, MIDDLEWARE, BOOTSTRAP, CACHES, CELERY, TESTS}


class Problem(NamedTuple):
    """One fault in the settings: where it is, what is wrong, and a hint that says what to do."""

    where: str
    what: str
    hint: str


class OrmConf(NamedTuple):
    """One entry of ``TENANT_ROUTER_ORM_SETTINGS``."""

    orm_id: str
    manager: str | None
    settings_key: str
    options: Mapping[str, Any]


class Conf:
    """The settings of this process, read when first asked for. ``ConfigurationError`` names what is missing."""

    @cached_property
    def service(self) -> str:
        """``TENANT_ROUTER_SERVICE_NAME``: the name under which the store keeps our records."""
        return cast(str, _required(SERVICE, str))

    @cached_property
    def store(self) -> Mapping[str, Any]:
        """``TENANT_ROUTER_CONFIG_STORE_SETTINGS`` with its defaults."""
        return _filled(STORE, _required(STORE, Mapping))

    @cached_property
    def store_options(self) -> Mapping[str, Any]:
        """Its ``OPTIONS`` with their defaults."""
        return _filled(f"{STORE}['OPTIONS']", self.store["OPTIONS"])

    @cached_property
    def serializer(self) -> Mapping[str, Any]:
        """Its ``OPTIONS['SERIALIZER']`` with the defaults."""
        return _filled(f"{STORE}['OPTIONS']['SERIALIZER']", self.store_options["SERIALIZER"])

    @cached_property
    def orms(self) -> Sequence[OrmConf]:
        """``TENANT_ROUTER_ORM_SETTINGS``, one entry per ORM."""
        return [
            OrmConf(orm_id, raw.get("MANAGER"), raw.get("SETTINGS_KEY", ""), raw.get("OPTIONS", {}))
            for orm_id, raw in _required(ORMS, Mapping).items()
        ]

    @cached_property
    def middleware(self) -> Mapping[str, Any]:
        """``TENANT_ROUTER_MIDDLEWARE_SETTINGS`` with its defaults."""
        return _filled(MIDDLEWARE, getattr(django_settings, MIDDLEWARE, {}))

    @cached_property
    def reserved_caches(self) -> Collection[str]:
        """The cache aliases that are central."""
        return frozenset(_filled(CACHES, getattr(django_settings, CACHES, {}))["RESERVED_ALIASES"])

    @cached_property
    def celery(self) -> Mapping[str, Any]:
        """``TENANT_ROUTER_CELERY_SETTINGS`` with its defaults."""
        return _filled(CELERY, getattr(django_settings, CELERY, {}))

    @cached_property
    def tests(self) -> Mapping[str, Any]:
        """``TENANT_ROUTER_TEST_SETTINGS`` with its defaults."""
        return _filled(TESTS, getattr(django_settings, TESTS, {}))

    @cached_property
    def bootstrap(self) -> Sequence[str]:
        """The callables that run after the bootstrap, in order."""
        return tuple(getattr(django_settings, BOOTSTRAP, ()))

    def templates_of(self, orm: OrmConf) -> Mapping[str, Mapping[str, Any]]:
        """The settings dictionary that an ORM's ``SETTINGS_KEY`` names, reserved aliases included."""
        try:
            return cast("Mapping[str, Mapping[str, Any]]", getattr(django_settings, orm.settings_key))
        except AttributeError:
            raise ConfigurationError(
                f"{ORMS}[{orm.orm_id!r}]['SETTINGS_KEY'] names {orm.settings_key!r}, which is not in the settings"
            ) from None

    def forget(self) -> None:
        """Read the settings again at the next access (they changed under a test)."""
        self.__dict__.clear()


conf = Conf()


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
    for name in (MIDDLEWARE, CACHES, CELERY, TESTS):
        yield from _check_table(name, getattr(django_settings, name, {}))
    yield from _check_orms(getattr(django_settings, ORMS, None))
    yield from _check_reserved_caches(getattr(django_settings, CACHES, {}))
    if not _all_strings(getattr(django_settings, BOOTSTRAP, ())):
        yield Problem(BOOTSTRAP, "is not a sequence of dotted paths", "List the callables as strings.")


def _filled(table: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: given.get(name, key.default) for name, key in _TABLES[table].items()}


def _required(name: str, kind: type) -> Any:
    value = getattr(django_settings, name, None)
    if not isinstance(value, kind) or not value:
        raise ConfigurationError(f"{name} is not set: run 'python manage.py check' for what it takes")
    return value


def _unknown_settings() -> Iterator[Problem]:
    for name in dir(django_settings):
        if name.startswith("TENANT_ROUTER_") and name not in _KNOWN:
            yield Problem(name, "is not a setting of tenant_router", _did_you_mean(name, _KNOWN))


def _check_service(value: object) -> Iterator[Problem]:
    if value is None or value == "":
        yield Problem(SERVICE, "is not set", "Set it to a string, the name of this service in the config file.")
    elif not isinstance(value, str) or set(value) & set("{}*?[]\r\n "):
        yield Problem(SERVICE, "is not a plain name", "Use a string without spaces, braces or wildcards.")


def _check_table(where: str, value: object, required: bool = False) -> Iterator[Problem]:
    table = _TABLES[where]
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
        elif key.types is _ANY_OF_STRINGS and not _all_strings(value[name]):
            yield Problem(f"{where}[{name!r}]", "holds something that is not a string", "List strings only.")


def _check_boot(options: Mapping[str, Any]) -> Iterator[Problem]:
    where = f"{STORE}['OPTIONS']"
    for name, choices in (("BOOT", BOOTS), ("DURABILITY", DURABILITIES)):
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
            yield Problem(where, f"is a {type(raw).__name__}, not a dictionary", "Its keys are " + ", ".join(_ORM_KEYS))
            continue
        yield from _check_keys(where, raw, _ORM_KEYS)
        key = raw.get("SETTINGS_KEY")
        if isinstance(key, str) and not isinstance(getattr(django_settings, key, None), Mapping):
            yield Problem(f"{where}['SETTINGS_KEY']", f"names {key!r}, which is no dictionary in the settings", "")


def _check_reserved_caches(value: object) -> Iterator[Problem]:
    """A misspelt one would leave the cache that it means to the tenants."""
    aliases = value.get("RESERVED_ALIASES", ()) if isinstance(value, Mapping) else ()
    for alias in aliases if _all_strings(aliases) else ():
        if alias not in django_settings.CACHES:
            hint = _did_you_mean(alias, django_settings.CACHES)
            yield Problem(f"{CACHES}['RESERVED_ALIASES']", f"names {alias!r}, which is not in CACHES", hint)


def _all_strings(value: object) -> bool:
    return isinstance(value, _ANY_OF_STRINGS) and all(isinstance(item, str) for item in cast(Any, value))


def _names(types: tuple[type, ...]) -> str:
    return " or ".join("dictionary" if kind is Mapping else kind.__name__ for kind in types)


def _did_you_mean(name: str, known: Collection[str]) -> str:
    close = get_close_matches(name, known, 1)
    return f"Did you mean {close[0]}?" if close else f"Known are {', '.join(sorted(known))}."
