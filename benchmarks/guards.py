"""What the guards of rows, instances and querysets cost: the same code with and without them, on SQLite in memory.

python benchmarks/guards.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import django
from django.conf import settings

SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}

settings.configure(
    INSTALLED_APPS=["tenant_router", "django.contrib.contenttypes", "django.contrib.auth"],
    DATABASES={"default": SQLITE},
    DATABASE_ROUTERS=["tenant_router.orm_backends.django_orm.router.DjangoOrmRouter"],
    TENANT_ROUTER_SERVICE_NAME="bench",
    TENANT_ROUTER_CONFIG_STORE_SETTINGS={"BACKEND": "tenant_router.config_store.backends.memory.MemoryStore"},
    TENANT_ROUTER_ORM_SETTINGS={"django_orm": {"SETTINGS_KEY": "DATABASES"}},
)
django.setup()

from django.contrib.auth.models import Permission  # noqa: E402
from django.contrib.contenttypes.models import ContentType  # noqa: E402
from django.core.management import call_command  # noqa: E402
from timing import compare  # noqa: E402

from tenant_router import runtime  # noqa: E402
from tenant_router.config_store import codec  # noqa: E402
from tenant_router.config_store.base import ACTIVE, Op  # noqa: E402
from tenant_router.context_decorators import tenant_context_bind  # noqa: E402
from tenant_router.orm_backends.django_orm import guards  # noqa: E402

ROWS = 1_000


class Guards:
    """Puts the guards in their place before ours is timed, and takes them away before plain is."""

    @staticmethod
    def before_ours() -> None:
        guards.install()

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
    record = {"orm_config": {"django_orm": {"default": {"NAME": ":memory:"}}}}
    body = codec.encode("bench.test", record, runtime.get().serializer)
    runtime.get().store.commit([Op("bench.test", ACTIVE, body)], request_id="bench")
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
            print(f"{title:28} {compare(function, function, calls=calls, around=Guards)}")


if __name__ == "__main__":
    main()
