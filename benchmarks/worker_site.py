"""The Celery app of the benchmarks' workers; ``BENCH_SYSTEM`` is its queue, too. Else as ``served_settings`` says."""

from __future__ import annotations

import os
import sys

sys.modules["prometheus_client"] = None  # type: ignore[assignment] # an extra, which the plain site has not either
os.environ["DJANGO_SETTINGS_MODULE"] = "served_settings"

import django  # noqa: E402
from celery import Celery  # noqa: E402

django.setup()

from django.conf import settings  # noqa: E402
from peer_app.models import Note  # noqa: E402

app = Celery("bench", broker=os.environ["BENCH_REDIS"])
app.conf.update(task_default_queue=os.environ["BENCH_SYSTEM"], task_ignore_result=True)


@app.task(name="read")
def read(tenant: int) -> None:
    """One indexed query; a worker that reads another tenant's row is gone."""
    notes = Note.objects.using(f"t{tenant}") if settings.PLAIN and tenant else Note.objects
    if notes.get(pk=1).text != f"of {tenant}":
        os._exit(3)
