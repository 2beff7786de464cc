"""The selectors of a command line: their options, and whom they mean."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import CommandError, CommandParser

from tenant_router import runtime
from tenant_router.config_store.base import ACTIVE
from tenant_router.fleet.selectors import Selection, SelectionError, Tenants, read, states_in
from tenant_router.management.operator import USAGE, ask, somebody_types, tenant_name
from tenant_router.managers import tenant_context_manager

GRAMMAR = "an id, a glob ('acme-*'), :all:, :state=NAME, :label=NAME, @FILE or - (standard input)"
QUESTION = f"Which tenants ({GRAMMAR})? "


def add_selectors(parser: CommandParser, dest: str = "tenants") -> None:
    """Declare the selectors, and ``--exclude``."""
    parser.add_argument(dest, nargs="*", type=tenant_name, metavar="SELECTOR", help=f"Which tenants: {GRAMMAR}.")
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        type=tenant_name,
        metavar="SELECTOR",
        help="Leave these tenants out; may be repeated.",
    )


def add_noinput(parser: CommandParser) -> None:
    """Declare ``--noinput``."""
    parser.add_argument(
        "--noinput", "--no-input", action="store_false", dest="interactive", help="Ask nothing; take no short names."
    )


def known_states() -> Mapping[str, str]:
    """The state of each tenant that the store has now. Raises ``StoreError``."""
    runtime.get().refresh()  # a command before it in this process may have written
    return states_in(tenant_context_manager.index.copy())


def choose(
    words: Sequence[str],
    excluded: Sequence[str],
    states: Mapping[str, str],
    *,
    meant: str = ACTIVE,
    interactive: bool = True,
    otherwise: str = "nothing was run",
) -> Selection:
    """The tenants that a command line selects; without a selector, those that are typed now.

    ``meant``: the states of those whom patterns mean. ``interactive``: whether somebody may be asked, and may write
    leading labels alone. ``otherwise``: what is true if nobody is selected. Raises ``SelectionError``, and
    ``CommandError`` where nobody can be asked.
    """
    typed = interactive and somebody_types()
    try:
        if not words:
            words = _asked(interactive, otherwise)
        tenants = Tenants(states, meant)
        without = read(excluded, stdin=sys.stdin, typed=typed)
        return tenants.select(read(words, stdin=sys.stdin, typed=typed), without)
    except SelectionError as error:
        raise type(error)(f"{error}; {otherwise}") from error


def tell(remarks: Sequence[str], stderr: Any) -> None:
    """Say who is left out."""
    for remark in remarks:
        stderr.write(f"note: {remark}", style_func=str)


def _asked(interactive: bool, otherwise: str) -> list[str]:
    typed = ask(QUESTION, otherwise) if interactive else None
    if typed is None:
        raise CommandError(f"name the tenants: {GRAMMAR}; {otherwise}", returncode=USAGE)
    return typed.split()
