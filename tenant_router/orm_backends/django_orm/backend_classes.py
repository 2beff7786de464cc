"""Classes of connections: a mixin of ours before a project's own database backend."""

from __future__ import annotations

from typing import Any

from django.db.utils import load_backend


def mixed(mixin: type, engine: str) -> Any:
    """The backend named ``engine`` with ``mixin`` before it."""
    backend = load_backend(engine).DatabaseWrapper
    # __module__ and the name stay the backend's: third-party code tells databases apart by them
    return type(backend.__name__, (mixin, backend), {"__module__": backend.__module__})
