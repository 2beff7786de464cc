"""Replaces functions of Celery by ones that call them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

_OURS = "_tenant_router"


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Have ``owner.name`` be what ``make`` makes of it; once, however often this is asked for."""
    original = getattr(owner, name)
    if not hasattr(original, _OURS):
        setattr(owner, name, marked(original, make(original)))


def marked(original: Any, made: Any) -> Any:
    """``made``, which looks like ``original`` and is known as ours.

    Its module stays ours: a ``before_start`` of Celery's own module would not be called.
    """
    functools.update_wrapper(made, original, assigned=("__name__", "__qualname__", "__doc__"))
    setattr(made, _OURS, True)
    return made


def is_ours(function: Any) -> bool:
    """Whether a function is one that we have made."""
    return hasattr(function, _OURS)
