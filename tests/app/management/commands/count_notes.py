"""A command of an application's that does something for each tenant."""

from tenant_router.management.base import TenantCommand
from tests.app.models import Note


class Command(TenantCommand):
    help = "Counts the notes of each tenant."

    def add_arguments(self, parser):
        super().add_arguments(parser)
        parser.add_argument("--add", default="")
        parser.add_argument("--over", type=int)

    def handle_tenant(self, tenant, *args, add, over, **options):
        if add:
            Note.objects.create(text=f"{add} of {tenant.id}")
        count = Note.objects.count()
        if over is not None and count > over:
            raise ValueError(f"{tenant.id} has {count} notes")
        self.stdout.write(f"{count} notes")
        print(*Note.objects.values_list("text", flat=True))
        return f"counted at {tenant.id}"
