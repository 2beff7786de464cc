"""The one tenant of a whole process: of a command that was started with ``--tenant-id``, and of its children."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager

from tenant_router import context as _context

# Tells multiprocessing's spawned children; forked ones have it in memory. A server that a command starts as a
# process of its own serves all tenants: this is not for it.
INHERITED = "_TENANT_ROUTER_PROCESS_TENANT"


@contextmanager
def process_tenant(tenant_id: str) -> Iterator[None]:
    """Have the threads and children that are started inside the block find the tenant."""
    held, inherited = _context.ambient, os.environ.get(INHERITED)
    if _context.testing:
        yield  # a test run has its own
        return
    _context.set_process_tenant(tenant_id)
    os.environ[INHERITED] = tenant_id
    try:
        yield
    finally:
        _context.ambient = held
        os.environ.pop(INHERITED)
        if inherited is not None:
            os.environ[INHERITED] = inherited


def adopt() -> None:
    """In a child that ``multiprocessing`` has spawned: take over the command's tenant."""
    # Lib/multiprocessing/spawn.py: while a child unpickles what it is to run, it is marked as inheriting; its parent
    # is known from then on.
    inheriting = getattr(multiprocessing.current_process(), "_inheriting", False)
    if INHERITED in os.environ and (inheriting or multiprocessing.parent_process() is not None):
        _context.set_process_tenant(os.environ[INHERITED])
