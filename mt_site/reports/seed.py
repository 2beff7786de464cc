"""The reports of one demo data set."""

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from reports.models import Report

DATA: dict[str, list[dict[str, Any]]] = json.loads(Path(__file__).with_name("demo_reports.json").read_text("utf-8"))


def seed(dataset: str) -> int:
    """Fill an empty collection; the number of reports that there are then."""
    if not Report.objects.count():
        now = datetime.now(timezone.utc)
        for row in DATA[dataset]:
            fields = {name: value for name, value in row.items() if name != "hours"}
            Report(written_at=now - timedelta(hours=row["hours"]), **fields).save()
    return int(Report.objects.count())
