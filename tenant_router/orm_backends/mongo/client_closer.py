"""Closes MongoDB clients that nothing refers to any more, in a thread of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

from pymongo import MongoClient
from pymongo.errors import PyMongoError


class TenantClient(MongoClient):  # type: ignore[misc]
    """A ``MongoClient`` that is closed when nothing refers to it any more.

    Closing talks to the server, and objects die wherever the interpreter is at that moment,
    perhaps holding a lock of PyMongo's. So an unused client hands itself to a thread.
    """

    # PyMongo keeps no strong reference to a client (its threads have weak ones), so that this runs as soon as the
    # last user is gone; tests/integration/test_mongo_clients.py shows it. Names with an underscore in front: others
    # are databases (pymongo/mongo_client.py: __getattr__).
    _tr_pid = 0
    _tr_close: Callable[[TenantClient], None] | None = None

    def __del__(self) -> None:
        # In a forked child the sockets are the parent's: they are dropped, not shut down.
        if self._tr_close is not None and self._tr_pid == os.getpid():
            self._tr_close(self)


class ClientCloser:
    """The thread that closes unused clients; it runs while there are any that may become unused."""

    def __init__(self) -> None:
        # Its put() may be called from a destructor at any moment, even by a thread that is inside of it.
        self._unused: SimpleQueue[TenantClient | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def start(self) -> Callable[[TenantClient], None]:
        """Start the thread, if it is not running. Returns the function that hands it a client to close."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=_close_all, args=(self._unused,), name="tenant_router-mongo-closer", daemon=True
                )
                self._thread.start()
        return self._unused.put

    def stop(self) -> None:
        """End the thread, once it has closed all that it was handed."""
        with self._lock:
            if self._thread is not None:
                self._unused.put(None)
                self._thread = None


def _close_all(unused: SimpleQueue[TenantClient | None]) -> None:
    while (client := unused.get()) is not None:
        with suppress(PyMongoError, OSError):  # the server may be gone
            client.close()
        del client
