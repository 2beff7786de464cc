"""What is submitted to an executor runs as the tenant that submitted it: patches of ``concurrent.futures``.

Facts about CPython (3.10 to 3.13, Lib/concurrent/futures and Lib/asyncio):

- A thread of a pool has one context for its whole life, and ``_WorkItem.run`` calls job after job in it. So each job
  begins with what it was submitted with and ends with what was there before, also a job that was submitted unbound.
- ``Executor.map`` of both pools calls ``self.submit``; so does ``loop.run_in_executor``, below ``asyncio.to_thread``
  and ``sync_to_async``. Those two enter a copy of the context inside the job, which binds what this binds.
- ``ProcessPoolExecutor`` pickles the function that it was given, in a thread of its own; a function that cannot be
  pickled fails its future there.
- ``Future`` calls its callbacks in whichever thread ends it, in that thread's context: a pool's, the one that reads
  what worker processes answer, or the caller's if it is done already.

Initializers run unbound: the thread or process is nobody's. Executors of others that are subclasses of ``Executor``
alone, or have a ``submit`` of their own, are left as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import wraps
from typing import Any

from tenant_router.propagation import submitted

_PATCHED: tuple[tuple[type, str], ...] = (
    (ThreadPoolExecutor, "submit"),
    (ProcessPoolExecutor, "submit"),
    (Future, "add_done_callback"),
)
_originals: dict[tuple[type, str], Callable[..., Any]] = {}


def install() -> None:
    """Patch the executors of the standard library; idempotent."""
    if not _originals:
        for owner, name in _PATCHED:
            original = _originals[owner, name] = vars(owner)[name]
            setattr(owner, name, _carrying(original))


def uninstall() -> None:
    """Undo :func:`install`."""
    for (owner, name), original in _originals.items():
        setattr(owner, name, original)
    _originals.clear()


def _carrying(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def patched(self: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return original(self, submitted(fn), *args, **kwargs)

    return patched
