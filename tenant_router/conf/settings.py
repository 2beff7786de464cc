"""Our settings as a typed, lazy object, ``conf``, with each default written once.

Every setting is described by a table of its keys, which gives the values and their defaults.
``problems`` holds the settings against the same tables.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, cast

from django.conf import settings as django_settings

from tenant_router.exceptions import ConfigurationError
from tenant_router.secrets import Secret, concealed, mask_in_place, masked

STORE = "TENANT_ROUTER_CONFIG_STORE_SETTINGS"
SERVICE = "TENANT_ROUTER_SERVICE_NAME"
ORMS = "TENANT_ROUTER_ORM_SETTINGS"
MIDDLEWARE = "TENANT_ROUTER_MIDDLEWARE_SETTINGS"
BOOTSTRAP = "TENANT_ROUTER_BOOTSTRAP_SETTINGS"
CACHES = "TENANT_ROUTER_CACHE_SETTINGS"
CELERY = "TENANT_ROUTER_CELERY_SETTINGS"
CONTEXT = "TENANT_ROUTER_CONTEXT_SETTINGS"
FLEET = "TENANT_ROUTER_FLEET_SETTINGS"
TESTS = "TENANT_ROUTER_TEST_SETTINGS"

COLLECTIONS = (set, frozenset, list, tuple)


class Key(NamedTuple):
    """One key of a settings dictionary: its types, its default, whether it must be there, whether it is a secret."""

    types: tuple[type, ...]
    default: Any = None
    required: bool = False
    secret: bool = False


_DICT = Key((Mapping,), {})
TABLES: dict[str, dict[str, Key]] = {
    STORE: {"BACKEND": Key((str,), required=True), "LOCATION": _DICT, "OPTIONS": _DICT},
    f"{STORE}['OPTIONS']": {
        "CLIENT_KWARGS": _DICT,  # passed to the client of the store
        "SERIALIZER": _DICT,
        "BOOT": Key((str,), "require"),  # what a server does whose store is away: see BOOT_CHOICES
        "BOOT_TIMEOUT": Key((int, float), 30.0),  # seconds a server waits for its store
        "MAX_BOOT_NACK": Key((int, float), 0.1),  # the share of refused records with which a server starts
        "LAST_GOOD": Key((str,), ""),  # the path of the file that keeps the last state of this host
        "LAST_GOOD_MAX_AGE": Key((int, float), 604_800.0),  # seconds for which its content is served
        "KEYS": Key(COLLECTIONS, (), secret=True),  # Fernet keys of that file: the first encrypts, all decrypt
        "MAX_STALENESS": Key((int, float), 0),  # seconds without the store after which nothing is served; 0 = never
        "DURABILITY": Key((str,), "default"),  # what a commit waits for: see DURABILITY_CHOICES
        "STATUS_TTL": Key((int, float), 45.0),  # seconds after which a silent process is no part of the fleet
        "EAGER_MAX": Key((int,), 5_000),  # up to so many tenants all records are read at once
        "IDLE": Key((int, float), 3.0),  # seconds without a push after which the store is asked for its revision
        "RESYNC": Key((int, float), 600.0),  # seconds between two comparisons of all tenants' revisions
        "MAX_SHRINK": Key((int, float), 0.2),  # the share of tenants that may vanish without an operator's word
    },
    f"{STORE}['OPTIONS']['SERIALIZER']": {
        "CLASS": Key((str,), "tenant_router.config_store.serializers.pickle.PickleSerializer"),
        "OPTIONS": _DICT,
    },
    MIDDLEWARE: {
        "WHITELIST_ROUTES": Key(COLLECTIONS, frozenset()),
        "TENANT_ID_RESOLVER": Key((str,), "tenant_router.middleware.resolve_by_host"),
        "HEALTH_PREFIX": Key((str,), ""),  # such as "/health/": where the middleware answers probes
        "HEALTH_TOKEN": Key((str,), "", secret=True),  # whoever has it may have a tenant's databases checked there
        "CENTRAL_SESSIONS": Key((bool,), False),  # sessions in a reserved database or cache are valid at every tenant
    },
    CELERY: {"BEAT_ALIAS": Key((str,), "")},  # the reserved database alias of django-celery-beat's tables
    CACHES: {
        "RESERVED_ALIASES": Key(COLLECTIONS, frozenset()),
        "ALLOW_OPTIONS": Key(COLLECTIONS, frozenset()),  # keys that a record may have besides the allow-listed
        "MAX_OPEN_CACHES": Key((int,), 200),  # of tenants, per process: the least recently used makes room
    },
    FLEET: {"CELERY_COMMANDS": Key(COLLECTIONS, ())},  # management commands that workers run for tenant_command
    CONTEXT: {"CARRY_INTO_EXECUTORS": Key((bool,), True)},  # what is submitted runs as the tenant that submitted it
    TESTS: {
        "TENANT_ID": Key((str,), "test-tenant"),
        "OTHER_TENANT_IDS": Key(COLLECTIONS, ()),
        "ALIASES": Key((str,), "template"),  # or "tenant": the names that production has
        "STRICT": Key((bool,), False),  # nothing is found where nothing is bound, as in production
    },
}
ROUTER_OPTS = f"{ORMS}['django_orm']['OPTIONS']['ROUTER_OPTS']"
TABLES[ROUTER_OPTS] = {"MIGRATE_STRATEGY": Key((str,))}  # dotted path, asked for tenants' databases
BOOT_CHOICES = ("require", "last_good", "lazy")
DURABILITY_CHOICES = ("default", "wait:1", "waitaof")
ORM_KEYS = {"MANAGER": Key((str,)), "SETTINGS_KEY": Key((str,), required=True), "OPTIONS": _DICT}
ALL_SETTINGS = {STORE, SERVICE, ORMS, MIDDLEWARE, BOOTSTRAP, CACHES, CELERY, CONTEXT, FLEET, TESTS}


class OrmConf(NamedTuple):
    """One entry of ``TENANT_ROUTER_ORM_SETTINGS``."""

    orm_id: str
    manager: str | None
    settings_key: str
    options: Mapping[str, Any]


class Conf:
    """The settings of this process, read when first asked for. ``ConfigurationError`` names what is missing.

    Secrets among them are :class:`~tenant_router.secrets.Secret` here.
    """

    @cached_property
    def service(self) -> str:
        """``TENANT_ROUTER_SERVICE_NAME``: the name under which the store keeps our records."""
        return cast(str, _required(SERVICE, str))

    @cached_property
    def store(self) -> Mapping[str, Any]:
        """``TENANT_ROUTER_CONFIG_STORE_SETTINGS`` with its defaults."""
        return _with_defaults(STORE, _required(STORE, Mapping))

    @cached_property
    def store_options(self) -> Mapping[str, Any]:
        """Its ``OPTIONS`` with their defaults."""
        return _with_defaults(f"{STORE}['OPTIONS']", self.store["OPTIONS"])

    @cached_property
    def serializer(self) -> Mapping[str, Any]:
        """Its ``OPTIONS['SERIALIZER']`` with the defaults."""
        return _with_defaults(f"{STORE}['OPTIONS']['SERIALIZER']", self.store_options["SERIALIZER"])

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
        return _with_defaults(MIDDLEWARE, getattr(django_settings, MIDDLEWARE, {}))

    @cached_property
    def caches(self) -> Mapping[str, Any]:
        """``TENANT_ROUTER_CACHE_SETTINGS`` with its defaults."""
        return _with_defaults(CACHES, getattr(django_settings, CACHES, {}))

    @cached_property
    def reserved_caches(self) -> Collection[str]:
        """The cache aliases that are central."""
        return frozenset(self.caches["RESERVED_ALIASES"])

    @cached_property
    def allowed_cache_options(self) -> Collection[str]:
        """The keys that a record may have for a cache besides the allow-listed ones."""
        return frozenset(self.caches["ALLOW_OPTIONS"])

    @cached_property
    def celery(self) -> Mapping[str, Any]:
        """``TENANT_ROUTER_CELERY_SETTINGS`` with its defaults."""
        return _with_defaults(CELERY, getattr(django_settings, CELERY, {}))

    @cached_property
    def fleet(self) -> Mapping[str, Any]:
        """``TENANT_ROUTER_FLEET_SETTINGS`` with its defaults."""
        return _with_defaults(FLEET, getattr(django_settings, FLEET, {}))

    @cached_property
    def context(self) -> Mapping[str, Any]:
        """``TENANT_ROUTER_CONTEXT_SETTINGS`` with its defaults."""
        return _with_defaults(CONTEXT, getattr(django_settings, CONTEXT, {}))

    @cached_property
    def tests(self) -> Mapping[str, Any]:
        """``TENANT_ROUTER_TEST_SETTINGS`` with its defaults."""
        return _with_defaults(TESTS, getattr(django_settings, TESTS, {}))

    @cached_property
    def bootstrap(self) -> Sequence[str]:
        """The callables that run after the bootstrap, in order."""
        return tuple(getattr(django_settings, BOOTSTRAP, ()))

    def templates_of(self, orm: OrmConf) -> Mapping[str, Mapping[str, Any]]:
        """The settings dictionary that an ORM's ``SETTINGS_KEY`` names, reserved aliases included."""
        try:
            found = cast("Mapping[str, Mapping[str, Any]]", getattr(django_settings, orm.settings_key))
            # As the project wrote it: what stands in the settings may resolve the bound tenant's.
            return dict.copy(found) if isinstance(found, dict) else found
        except AttributeError:
            raise ConfigurationError(
                f"{ORMS}[{orm.orm_id!r}]['SETTINGS_KEY'] names {orm.settings_key!r}, which is not in the settings"
            ) from None

    def hide_secrets(self) -> None:
        """Make the secrets in the project's settings show themselves masked, to ``diffsettings`` for example."""
        for name in (STORE, MIDDLEWARE):
            if isinstance(value := getattr(django_settings, name, None), Mapping):
                setattr(django_settings, name, masked(value))
        keys = {str(raw.get("SETTINGS_KEY")) for raw in _mappings(getattr(django_settings, ORMS, None))}
        for settings_key in {"CACHES", *keys}:
            for template in _mappings(getattr(django_settings, settings_key, None)):
                mask_in_place(template)

    def forget(self) -> None:
        """Read the settings again at the next access (they changed under a test)."""
        self.__dict__.clear()


conf = Conf()


def _with_defaults(table: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    values = {name: given.get(name, key.default) for name, key in TABLES[table].items()}
    return {name: _concealed(TABLES[table][name], value) for name, value in values.items()}


def _concealed(key: Key, value: Any) -> Any:
    if key.secret:
        return Secret(value)
    return concealed(value) if isinstance(value, Mapping) else value


def _mappings(value: object) -> list[Mapping[str, Any]]:
    """The values of a dictionary that are dictionaries themselves; none of anything else."""
    return [each for each in value.values() if isinstance(each, Mapping)] if isinstance(value, Mapping) else []


def _required(name: str, kind: type) -> Any:
    value = getattr(django_settings, name, None)
    if not isinstance(value, kind) or not value:
        raise ConfigurationError(f"{name} is not set: run 'python manage.py check' for what it takes")
    return value
