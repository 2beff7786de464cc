"""What a record says of one cache, ready for use."""

from __future__ import annotations

from typing import Any, Protocol

from tenant_router.cache import keys


class Opened(Protocol):
    """A backend of a cache in one thread."""

    def replaced(self) -> None:
        """The settings of the cache were replaced."""


class Cache:
    """One tenant's cache at one revision. ``own_location``: it says more than its template does.

    ``opened``: its backends, in all threads. ``retired``: it was replaced, nobody binds it any more.
    """

    __slots__ = (
        "alias",
        "backend",
        "location",
        "newest",
        "opened",
        "own_location",
        "params",
        "retired",
        "settings",
        "tenant_id",
        "token",
    )

    def __init__(self, tenant_id: str, alias: str, settings: dict[str, Any], own_location: bool) -> None:
        self.tenant_id, self.alias, self.settings, self.own_location = tenant_id, alias, settings, own_location
        self.token = keys.token(tenant_id)
        self.params = {key: value for key, value in settings.items() if key not in ("BACKEND", "LOCATION")}
        self.backend, self.location = settings["BACKEND"], settings.get("LOCATION", "")
        self.opened: set[Opened] = set()
        self.retired = False
        self.newest = ""  # generation, where the backend is cleared by one

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.alias!r} of {self.token}>"
