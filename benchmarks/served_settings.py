"""Settings of the benchmarks that need real servers or fresh processes, taken from the environment.

``BENCH_SYSTEM`` plain or tenant_router; ``BENCH_DATABASES`` JSON, the databases of ``t0.test`` and so on;
``BENCH_REDIS`` the URL of the config store, which holds the tenants already; ``BENCH_SERVICE``.
"""

from __future__ import annotations

import json
import os
from typing import Any

PLAIN = os.environ["BENCH_SYSTEM"] == "plain"
FILES: list[dict[str, Any]] = json.loads(os.environ["BENCH_DATABASES"])

ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "served_urls"
SECRET_KEY = "bench"
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
BENCH_SYSTEM = "plain"  # which package's models the app defines
LOGGING_CONFIG = None
INSTALLED_APPS = [
    *([] if PLAIN else ["tenant_router"]),
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "peer_app",
]
MIDDLEWARE = [
    *([] if PLAIN else ["tenant_router.middleware.TenantContextMiddleware"]),
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
if PLAIN:
    DATABASES = {"default": FILES[0], **{f"t{number}": file for number, file in enumerate(FILES) if number}}
else:
    DATABASES = {"default": {**FILES[0], "NAME": "template"}}
    DATABASE_ROUTERS = ["tenant_router.orm_backends.django_orm.router.DjangoOrmRouter"]
    TENANT_ROUTER_SERVICE_NAME = os.environ["BENCH_SERVICE"]
    TENANT_ROUTER_CONFIG_STORE_SETTINGS = {
        "BACKEND": "tenant_router.config_store.backends.redis.RedisStore",
        "LOCATION": {"URL": os.environ["BENCH_REDIS"]},
    }
    TENANT_ROUTER_ORM_SETTINGS = {
        "django_orm": {"SETTINGS_KEY": "DATABASES", "OPTIONS": {"MAX_OPEN_CONNECTIONS": 1_000}}
    }
