"""Command lines of which a part is another one's: words that are known again, and whether a command is for tenants."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenant_router.management.operator import USAGE
from tenant_router.runtime.commands import SERVERS

NOT_FOR_TENANTS = {
    **dict.fromkeys((*SERVERS, "testserver"), "serves all tenants"),
    "test": "runs as the test tenant",
    "migrate_all": "takes selectors itself",
}


class Word(str):
    """A word of a command line, which is known again by its identity wherever argparse has put it."""

    __slots__ = ()


def program() -> list[str]:
    """How this process was started, after the interpreter: by a file, or by ``-m`` and a package's name."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None:
        return [sys.argv[0]]
    return ["-m", spec.parent if spec.name.endswith("__main__") and spec.parent else spec.name]


def remember(parser: CommandParser, parse: Callable[[list[Word]], Any]) -> CommandParser:
    """Have ``parse`` get the words that ``parser`` is given, be it by Django or by ``call_command``."""

    def parse_args(args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        return parse([Word(word) for word in args or ()])

    parser.parse_args = parse_args  # type: ignore[method-assign]
    return parser


def without(words: Sequence[str], taken: Sequence[str]) -> list[str]:
    """``words`` but those that are ``taken``."""
    identities = {id(word) for word in taken}
    return [word for word in words if id(word) not in identities]


def check_for_tenants(name: str, arguments: Sequence[str]) -> BaseCommand:
    """The command of that name, if it is for tenants and takes these arguments. Raises ``CommandError``.

    Raises ``SystemExit`` where the arguments ask for help, which is shown.
    """
    command = _loaded(name)
    if why := NOT_FOR_TENANTS.get(name) or getattr(command, "without_tenant", None):
        raise CommandError(f"{name} {why}: it is not run for tenants one by one", returncode=USAGE)
    try:
        parsed = command.create_parser("manage.py", name).parse_args(list(arguments))
    except CommandError as error:
        raise CommandError(
            f"{name}: {str(error).removeprefix('Error: ')} (nothing was run)", returncode=USAGE
        ) from error
    if getattr(command, "_takes_tenant_id", False) and parsed.tenant_id:
        raise CommandError(f"the selectors say for whom {name} is run: give it no --tenant-id", returncode=USAGE)
    return command


def _loaded(name: str) -> BaseCommand:
    known = get_commands()
    if name not in known:
        close = get_close_matches(name, known, 1)
        said = f"Unknown command: {name!r}" + (f". Did you mean {close[0]}?" if close else "")
        raise CommandError(f"{said} (nothing was run; 'manage.py help' lists them)", returncode=USAGE)
    app = known[name]
    return app if isinstance(app, BaseCommand) else load_command_class(app, name)
