import json
from pathlib import Path
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandParser
from django.db import transaction

from hospitals.models import Hospital

DATA: dict[str, list[dict[str, Any]]] = json.loads((Path(__file__).parents[2] / "demo_data.json").read_text("utf-8"))


class Command(BaseCommand):
    help = "Fill an empty site with the hospitals of one demo data set, and a user demo/demo for its admin."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dataset", choices=sorted(DATA), required=True)

    def handle(self, *args: Any, dataset: str, **options: Any) -> None:
        self._fill(dataset)
        if apps.is_installed("reports"):
            from reports.seed import seed

            self.stdout.write(f"{seed(dataset)} reports")

    @transaction.atomic
    def _fill(self, dataset: str) -> None:
        users = get_user_model().objects
        if not users.filter(username="demo").exists():
            users.create_superuser("demo", "demo@example.com", "demo")
        if not Hospital.objects.exists():
            for row in DATA[dataset]:
                Hospital.objects.create(**row)
        self.stdout.write(f"{Hospital.objects.count()} hospitals")
