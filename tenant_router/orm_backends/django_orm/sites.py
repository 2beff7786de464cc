"""Sites: each database's are kept apart, and the one of ``SITE_ID`` is the bound tenant's wherever it was kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.conf import settings

from tenant_router import context as _context
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.django_orm.kept import keeping
from tenant_router.orm_backends.django_orm.per_database import PerDatabase, database_of

Replace = Callable[[Any, str, Any], None]


def install(replace: Replace) -> None:
    """Keep sites apart; ``replace`` sets an attribute and knows how to undo it."""
    # SITE_CACHE (django/contrib/sites/models.py) is keyed by SITE_ID and host; clear_cache() binds the name anew.
    from django.contrib.sites import models

    replace(models, "SITE_CACHE", PerDatabase())
    replace(models.SiteManager, "clear_cache", lambda manager: models.SITE_CACHE.clear())
    for name in ("_get_site_by_id", "_get_site_by_request"):
        replace(models.SiteManager, name, _by_alias(getattr(models.SiteManager, name)))
    # Its natural key, the domain, differs between tenants: only the one that the settings name means the same.
    replace(models.Site, "__init__", keeping(models.Site.__init__, _is_site_of_settings))


def _is_site_of_settings(site: Any) -> bool:
    return bool(site.__dict__.get("id") == getattr(settings, "SITE_ID", None))


def _by_alias(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def get_site(self: Any, asked: Any) -> Any:
        """Where nothing is bound, the tenant that the manager's alias names, whose site is kept with its database."""
        database = None if _context.current() is not None else database_of(self.db)
        if database is None:
            return original(self, asked)
        with tenant_context_bind(tenant_context_manager.get_in_any_state(database.tenant_id)):
            return original(self, asked)

    return get_site
