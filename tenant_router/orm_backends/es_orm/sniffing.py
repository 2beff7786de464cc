"""The transports of clients: Elasticsearch's own, which ask a node for the others within bounds.

The first question (``sniff_on_start``) has no limit in time (elasticsearch/_sync/client/_base.py:
``_default_sniff_callback``): a node that accepts and never answers would be waited for as long as it likes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from elastic_transport import AsyncTransport, SniffOptions, Transport

PATIENCE = 1.0  # seconds for each node, unless OPTIONS say otherwise: the client's own default for later questions


class BoundedTransport(Transport):
    """A ``Transport`` whose first question to a node has the limit of all others."""

    def __init__(self, node_configs: Any, **options: Any) -> None:
        super().__init__(node_configs, **{**options, "sniff_callback": _bounded(options.get("sniff_callback"))})


class BoundedAsyncTransport(AsyncTransport):
    """:class:`BoundedTransport`, asynchronous."""

    def __init__(self, node_configs: Any, **options: Any) -> None:
        super().__init__(node_configs, **{**options, "sniff_callback": _bounded(options.get("sniff_callback"))})


def _bounded(ask: Callable[..., Any] | None) -> Callable[..., Any] | None:
    return None if ask is None else partial(_ask, ask)


def _ask(ask: Callable[..., Any], transport: Any, options: SniffOptions) -> Any:
    bounds = replace(options, is_initial_sniff=False, sniff_timeout=options.sniff_timeout or PATIENCE)
    return ask(transport, bounds)
