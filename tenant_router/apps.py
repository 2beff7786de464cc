"""The app: ``ready()`` wires everything and does no I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from django.apps import AppConfig
from django.utils.module_loading import import_string

from tenant_router import conf, context, log, runtime
from tenant_router.conf.problems import problems
from tenant_router.exceptions import ConfigurationError
from tenant_router.fleet import following
from tenant_router.orm_backends.django_orm import connections
from tenant_router.requests import tokens
from tenant_router.runtime import commands


class TenantRouterConfig(AppConfig):
    """Put ``"tenant_router"`` first in ``INSTALLED_APPS``."""

    name = "tenant_router"
    verbose_name = "Tenant router"

    def ready(self) -> None:
        """Install the runtime, the checks and the command line; then run the project's bootstrap callables."""
        from tenant_router import checks  # noqa: F401 - registers them

        if not context.testing:  # Django makes the apps ready again when a test overrides INSTALLED_APPS
            commands.install()
        tokens.install()
        try:
            callables = _wire()
            log.keep_running()
        except ConfigurationError:
            if not commands.in_management_command():
                raise
            connections.close_for_good()  # the checks report every fault with its hint, and no other command runs
            return
        for function in callables:
            function()


def _wire() -> list[Callable[[], Any]]:
    """Install the runtime; return the bootstrap callables, at the first time."""
    conf.conf.hide_secrets()
    faults = list(problems())
    if faults:
        raise ConfigurationError("; ".join(f"{fault.where} {fault.what}" for fault in faults))
    first = not runtime.is_installed()
    installed = runtime.install()
    _connect_celery()
    following.connect()
    try:
        # imported only now, because what they import may look up caches and connections
        return [_callable(path) for path in conf.conf.bootstrap] if first else []
    except ConfigurationError:
        installed.uninstall()
        raise


def _connect_celery() -> None:
    try:
        from tenant_router.celery import signals
    except ModuleNotFoundError as error:
        if error.name != "celery":
            raise
    else:
        signals.connect()


def _callable(path: str) -> Callable[[], Any]:
    try:
        function = import_string(path)
    except ImportError as error:
        raise ConfigurationError(f"{conf.BOOTSTRAP}: cannot import {path!r}: {error}") from error
    if not callable(function):
        raise ConfigurationError(f"{conf.BOOTSTRAP}: {path!r} is a {type(function).__name__}, not a callable")
    return cast("Callable[[], Any]", function)
