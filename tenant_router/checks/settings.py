"""The settings: missing, misspelt, of a wrong type, or naming what cannot be loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Tags, register
from django.utils.module_loading import import_string

from tenant_router import runtime
from tenant_router.conf import BOOTSTRAP, MIDDLEWARE, ORMS, conf
from tenant_router.conf.problems import problems
from tenant_router.exceptions import ConfigurationError
from tenant_router.orm_backends.loader import load_managers


@register(Tags.compatibility)
def check_settings(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """E001: a setting is missing, misspelt or of a wrong type. E002: it names what cannot be loaded."""
    found: list[CheckMessage] = [
        Error(f"{problem.where} {problem.what}.", hint=problem.hint or None, id="tenant_router.E001")
        for problem in problems()
    ]
    if not found:
        found += _managers()
        found += _dotted_paths()
    return found


def _managers() -> Iterator[CheckMessage]:
    try:
        managers = load_managers(conf)
        if not runtime.is_installed():
            runtime.install()
    except ConfigurationError as error:
        yield Error(str(error), id="tenant_router.E002")
        return
    for manager in managers.values():
        try:
            _ = manager.migration_asst
        except ConfigurationError as error:
            yield Error(str(error), id="tenant_router.E002")


def _dotted_paths() -> Iterator[CheckMessage]:
    named = [(f"{MIDDLEWARE}['TENANT_ID_RESOLVER']", conf.middleware["TENANT_ID_RESOLVER"])]
    named += [(BOOTSTRAP, path) for path in conf.bootstrap]
    for orm in conf.orms:
        for name, path in orm.options.get("ROUTER_OPTS", {}).items():
            named.append((f"{ORMS}[{orm.orm_id!r}]['OPTIONS']['ROUTER_OPTS'][{name!r}]", path))
    for where, path in named:
        try:
            found = import_string(path)
        except ImportError as error:
            yield Error(f"{where}: cannot import {path!r}: {error}", id="tenant_router.E002")
        else:
            if not callable(found):
                yield Error(f"{where}: {path!r} is a {type(found).__name__}, not a callable", id="tenant_router.E002")
