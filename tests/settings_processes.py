"""The tests' project as separate processes run it: each test picks its service, its store and its limits."""

import json
import os

from tests.settings import *  # noqa: F403
from tests.settings import (
    DATABASES,
    LOGGING,
    TENANT_ROUTER_CONFIG_STORE_SETTINGS,
    TENANT_ROUTER_MIDDLEWARE_SETTINGS,
    TENANT_ROUTER_ORM_SETTINGS,
)

TENANT_ROUTER_SERVICE_NAME = os.environ.get("TESTS_SERVICE", "tests")
TENANT_ROUTER_CONFIG_STORE_SETTINGS["BACKEND"] = "tenant_router.config_store.backends.redis.RedisStore"
TENANT_ROUTER_CONFIG_STORE_SETTINGS["OPTIONS"] |= {
    "IDLE": float(os.environ.get("TESTS_IDLE", "1")),
    "BOOT_TIMEOUT": float(os.environ.get("TESTS_BOOT_TIMEOUT", "5")),
    "EAGER_MAX": int(os.environ.get("TESTS_EAGER_MAX", "5000")),
}
TENANT_ROUTER_CONFIG_STORE_SETTINGS["LOCATION"] |= json.loads(os.environ.get("TESTS_LOCATION", "{}"))
TENANT_ROUTER_CONFIG_STORE_SETTINGS["OPTIONS"] |= json.loads(os.environ.get("TESTS_STORE_OPTIONS", "{}"))
TENANT_ROUTER_MIDDLEWARE_SETTINGS |= json.loads(os.environ.get("TESTS_MIDDLEWARE", "{}"))
if "TESTS_MAX_OPEN" in os.environ:
    TENANT_ROUTER_ORM_SETTINGS["django_orm"]["OPTIONS"]["MAX_OPEN_CONNECTIONS"] = int(os.environ["TESTS_MAX_OPEN"])
DATABASES["default"]["CONN_MAX_AGE"] = (
    None if os.environ.get("TESTS_CONN_MAX_AGE") == "none" else int(os.environ.get("TESTS_CONN_MAX_AGE", "0"))
)
if "TESTS_POOL" in os.environ:
    DATABASES["default"]["OPTIONS"] = {"pool": {"min_size": 1, "max_size": int(os.environ["TESTS_POOL"])}}
if "sqlite3" in DATABASES["default"]["ENGINE"]:
    DATABASES["default"]["OPTIONS"] = {"timeout": 20, "transaction_mode": "IMMEDIATE"}
DATABASES["central"]["OPTIONS"] = {"timeout": 20, "transaction_mode": "IMMEDIATE"}  # several processes write to it

CELERY_IMPORTS = ["tests.app.worker_tasks"]
CELERY_TASK_DEFAULT_QUEUE = os.environ.get("TESTS_QUEUE", "celery")
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
LOGGING["loggers"]["tenant_router"]["propagate"] = False  # a worker logs what reaches the root once more
