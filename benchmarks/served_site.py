"""The site of the benchmarks that need real servers or fresh processes: WSGI, or ASGI with ``BENCH_ASGI``."""

from __future__ import annotations

import os
import sys

sys.modules["prometheus_client"] = None  # type: ignore[assignment] # an extra, which the plain site has not either

import django  # noqa: E402
import redis  # noqa: E402, F401 - a site that uses Redis and Celery, with and without us
from celery import Celery  # noqa: E402

os.environ["DJANGO_SETTINGS_MODULE"] = "served_settings"
django.setup()

celery = Celery("bench", broker="memory://")
celery.finalize()

from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402

application = get_asgi_application() if os.environ.get("BENCH_ASGI") else get_wsgi_application()
