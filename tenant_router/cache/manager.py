"""Turns the ``cache_config`` of a record into the caches of a tenant."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from django.conf import settings as django_settings
from django.core.cache import caches

from tenant_router.cache import allowed_options, patch
from tenant_router.cache.entries import Cache
from tenant_router.conf import conf
from tenant_router.exceptions import RecordInvalid


class CacheManager:
    """Prepares tenants' caches, as ORM managers prepare databases."""

    def __init__(self, reserved: Collection[str]) -> None:
        aliases = getattr(django_settings, "CACHES", {})
        self.reserved_aliases = tuple(alias for alias in aliases if alias in reserved)
        self.template_aliases = tuple(alias for alias in aliases if alias not in reserved)

    def install(self) -> None:
        """Take over ``django.core.cache.caches``."""
        patch.install()

    def uninstall(self) -> None:
        """Undo :meth:`install`."""
        patch.uninstall()

    def prepare(self, tenant_id: str, config: Mapping[str, Mapping[str, Any]], previous: Any) -> dict[str, Cache]:
        """Build the caches of one tenant; an alias that is left out has its template's own cache.

        Raises ``RecordInvalid`` with the faults of the first alias that has some.
        """
        return {
            alias: self._cache(tenant_id, alias, config.get(alias, {}), previous) for alias in self.template_aliases
        }

    def retire(self, previous: Any, current: Any) -> None:
        """Close what is no longer current: at once where nobody uses it, else when the last unit of work ends."""
        for alias, cache in previous.items():
            if current is None or current[alias] is not cache:
                cache.retired = True
                for opened in [*cache.opened]:
                    opened.replaced()

    def reset_after_fork(self) -> None:
        """The parent's sockets are not ours."""
        handler = caches
        if isinstance(handler, patch.TenantAwareCacheHandler):
            handler.reset()

    def _cache(self, tenant_id: str, alias: str, config: Mapping[str, Any], previous: Any) -> Cache:
        template: Mapping[str, Any] = django_settings.CACHES[alias]
        settings = {**template, **config}
        if config:
            found = allowed_options.faults(template, config, conf.allowed_cache_options)
            faults = [(f"cache_config.{alias}.{key}", what) for key, what in found]
            if faults:
                raise RecordInvalid(faults)
            if "OPTIONS" in config:
                settings["OPTIONS"] = {**template.get("OPTIONS", {}), **config["OPTIONS"]}
            if "LOCATION" in config:
                settings["LOCATION"] = allowed_options.location(template, config["LOCATION"])
        old = previous.get(alias) if previous else None
        if old is not None and old.settings == settings:
            return old  # type: ignore[no-any-return]
        return Cache(tenant_id, alias, settings, own_location=bool(config))
