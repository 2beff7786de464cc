"""Makes the config store, serializer and last-good file that the settings name; errors name the wrong setting."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from django.utils.module_loading import import_string

from tenant_router.conf import STORE, Conf
from tenant_router.config_store.base import ConfigStore
from tenant_router.config_store.serializers.base import Serializer
from tenant_router.exceptions import ConfigurationError
from tenant_router.secrets import revealed

if TYPE_CHECKING:
    from tenant_router.reactive.last_good import LastGood


def make_store(conf: Conf) -> ConfigStore:
    """The store that ``BACKEND`` names, not connected yet. Raises ``ConfigurationError``."""
    path = conf.store["BACKEND"]
    try:
        backend = import_string(path)
    except ImportError as error:
        raise ConfigurationError(f"{STORE}['BACKEND']: cannot import {path!r}: {error}") from error
    try:
        durability = conf.store_options["DURABILITY"]
        wishes = {} if durability == "default" else {"durability": durability}  # a backend need not know of it
        location, client_kwargs = revealed(conf.store["LOCATION"]), revealed(conf.store_options["CLIENT_KWARGS"])
        store = backend(conf.service, location, client_kwargs, **wishes)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{STORE}: {path!r} refuses its LOCATION or OPTIONS: {error}") from error
    if not isinstance(store, ConfigStore):
        raise ConfigurationError(f"{STORE}['BACKEND']: {path!r} is no subclass of ConfigStore")
    return store


def make_last_good(conf: Conf) -> LastGood | None:
    """The file that ``LAST_GOOD`` names, if it names one. Raises ``ConfigurationError``."""
    options = conf.store_options
    if not options["LAST_GOOD"]:
        return None
    from tenant_router.reactive.last_good import LastGood  # it needs SQLite, which the others have no use for

    keys = tuple(revealed(options["KEYS"]))
    return LastGood(options["LAST_GOOD"], conf.service, keys, options["LAST_GOOD_MAX_AGE"])


def make_serializer(conf: Conf) -> Serializer:
    """What ``SERIALIZER`` names. Raises ``ConfigurationError``."""
    path = conf.serializer["CLASS"]
    where = f"{STORE}['OPTIONS']['SERIALIZER']"
    try:
        made = partial(import_string(path), **revealed(conf.serializer["OPTIONS"]))()
    except ImportError as error:
        raise ConfigurationError(f"{where}['CLASS']: cannot import {path!r}: {error}") from error
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{where}: {path!r} refuses its OPTIONS: {error}") from error
    if not isinstance(made, Serializer):
        raise ConfigurationError(f"{where}['CLASS']: {path!r} is no subclass of Serializer")
    return made
