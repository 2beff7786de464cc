"""A conversion gone wrong: parts of the project that disagree on what is central and what is the tenants'."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.db import router

from tenant_router import runtime
from tenant_router.conf import CELERY, MIDDLEWARE, conf
from tenant_router.exceptions import ConfigurationError, TenantContextMissing

_CONTENT_TYPE = "contenttypes.ContentType"


@register(Tags.compatibility)
def check_conversion(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """E020-E022, W020-W023: parts of the project that disagree on what is central and what is the tenants'."""
    if not runtime.is_installed() or not apps.is_installed("tenant_router"):
        return []
    return [*_split_models(), *_sessions(), *_periodic_tasks(), *_central_caches(), *_lasting_connections()]


def _split_models() -> Iterator[CheckMessage]:
    """Users, permissions and content types refer to one another by primary key, so they live together."""
    homes = {label: _is_central(label) for label in (settings.AUTH_USER_MODEL, "auth.Permission", _CONTENT_TYPE)}
    known = {label: central for label, central in homes.items() if central is not None}
    if len(set(known.values())) > 1:
        central = ", ".join(label for label, is_central in known.items() if is_central)
        yield Error(
            f"{central} is central, and the other of {', '.join(known)} are the tenants'.",
            hint="Route all of them to one reserved alias, or none: they refer to each other by primary key.",
            id="tenant_router.E020",
        )


def _sessions() -> Iterator[CheckMessage]:
    shared = _sessions_are_central()
    allowed = conf.middleware["CENTRAL_SESSIONS"]
    if shared and allowed and _is_central(settings.AUTH_USER_MODEL) is False:
        yield Error(
            "Sessions are central and valid at every tenant, and users are the tenants'.",
            hint="A session names a user by primary key: it would log in whoever has that key at another tenant.",
            id="tenant_router.E021",
        )
    elif shared and not allowed:
        yield Warning(
            "Sessions live in a reserved database or cache, and each is valid at one tenant only.",
            hint=f"{MIDDLEWARE}['CENTRAL_SESSIONS'] makes them valid at every tenant, for users that are central.",
            id="tenant_router.W021",
        )


def _sessions_are_central() -> bool:
    if not apps.is_installed("django.contrib.sessions"):
        return False
    engine = settings.SESSION_ENGINE
    in_cache = "cache" in engine and settings.SESSION_CACHE_ALIAS in conf.reserved_caches
    return in_cache or (engine.endswith("db") and _is_central("sessions.Session") is True)


def _periodic_tasks() -> Iterator[CheckMessage]:
    try:
        central = _is_central("django_celery_beat.PeriodicTask")
    except ConfigurationError as error:  # of BeatRouter
        yield Error(str(error), hint="It is one of RESERVED_CONN_ALIASES.", id="tenant_router.E022")
        return
    if central is False:
        yield Error(
            "The periodic tasks of django-celery-beat are the tenants', and beat reads them without a tenant.",
            hint=(
                "Put 'tenant_router.celery.routers.BeatRouter' into DATABASE_ROUTERS, before ours, "
                f"and name a reserved alias in {CELERY}['BEAT_ALIAS']."
            ),
            id="tenant_router.E022",
        )


def _central_caches() -> Iterator[CheckMessage]:
    alias = settings.CACHE_MIDDLEWARE_ALIAS
    if alias in conf.reserved_caches:
        yield Warning(
            f"CACHE_MIDDLEWARE_ALIAS names {alias!r}, which is central.",
            hint=(
                "Cached pages are kept apart by their URL alone: "
                "name a cache that is not reserved, unless each tenant has a host of its own."
            ),
            id="tenant_router.W022",
        )


def _lasting_connections() -> Iterator[CheckMessage]:
    manager = runtime.get().orms.get("django_orm")
    for alias, template in manager.templates.items() if manager else ():
        if template.get("CONN_MAX_AGE", 0) != 0:
            yield Warning(
                f"DATABASES[{alias!r}] keeps connections open: each thread one for each tenant that it has served.",
                hint="Use 0 or few seconds with many tenants; MAX_OPEN_CONNECTIONS bounds them per process.",
                id="tenant_router.W023",
            )


def _is_central(label: str) -> bool | None:
    """Whether a model is routed to a reserved alias; ``None`` for one that is not installed."""
    try:
        model = apps.get_model(label)
    except LookupError:
        return None
    try:
        return router.db_for_write(model) in _reserved()
    except TenantContextMissing:
        return False


def _reserved() -> tuple[str, ...]:
    return tuple(runtime.get().reserved().get("django_orm", ()))
