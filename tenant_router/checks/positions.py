"""Where the app, the middleware and the router stand, and what is better chosen than left to its default."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register

from tenant_router import context
from tenant_router.conf import ORMS, conf
from tenant_router.exceptions import ConfigurationError

MIDDLEWARE = "tenant_router.middleware.TenantContextMiddleware"
ROUTER = "tenant_router.orm_backends.django_orm.router.DjangoOrmRouter"


@register(Tags.compatibility)
def check_positions(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """E010-E013: where the app, the middleware and the router stand. W010: the default serializer."""
    if context.testing or not apps.is_installed("tenant_router"):
        return []  # a suite overrides settings and asserts the list of all checks: it is not about us
    return [*_app(), *_middleware(), *_router(), *_serializer()]


def _app() -> Iterator[CheckMessage]:
    first = next(iter(apps.get_app_configs())).name
    if first != "tenant_router":
        yield Error(
            f"INSTALLED_APPS begins with {first!r}.",
            hint="Put 'tenant_router' first: what other apps do while they load must find it in place.",
            id="tenant_router.E010",
        )


def _middleware() -> Iterator[CheckMessage]:
    listed = list(settings.MIDDLEWARE)
    if MIDDLEWARE not in listed:
        yield Warning(
            f"MIDDLEWARE lacks {MIDDLEWARE!r}: requests are not bound to tenants.",
            hint="Put it first.",
            id="tenant_router.W011",
        )
    elif listed[0] != MIDDLEWARE:
        yield Error(
            f"{MIDDLEWARE!r} is number {listed.index(MIDDLEWARE) + 1} of MIDDLEWARE.",
            hint="Put it first: sessions and users are loaded from the tenant's database.",
            id="tenant_router.E011",
        )


def _router() -> Iterator[CheckMessage]:
    orms = getattr(settings, ORMS, None)
    routers = list(settings.DATABASE_ROUTERS)
    if not isinstance(orms, dict) or "django_orm" not in orms:
        return
    if ROUTER not in routers:
        yield Error(
            f"DATABASE_ROUTERS lacks {ROUTER!r}.",
            hint="Add it as the last: routers of reserved aliases come before it.",
            id="tenant_router.E012",
        )
    elif routers[-1] != ROUTER:
        yield Warning(
            f"{ROUTER!r} is not the last of DATABASE_ROUTERS.",
            hint="Put it last: it answers for every model, so those after it are never asked.",
            id="tenant_router.W012",
        )


def _serializer() -> Iterator[CheckMessage]:
    try:
        chosen = conf.serializer["CLASS"]
    except (ConfigurationError, AttributeError, TypeError):
        return  # E001 says why
    if chosen.endswith(".PickleSerializer") and "CLASS" not in conf.store_options["SERIALIZER"]:
        yield Warning(
            "Records are stored in the pickle format, because no SERIALIZER is chosen.",
            hint=(
                "It is read without executing anything, but only Python can read it: "
                "'tenant_router.config_store.serializers.json.JSONSerializer' is the better choice."
            ),
            id="tenant_router.W010",
        )
