"""The demo: ``python mt_site/demo.py up``; see ``make help`` for the usual way in."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

from demo_stack.errors import DemoError, Interrupted
from demo_stack.state import State


def main() -> int:
    options = _parser().parse_args()
    command: Callable[[State, argparse.Namespace], int] = options.command
    try:
        return command(State.default(), options)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except (Interrupted, KeyboardInterrupt):
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="demo.py", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    up = _command(commands, "up", _up, "start everything; Ctrl-C stops it")
    up.add_argument("--port", type=_port, default=9500, help="9500 unless given; 0 chooses a free one")
    up.add_argument("--services", choices=["", "all"], default="", help="all: MongoDB and Elasticsearch, too")
    tenant = _command(commands, "tenant", _tenant, "add a tenant to the running demo")
    tenant.add_argument("tenant", metavar="ID", help="such as tenant-3.test.com")
    _command(commands, "clean", _clean, "remove the demo's data")
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 to 65535")
    return int(text)


def _command(commands: Any, name: str, function: Callable[..., int], text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=function)
    return parser


def _up(state: State, options: argparse.Namespace) -> int:
    from demo_stack.up import up

    return up(state, options.port, options.services)


def _tenant(state: State, options: argparse.Namespace) -> int:
    from demo_stack.up import add_tenant

    started = time.monotonic()
    print(f"{add_tenant(state, options.tenant)}  serves now ({time.monotonic() - started:.1f} s)")
    return 0


def _clean(state: State, options: argparse.Namespace) -> int:
    state.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
