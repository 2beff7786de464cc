"""How many databases of one server are worked on at once: a server shall not pay for the size of the fleet."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

Server = tuple[str, str, str]


class Servers:
    """``limit`` places on each server."""

    def __init__(self, limit: int) -> None:
        self._places: defaultdict[Server, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(limit))
        self._lock = threading.Lock()

    @contextmanager
    def place(self, databases: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
        """Wait for a place on each server of ``databases``, settings by alias. In one order, so that nobody waits for
        who waits for him.
        """
        servers = sorted({(_text(one, "ENGINE"), _text(one, "HOST"), _text(one, "PORT")) for one in databases.values()})
        with self._lock:
            places = [self._places[server] for server in servers]
        with ExitStack() as held:
            for place in places:
                held.enter_context(place)
            yield


def _text(settings: Mapping[str, Any], key: str) -> str:
    return str(settings.get(key) or "")
