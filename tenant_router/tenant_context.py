"""What can be bound: one tenant at one revision of its configuration, or what stands in its place."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any


class TenantContext:
    """One tenant at one revision of its configuration. Immutable.

    Who holds a context keeps using that revision: this is what makes a request that began on
    a tenant's old database end on it.

    ``id``: the tenant id. ``revision``: the store's revision of the record. ``parts``: what each
    manager prepared from the record, by ORM id (and ``"cache"``).
    """

    __slots__ = ("id", "parts", "revision")

    def __init__(self, id: str, revision: int, parts: Mapping[str, Any]) -> None:
        self.id = id
        self.revision = revision
        self.parts = parts

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id!r} revision {self.revision}>"


class FixedContext(TenantContext):
    """Bound as it is, whatever state or revision the tenant has: how operators migrate what nobody is served from."""

    __slots__ = ()


class PlainContext(TenantContext):
    """The test tenant of a test run: what only keeps tenants apart is left as Django has it."""

    __slots__ = ()


class DeniedContext(TenantContext):
    """Stands where a tenant could not be bound: every use of it raises ``error``."""

    __slots__ = ("error",)

    def __init__(self, id: str, error: Exception) -> None:
        super().__init__(id, 0, _Denying(error))
        self.error = error


class NamedContext(TenantContext):
    """A tenant by its id alone, as it comes from another process; found at its first use (see :func:`renew`).

    ``any_state``: as an operator's command finds it, be it suspended.
    """

    __slots__ = ("any_state",)

    def __init__(self, id: str, any_state: bool = False) -> None:
        super().__init__(id, 0, {})
        self.any_state = any_state


class LateContext(TenantContext):
    """A tenant that is looked up by ``find()`` when it is used for the first time."""

    __slots__ = ("_find", "_found")

    def __init__(self, id: str, find: Callable[[], TenantContext]) -> None:
        super().__init__(id, 0, _Late(self))
        self._find = find
        self._found: TenantContext | None = None

    def resolve(self) -> TenantContext:
        """The tenant that it stands for."""
        if self._found is None:
            self._found = self._find()
        return self._found


class _Late(Mapping[str, Any]):
    """What is read where nobody looks whether the unit is over."""

    def __init__(self, context: LateContext) -> None:
        self._context = context

    def __getitem__(self, key: str) -> Any:
        return self._context.resolve().parts[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._context.resolve().parts)

    def __len__(self) -> int:
        return len(self._context.resolve().parts)


class _Denying(Mapping[str, Any]):
    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getitem__(self, key: str) -> Any:
        # A fresh exception each time: raising one object twice would grow its traceback.
        raise copy.copy(self._error) from self._error

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0
