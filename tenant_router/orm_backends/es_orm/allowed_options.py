"""What a tenant's record may say of an Elasticsearch cluster: the allow-list of client options.

A record is data. What names a local file, a class, a function or a serializer, what weakens TLS, what sets
headers, and what has no bound comes from the template in the settings, or is allowed by name in
``OPTIONS["ALLOW_OPTIONS"]`` of the ORM. The names are those of ``elasticsearch.Elasticsearch``.
"""

from __future__ import annotations

from typing import Any

from tenant_router.allow_lists import AllowList, Choice, Flag, Number, Text

MAX_HOSTS = 50
MAX_CONNECTIONS = 100  # to each node: the client makes a place for each at once
HOUR = 3_600  # seconds
_MOST = 4_000  # characters of a credential


class _Token:
    """Text that stands in a header as it is; where ``pair``, or a list of two texts, which the client encodes."""

    _text = Text("printable ASCII", r"[\x21-\x7e]+", _MOST)
    _part = Text("text", most=_MOST)

    def __init__(self, pair: str = "") -> None:
        self._pair = pair

    def fault(self, value: Any) -> str | None:
        """See ``allow_lists.Kind``."""
        if not self._pair or isinstance(value, str):
            return self._text.fault(value)
        if isinstance(value, list | tuple) and len(value) == 2:
            return next((what for what in map(self._part.fault, value) if what), None)
        return f"is not text, or a list of {self._pair}"

    def parse(self, text: str) -> Any:
        """See ``allow_lists.Kind``."""
        return text


class _Statuses:
    """A status of HTTP, or a list of them."""

    _each = Number(400, 599)

    def fault(self, value: Any) -> str | None:
        """See ``allow_lists.Kind``."""
        if isinstance(value, list | tuple) and len(value) <= 50:
            return next((what for what in map(self._each.fault, value) if what), None)
        return self._each.fault(value)

    def parse(self, text: str) -> Any:
        """See ``allow_lists.Kind``."""
        return text


OPTIONS: AllowList = {
    "api_key": _Token("id and key"),
    "basic_auth": _Token("user and password"),
    "bearer_auth": _Token(),
    "connections_per_node": Number(1, MAX_CONNECTIONS),
    "dead_node_backoff_factor": Number(0, HOUR, fraction=True),
    "http_compress": Flag(),
    "max_dead_node_backoff": Number(0, HOUR, fraction=True),
    "max_retries": Number(0, 20),
    "min_delay_between_sniffing": Number(0, 24 * HOUR, fraction=True),
    "randomize_nodes_in_pool": Flag(),
    "request_timeout": Number(0.001, HOUR, fraction=True),
    "retry_on_status": _Statuses(),
    "retry_on_timeout": Flag(),
    "sniff_before_requests": Flag(),
    "sniff_on_node_failure": Flag(),
    "sniff_on_start": Flag(),
    "sniff_timeout": Number(0.01, 10, fraction=True),
    "verify_certs": Choice(True),
}
