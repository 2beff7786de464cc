"""A server that hangs: from when on it surely is so."""

from __future__ import annotations

import threading

from tests.tenants import eventually


def hang(server, made):
    """Freeze the store's server; see :func:`in_silence`."""
    in_silence(made, server.pause)


def in_silence(made, act):
    """Do it while the reader of ``made`` asks its store nothing.

    So no answer is on its way that would make the process ready once more afterwards.
    """
    waits, go_on, changes = threading.Event(), threading.Event(), made.store.changes

    def gate(*arguments):
        waits.set()
        go_on.wait()
        return changes(*arguments)

    made.store.changes = gate
    try:
        eventually(waits.is_set)
        act()
    finally:
        del made.store.changes
        go_on.set()
