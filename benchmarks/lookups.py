"""What a bound tenant's look-ups cost: the router, a connection, a cache, against what Django does without us.

python benchmarks/lookups.py
"""

from __future__ import annotations

import report
from site_of_one import SQLITE, make_tenant  # first: it configures Django
from timing import compare

from django.core.cache import CacheHandler, caches  # isort: skip
from django.contrib.auth.models import Permission
from django.db import ConnectionRouter, connections, router
from django.db.utils import ConnectionHandler

from tenant_router.context_decorators import tenant_context_bind

CALLS = 20_000
LOCMEM = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}


class Constant:
    """The least that a router can do."""

    def db_for_read(self, model: object, **hints: object) -> str:
        return "default"


def main() -> None:
    make_tenant()
    constant, plain = ConnectionRouter([Constant()]), ConnectionHandler({"default": SQLITE})
    plain_caches = CacheHandler()
    plain_caches.settings = plain_caches.configure_settings({"default": LOCMEM})
    with tenant_context_bind("bench.test"):
        for what, ours, theirs, goal in (
            ("db_for_read", lambda: router.db_for_read(Permission), lambda: constant.db_for_read(Permission), 1.5),
            ('connections["default"]', lambda: connections["default"], lambda: plain["default"], 1.15),
            ('caches["default"]', lambda: caches["default"], lambda: plain_caches["default"], 1.15),
        ):
            report.row("look-ups", what, compare(ours, theirs, calls=CALLS).ratio, goal=f"<= {goal}")


if __name__ == "__main__":
    main()
