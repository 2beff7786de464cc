"""Index names as the tenant's application knows them, and as the cluster does."""

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


class Names:
    """Translates names between one tenant's application (outside) and its cluster (inside)."""

    __slots__ = ("everything", "prefix")

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.everything = f"{prefix}*"

    def single(self, name: str) -> str:
        """The cluster's name for one name or wildcard pattern. Raises ``RequestRefused``."""
        if name == "_all":
            return self.everything
        wrong = fault(name)
        if wrong:
            raise RequestRefused(f"the index name {name[:80]!r} {wrong}")
        if name.startswith(BACKING):
            return f"{BACKING}{self.prefix}{name[len(BACKING) :]}"
        return self.prefix + name

    def expression(self, text: str) -> str:
        """The cluster's form of a comma-separated list; an empty one is all of the tenant's indices."""
        if not text:
            return self.everything
        return ",".join(self._item(item) for item in text.split(","))

    def value(self, value: Any) -> Any:
        """The cluster's form of what a request's body gives as a name, or as a list of names."""
        if isinstance(value, str):
            return self.expression(value)
        if isinstance(value, list | tuple):
            return [self._item(item) for item in value] or [self.everything]
        raise RequestRefused(f"an index name is a string or a list of strings, not a {type(value).__name__}")

    def outward(self, name: T) -> T:
        """The application's name for something that the cluster calls ``name``; anything else comes back as it is."""
        if not isinstance(name, str):
            return name
        if name.startswith(self.prefix):
            return name[len(self.prefix) :]  # type: ignore[return-value]
        backing = BACKING + self.prefix
        return BACKING + name[len(backing) :] if name.startswith(backing) else name  # type: ignore[return-value]

    def outward_all(self, names: Iterable[Any]) -> list[Any]:
        """:meth:`outward` of each."""
        return [self.outward(name) for name in names]

    def outward_text(self, text: str) -> str:
        """A message or a table, with the tenant's own names where words or brackets begin with the prefix."""
        if not self.prefix:
            return text
        return re.sub(rf"(?<![^\s\[]){re.escape(self.prefix)}", "", text)

    def _item(self, item: Any) -> str:
        if not isinstance(item, str):
            raise RequestRefused(f"an index name is a string, not a {type(item).__name__}")
        if item.startswith("-"):
            return f"-{self.single(item[1:])}"
        return self.single(item)
