"""``manage.py tenant_command SELECTOR... -- COMMAND ARGS...``: any command, for any tenants."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any, TextIO

from django.core.management import call_command
from django.core.management.base import CommandError, CommandParser

from tenant_router.management import executing, executors, selecting
from tenant_router.management.command_line import Word, check_for_tenants, remember, without
from tenant_router.management.operator import USAGE, OperatorCommand
from tenant_router.tenant_context import TenantContext


class Command(OperatorCommand):
    """Runs a command as it is, bound to one tenant after the other, or to several at once."""

    help = "Runs a command for many tenants: tenant_command SELECTOR... [options] -- COMMAND ARGS..."
    without_tenant = "names its tenants itself"
    so_far = "nothing was run"

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """A parser that leaves what follows ``--`` to the other command."""
        kwargs["usage"] = f"{prog_name} {subcommand} SELECTOR... [options] -- COMMAND ARGS...".lstrip()
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parse = parser.parse_intermixed_args

        def split(words: list[Word]) -> Any:
            at = words.index(Word("--")) if "--" in words else len(words)
            head, tail = words[:at], words[at + 1 :]
            self._head, self._line = head, tail if at < len(words) else None
            return parse(head)

        return remember(parser, split)

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        selecting.add_selectors(parser, "words")
        selecting.add_noinput(parser)
        executing.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run it."""
        words, line = _split(options["words"], self._line)
        name, arguments = line[0], line[1:]
        command = check_for_tenants(name, arguments)
        if options["executor"] == "processes" and not getattr(command, "_takes_tenant_id", False):
            raise CommandError(f"{name} has a --tenant-id of its own: choose another executor", returncode=USAGE)
        chosen = selecting.choose(
            words, options["exclude"], selecting.known_states(), interactive=options["interactive"]
        )
        selecting.tell(chosen.remarks, self.stderr)

        def here(tenant: TenantContext, out: TextIO, err: TextIO) -> None:
            call_command(name, *arguments, stdout=out, stderr=err)

        def again(selectors: list[str]) -> list[str]:
            kept = without(self._head, options["words"])
            return ["tenant_command", *selectors, *kept, "--", name, *arguments]

        executing.execute(
            executors.Caller.of(self), executors.Work(name, arguments, here, again), chosen.tenant_ids, options
        )


def _split(words: Sequence[str], tail: Sequence[str] | None) -> tuple[Sequence[str], Sequence[str]]:
    """The selectors, and the words of the other command's line; without ``--`` that is the last word."""
    if tail is None:
        words, tail = words[:-1], words[-1:]
    if len(tail) == 1:
        try:
            tail = shlex.split(tail[0])
        except ValueError as error:
            raise CommandError(f"the command line {tail[0]!r} is wrong: {error}", returncode=USAGE) from error
    if not tail:
        raise CommandError("name the command: tenant_command SELECTOR... -- COMMAND ARGS...", returncode=USAGE)
    return words, tail
