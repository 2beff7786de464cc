"""What the guards of rows, instances and querysets cost: the same code with and without them, on SQLite in memory.

python benchmarks/guards.py
"""

from __future__ import annotations

import report
from site_of_one import make_tenant  # first: it configures Django
from timing import compare

from django.contrib.auth.models import Permission  # isort: skip
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.orm_backends.django_orm import guards

ROWS = 1_000


class Guards:
    """Puts the guards in their place before ours is timed, and takes them away before plain is."""

    @staticmethod
    def before_ours() -> None:
        guards.install({"default"})

    @staticmethod
    def before_plain() -> None:
        guards.uninstall()


def fill() -> None:
    call_command("migrate", verbosity=0)
    content_type = ContentType.objects.first()
    Permission.objects.all().delete()
    Permission.objects.bulk_create(
        Permission(name=f"p{number}", codename=f"p{number}", content_type=content_type) for number in range(ROWS)
    )


def main() -> None:
    make_tenant()
    with tenant_context_bind("bench.test"):
        fill()
        key = Permission.objects.first().pk
        held = Permission.objects.select_related("content_type").get(pk=key)
        kept = Permission.objects.all()
        len(kept)
        for title, function, calls in (
            (f"read {ROWS} rows", lambda: list(Permission.objects.all()), 2),
            ("get() one row", lambda: Permission.objects.get(pk=key), 100),
            ("save() a row", lambda: held.save(update_fields=["name"]), 50),
            ("follow a loaded foreign key", lambda: held.content_type, 20_000),
            ("len() of a read queryset", lambda: len(kept), 20_000),
        ):
            report.row("guards", title, compare(function, function, calls=calls, around=Guards).ratio)


if __name__ == "__main__":
    main()
