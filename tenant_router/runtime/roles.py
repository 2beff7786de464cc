"""Detects the role of this process: a master that will fork servers, or a child of ``multiprocessing``."""

from __future__ import annotations

import sys


def will_fork_servers() -> bool:
    """Whether this process loads the application only to fork its servers afterwards.

    gunicorn with ``preload_app`` loads it in ``Arbiter.setup``, its workers in
    ``Arbiter.spawn_worker``. uWSGI numbers its workers from 1 and is 0 in the master.
    """
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is not None:
        return bool(uwsgi.worker_id() == 0)
    callers = callers_in("gunicorn.arbiter")
    return "setup" in callers and "spawn_worker" not in callers


def forked_by_multiprocessing() -> bool:
    """Whether this child was forked by ``multiprocessing``, or by Celery's twin of it, and not by a server."""
    # Both fork in Popen._launch of a module called popen_fork; the child is not marked as one yet.
    return "_launch" in callers_in("multiprocessing.popen_fork") | callers_in("billiard.popen_fork")


def callers_in(module: str) -> set[str]:
    """The names of the functions of ``module`` that are on this thread's stack."""
    names, frame = set(), sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == module:
            names.add(frame.f_code.co_name)
        frame = frame.f_back  # type: ignore[assignment]
    return names
