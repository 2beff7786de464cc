"""What binding a tenant costs, against a bare ContextVar that is set and reset.

python benchmarks/binding.py
"""

from __future__ import annotations

from contextvars import ContextVar

from site_of_one import make_tenant
from timing import compare

from tenant_router.context_decorators import tenant_context_bind

CALLS = 20_000
bare: ContextVar[str] = ContextVar("bare")


def bind() -> None:
    with tenant_context_bind("bench.test"):
        pass


def bind_and_query() -> None:
    from django.db import connection

    with tenant_context_bind("bench.test"), connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def set_and_reset() -> None:
    token = bare.set("bench.test")
    try:
        pass
    finally:
        bare.reset(token)


def main() -> None:
    make_tenant()
    print(f"{'bind, nothing opened':28} {compare(bind, set_and_reset, calls=CALLS)}")
    bind_and_query()
    print(f"{'bind, a connection is open':28} {compare(bind, set_and_reset, calls=CALLS)}")


if __name__ == "__main__":
    main()
