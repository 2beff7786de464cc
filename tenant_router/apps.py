"""The app: ``ready()`` wires everything and does no I/O."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.module_loading import import_string

from tenant_router import command_patch, conf, runtime, tokens
from tenant_router.exceptions import ConfigurationError


class TenantRouterConfig(AppConfig):
    """Put ``"tenant_router"`` first in ``INSTALLED_APPS``."""

    name = "tenant_router"
    verbose_name = "Tenant router"

    def ready(self) -> None:
        """Install the runtime, the checks and the command line; then run the project's bootstrap callables."""
        from tenant_router import checks  # noqa: F401 - registers them

        command_patch.install()
        tokens.install()
        faults = list(conf.problems())
        if faults:
            if not command_patch.under_command():
                raise ConfigurationError("; ".join(f"{fault.where} {fault.what}" for fault in faults))
            return  # the checks report every fault with its hint, and no other command runs
        first = not runtime.is_installed()
        runtime.install()
        _connect_celery()
        if first:
            for path in conf.conf.bootstrap:
                _run(path)


def _connect_celery() -> None:
    try:
        from tenant_router.celery import signals
    except ModuleNotFoundError as error:
        if error.name != "celery":
            raise
    else:
        signals.connect()


def _run(path: str) -> None:
    try:
        function = import_string(path)
    except ImportError as error:
        raise ConfigurationError(f"{conf.BOOTSTRAP}: cannot import {path!r}: {error}") from error
    function()
