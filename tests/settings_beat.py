"""The tests' project with the schedule that a test gives to beat."""

import json
import os

from tests.settings_processes import *  # noqa: F403
from tests.settings_processes import DATABASE_ROUTERS, INSTALLED_APPS

CELERY_BEAT_SCHEDULER = os.environ.get("TESTS_SCHEDULER", "tenant_router.celery.beat:TenantScheduler")
CELERY_BEAT_SCHEDULE = json.loads(os.environ.get("TESTS_BEAT", "{}"))
CELERY_BEAT_MAX_LOOP_INTERVAL = 0.5
if "database" in CELERY_BEAT_SCHEDULER:
    INSTALLED_APPS += ["django_celery_beat"]
    DATABASE_ROUTERS.insert(0, "tenant_router.celery.routers.BeatRouter")
    TENANT_ROUTER_CELERY_SETTINGS = {"BEAT_ALIAS": "central"}
