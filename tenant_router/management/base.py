"""``TenantCommand``: the base class of an application's commands that do something for each of several tenants."""

from __future__ import annotations

from typing import Any, TextIO, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser, OutputWrapper

from tenant_router import context as _context
from tenant_router.fleet.output import SharedStream
from tenant_router.management import executing, executors, selecting
from tenant_router.management.command_line import Word, remember, without
from tenant_router.management.operator import INTERRUPTED, USAGE
from tenant_router.tenant_context import TenantContext


class TenantCommand(BaseCommand):
    """Write :meth:`handle_tenant`; the command then takes selectors and everything that ``tenant_command`` takes.

    Called where a tenant is bound (``--tenant-id``, or by code of a tenant), it is run for that one alone.
    """

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the selectors and how it is run. A class that overrides this calls it first."""
        selecting.add_selectors(parser)
        selecting.add_noinput(parser)
        executing.add_arguments(parser)

    def handle_tenant(self, tenant: TenantContext, *args: Any, **options: Any) -> Any:
        """Do it for ``tenant``, which is bound. ``self.stdout`` and ``print()`` are its own, in threads, too."""
        raise NotImplementedError(f"{type(self).__module__} must define handle_tenant(tenant, *args, **options)")

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """A parser that remembers which words are selectors."""
        self._name = subcommand
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        if not any(action.dest == "tenants" for action in parser._actions):
            raise CommandError(f"add_arguments() of {subcommand} must call super().add_arguments(parser) first")
        parse = parser.parse_args

        def remembered(words: list[Word]) -> Any:
            parsed = parse(words)
            self._words, self._parsed = words, dict(vars(parsed))
            return parsed

        return remember(parser, remembered)

    def handle(self, *args: Any, **options: Any) -> Any:
        """Run it for each tenant. Raises ``CommandError``."""
        bound = _context.current()
        if bound is not None:
            if options["tenants"]:
                raise CommandError(f"{bound.id} is bound here: select no other tenants", returncode=USAGE)
            return self.handle_tenant(bound, *args, **options)
        if options["executor"] in ("processes", "celery"):
            _check_repeatable(options, self._parsed)
        try:
            chosen = selecting.choose(
                options["tenants"], options["exclude"], selecting.known_states(), interactive=options["interactive"]
            )
            selecting.tell(chosen.remarks, self.stderr)
            self._execute(chosen.tenant_ids, args, options)
        except KeyboardInterrupt as error:
            raise CommandError("interrupted: nothing was run", returncode=INTERRUPTED) from error
        return None

    def _execute(self, tenant_ids: list[str], args: Any, options: dict[str, Any]) -> None:
        kept = without(self._words, options["tenants"])

        def here(tenant: TenantContext, out: TextIO, err: TextIO) -> None:
            said = self.handle_tenant(tenant, *args, **options)
            if said:
                out.write(f"{said}\n")

        def again(selectors: list[str]) -> list[str]:
            return [self._name, *selectors, *kept]

        caller = executors.Caller.of(self)
        self.stdout, self.stderr = _shared("stdout", caller.out), _shared("stderr", caller.err)
        try:
            executing.execute(caller, executors.Work(self._name, kept, here, again), tenant_ids, options)
        finally:
            self.stdout, self.stderr = caller.out, caller.err


def _shared(name: str, own: OutputWrapper) -> OutputWrapper:
    """A wrapper of the tenant's stream for which the calling code runs: several may run at once."""
    return OutputWrapper(cast(TextIO, SharedStream(name, cast(TextIO, own._out))))


def _check_repeatable(options: dict[str, Any], parsed: dict[str, Any]) -> None:
    """Raise ``CommandError`` for options that another process would not get: those that are no words."""
    told = parsed | {"skip_checks": options["skip_checks"]}  # of which call_command has an opinion of its own
    given = sorted(name for name, value in told.items() if name in options and options[name] != value)
    if given:
        raise CommandError(
            f"write the options {', '.join(given)} as words ('--name=value') for --executor {options['executor']}",
            returncode=USAGE,
        )
