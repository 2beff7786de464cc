"""Gives every management command ``--tenant-id``, by a patch of ``BaseCommand`` that shadows no command.

With it (or ``TENANT_ID`` in the environment) a command runs bound to that tenant. Errors of ours
end a command with one line.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections
from django.utils.module_loading import import_string

from tenant_router import context as _context
from tenant_router import identity, runtime
from tenant_router.context_decorators import tenant_context_bind
from tenant_router.exceptions import TenantContextMissing, TenantNotFound, TenantRouterError
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.django_orm import guards
from tenant_router.orm_backends.django_orm.connections import TenantConnectionHandler
from tenant_router.propagation import run_as
from tenant_router.runtime import roles
from tenant_router.runtime.process_tenant import process_tenant

ENVIRONMENT = "TENANT_ID"
SERVERS = {"runserver", "runserver_plus", "daphne"}
_originals: dict[str, Callable[..., Any]] = {}


def install() -> None:
    """Patch ``BaseCommand``; idempotent."""
    if not _originals:
        for name, patched in _PATCHES.items():
            _originals[name] = getattr(BaseCommand, name)
            setattr(BaseCommand, name, patched)


def uninstall() -> None:
    """Undo :func:`install`."""
    for name, original in _originals.items():
        setattr(BaseCommand, name, original)
    _originals.clear()


def in_management_command() -> bool:
    """Whether Django is being set up for a management command, which makes the system checks."""
    return bool(roles.callers_in("django.core.management"))


def _create_parser(self: BaseCommand, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
    parser: CommandParser = _originals["create_parser"](self, prog_name, subcommand, **kwargs)
    if not any("--tenant-id" in action.option_strings for action in parser._actions):
        self._takes_tenant_id = True  # type: ignore[attr-defined]
        bound = "Run the command bound to this tenant (also: TENANT_ID in the environment)."
        parser.add_argument("--tenant-id", help=argparse.SUPPRESS if hasattr(self, "without_tenant") else bound)
    for action in parser._actions:
        if "--database" in action.option_strings and action.choices is not None:
            action.choices = _Aliases(action.choices)
    return parser


class _Aliases(tuple[str, ...]):
    """The aliases that ``--database`` takes, which Django 5.2 compares with ``connections``: tenants' aliases, too.

    No I/O here: an alias that is nobody's is refused when the command is about to run.
    """

    def __contains__(self, alias: object) -> bool:
        return super().__contains__(alias) or (isinstance(alias, str) and _names_a_tenant(alias))


def _execute(self: BaseCommand, *args: Any, **options: Any) -> Any:
    own = getattr(self, "_takes_tenant_id", False)
    tenant_id = options.pop("tenant_id", None) if own else None
    typed: bool = self._called_from_command_line  # type: ignore[attr-defined]
    command = type(self).__module__.rpartition(".")[2]
    if not runtime.is_installed() and command != "check":
        raise CommandError("the settings of tenant_router are incomplete: run 'python manage.py check'")
    with _one_line() if typed else nullcontext():
        if own and hasattr(self, "without_tenant"):
            if tenant_id:
                raise CommandError(f"{command} {self.without_tenant}: it takes no --tenant-id", returncode=2)
        elif typed and own:
            if command == "test":
                _refuse_test(tenant_id, options)
            else:
                tenant_id = tenant_id or os.environ.get(ENVIRONMENT) or None
                _refuse(command, tenant_id, options)
        guards.install_in_command()
        whole = process_tenant(tenant_id) if typed and tenant_id else nullcontext()
        with _bound(tenant_id, options.get("database")), whole:
            _refuse_template(options.get("database"))
            # what it pushes and never pops ends with it
            return run_as(_context.stack.get(), _originals["execute"], self, *args, **options)


def _check_migrations(self: BaseCommand) -> None:
    # runserver asks whether the migrations of "default" are applied; a template has no database to ask.
    if _context.current() is not None or not _is_template("default"):
        _originals["check_migrations"](self)


_PATCHES: dict[str, Callable[..., Any]] = {
    "create_parser": _create_parser,
    "execute": _execute,
    "check_migrations": _check_migrations,
}


def _refuse(command: str, tenant_id: str | None, options: dict[str, Any]) -> None:
    if command in SERVERS:
        if tenant_id:
            raise CommandError(f"{command} serves all tenants: it takes neither --tenant-id nor {ENVIRONMENT}")
        if os.environ.get("RUN_MAIN") == "true" or not options.get("use_reloader"):
            runtime.get().serve("web")
    elif command == "migrate" and tenant_id is None and not _is_particular(options.get("database")):
        raise CommandError(
            "migrate would reach one ORM and no tenant: run 'migrate_all', or give --tenant-id ID to migrate one tenant"
        )


def _refuse_test(tenant_id: str | None, options: dict[str, Any]) -> None:
    """A test run binds its own tenant, whatever ``TENANT_ID`` says: some environments set it for other purposes."""
    if tenant_id:
        raise CommandError("test runs as the test tenant: it does not take --tenant-id")
    path = options.get("testrunner") or settings.TEST_RUNNER
    if not getattr(import_string(path), "binds_test_tenant", False):
        name = path.rpartition(".")[2]
        own = "" if name == "DiscoverRunner" else f", or a 'class Runner(TenantTestRunner, {name})'"
        raise CommandError(
            f"the test runner {path!r} binds no tenant: set TEST_RUNNER = 'tenant_router.testing.TenantTestRunner'{own}"
        )


def _refuse_template(alias: object) -> None:
    # dumpdata and loaddata would find no model to be there, and do nothing without a word.
    if _context.current() is None and isinstance(alias, str) and _is_template(alias):
        raise _context.missing(f"database alias {alias!r}")


def _is_particular(alias: str | None) -> bool:
    """Whether ``alias`` means one database: a reserved one, or a tenant's."""
    reserved = isinstance(connections, TenantConnectionHandler) and alias in connections._manager.reserved_aliases
    return reserved or (alias is not None and _names_a_tenant(alias))


def _names_a_tenant(alias: str) -> bool:
    """Whether ``alias`` is made as a tenant's is. It may be nobody's."""
    if not isinstance(connections, TenantConnectionHandler) or alias in tuple(connections):
        return False
    return any(True for _ in identity.candidates(alias, tuple(connections._manager.templates)))


def _is_template(alias: str) -> bool:
    return isinstance(connections, TenantConnectionHandler) and alias in connections._manager.templates


def _bound(tenant_id: str | None, alias: str | None) -> AbstractContextManager[Any]:
    """Bind the tenant that is asked for, or the one whose alias ``--database`` names when none is bound."""
    if tenant_id is not None:
        return tenant_context_bind(tenant_context_manager.get_in_any_state(tenant_id))
    if alias is None or _context.current() is not None or not isinstance(connections, TenantConnectionHandler):
        return nullcontext()
    database = connections._manager.database_of(alias)
    if database is None:
        if _names_a_tenant(alias):
            raise TenantNotFound(f"no known tenant has the database alias {alias[:300]!r}")
        return nullcontext()
    return tenant_context_bind(tenant_context_manager.get_in_any_state(database.tenant_id))


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except TenantContextMissing as error:
        line = str(error).partition("\n")[0]
        raise CommandError(f"{line} Give --tenant-id ID, or {ENVIRONMENT}=ID in the environment.") from error
    except TenantRouterError as error:
        raise CommandError(str(error).replace("\n", " ")) from error
