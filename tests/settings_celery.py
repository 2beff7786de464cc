"""The tests' project with results in one of three places, and receivers that write where they run."""

import os

from tests.app import celery_receivers
from tests.settings_processes import *  # noqa: F403
from tests.settings_processes import DATABASE_ROUTERS, INSTALLED_APPS

INSTALLED_APPS += ["django_celery_results"]
if os.environ.get("TESTS_RESULTS") != "redis":
    CELERY_RESULT_BACKEND = "django-db"
if os.environ.get("TESTS_RESULTS") == "central":
    DATABASE_ROUTERS.insert(0, "tests.app.routers.ResultsRouter")
CELERY_IMPORTS = ["tests.app.worker_tasks", "tests.app.celery_tasks"]
CELERY_RESULT_EXPIRES = 3600

celery_receivers.connect("early")  # before any application is ready
