"""Index names with the tenant's prefix, as the cluster has them, and without it, as the application does."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TypeVar

from tenant_router.orm_backends.es_orm.errors import RequestRefused

T = TypeVar("T")

# A data stream "logs" keeps its documents in indices called ".ds-logs-<date>-<number>".
BACKING = ".ds-"
# Besides what Elasticsearch forbids in a name: ':' (remote clusters, data stream selectors), '<' (date math)
# and '%' (a second decoding by something in between).
_FORBIDDEN = re.compile(r"""[\s,<>/\\|"'#:%?{}\x00-\x1f\x7f]|\.\.""")
_RESERVED_STARTS = ("_", "-", "+")


def fault(name: str) -> str | None:
    """What is wrong with a single index name or pattern, or ``None``."""
    if not name or name.startswith(_RESERVED_STARTS):
        return "is empty or begins with '_', '-' or '+'"
    if name != name.lower():
        return "has upper-case letters"
    if _FORBIDDEN.search(name) or name == ".":
        return "holds a character that no index name may have (date math and remote clusters are not available)"
    return None


class IndexNames:
    """Adds one tenant's prefix to index names in requests, and removes it from those in answers."""

    __slots__ = ("all_indices", "prefix")

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.all_indices = f"{prefix}*"

    def prefixed(self, name: str) -> str:
        """One name or wildcard pattern with the prefix. Raises ``RequestRefused``."""
        if name == "_all":
            return self.all_indices
        wrong = fault(name)
        if wrong:
            raise RequestRefused(f"the index name {name[:80]!r} {wrong}")
        if name.startswith(BACKING):
            return f"{BACKING}{self.prefix}{name[len(BACKING) :]}"
        return self.prefix + name

    def prefixed_expression(self, text: str) -> str:
        """A comma-separated list, each name with the prefix; an empty one is all of the tenant's indices."""
        if not text:
            return self.all_indices
        return ",".join(self._item(item) for item in text.split(","))

    def prefixed_value(self, value: Any) -> Any:
        """A name or a list of names in a request's body, with the prefix."""
        if isinstance(value, str):
            return self.prefixed_expression(value)
        if isinstance(value, list | tuple):
            return [self._item(item) for item in value] or [self.all_indices]
        raise RequestRefused(f"an index name is a string or a list of strings, not a {type(value).__name__}")

    def unprefixed(self, name: T) -> T:
        """``name`` without the prefix; whatever does not begin with it comes back as it is."""
        if not isinstance(name, str):
            return name
        if name.startswith(self.prefix):
            return name[len(self.prefix) :]  # type: ignore[return-value]
        backing = BACKING + self.prefix
        return BACKING + name[len(backing) :] if name.startswith(backing) else name  # type: ignore[return-value]

    def unprefixed_all(self, names: Iterable[Any]) -> list[Any]:
        """:meth:`unprefixed` of each."""
        return [self.unprefixed(name) for name in names]

    def unprefixed_text(self, text: str) -> str:
        """A message or a table, without the prefix where a word or a bracket begins with it."""
        if not self.prefix:
            return text
        return re.sub(rf"(?<![^\s\[]){re.escape(self.prefix)}", "", text)

    def _item(self, item: Any) -> str:
        if not isinstance(item, str):
            raise RequestRefused(f"an index name is a string, not a {type(item).__name__}")
        if item.startswith("-"):
            return f"-{self.prefixed(item[1:])}"
        return self.prefixed(item)
