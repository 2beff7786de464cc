"""Routes that are named in the settings and do not exist."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Tags, Warning, register

from tenant_router import context, runtime
from tenant_router.conf import MIDDLEWARE, conf
from tenant_router.requests.routes import unmatched


@register(Tags.urls)
def check_routes(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """W013: a whitelisted route matches nothing, so requests to what it means are refused where no tenant is named."""
    if context.testing or not runtime.is_installed() or not apps.is_installed("tenant_router"):
        return []  # a suite overrides settings and asserts the list of all checks: it is not about us
    if not getattr(settings, "ROOT_URLCONF", None):
        return []
    return [
        Warning(
            f"{MIDDLEWARE}['WHITELIST_ROUTES'] names {name!r}, and no route of ROOT_URLCONF goes by that.",
            hint="Write the path of the view, the route without a leading slash, or the (namespaced) name of the URL.",
            id="tenant_router.W013",
        )
        for name in sorted(unmatched(conf.middleware["WHITELIST_ROUTES"]))
    ]
