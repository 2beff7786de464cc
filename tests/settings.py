"""Settings of a small conventional project, converted by the settings at the end."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent
SECRET_KEY = "tests-only"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the logins of a test shall cost nothing
DEBUG = False
ALLOWED_HOSTS = ["*"]
USE_TZ = True
ROOT_URLCONF = "tests.app.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"
SITE_ID = 1
INSTALLED_APPS = [
    "tenant_router",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.sites",
    "tests.app",
]
MIDDLEWARE = [
    "tenant_router.middleware.TenantContextMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {
    "default": {
        "ENGINE": os.environ.get("TESTS_ENGINE", "django.db.backends.sqlite3"),
        "NAME": os.environ.get("TESTS_NAME", "template-must-not-be-opened"),
        "HOST": os.environ.get("TESTS_PG_HOST", ""),
        "USER": os.environ.get("TESTS_PG_USER", ""),
        "ATOMIC_REQUESTS": os.environ.get("TESTS_ATOMIC_REQUESTS") == "1",
    },
    "central": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("TESTS_CENTRAL", ":memory:")},
}
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "tenants"},
    "central": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "central"},
}

TENANT_ROUTER_SERVICE_NAME = "tests"
TENANT_ROUTER_CONFIG_STORE_SETTINGS = {
    "BACKEND": os.environ.get("TESTS_STORE", "tenant_router.config_store.backends.memory.MemoryStore"),
    "LOCATION": {"URL": os.environ["TESTS_REDIS_URL"]} if "TESTS_REDIS_URL" in os.environ else {},
    "OPTIONS": {
        "SERIALIZER": {"CLASS": "tenant_router.config_store.serializers.json.JSONSerializer"},
        "BOOT_TIMEOUT": 2,
    },
}
TENANT_ROUTER_ORM_SETTINGS = {
    "django_orm": {"SETTINGS_KEY": "DATABASES", "OPTIONS": {"RESERVED_CONN_ALIASES": {"central"}}}
}
TENANT_ROUTER_CACHE_SETTINGS = {"RESERVED_ALIASES": {"central"}}
DATABASE_ROUTERS = ["tests.app.routers.CentralRouter", "tenant_router.orm_backends.django_orm.router.DjangoOrmRouter"]

CELERY_BROKER_URL = os.environ.get("TESTS_BROKER_URL", "memory://")
CELERY_RESULT_BACKEND = os.environ.get("TESTS_RESULT_URL", "cache+memory://")
CELERY_TASK_ALWAYS_EAGER = os.environ.get("TESTS_EAGER") == "1"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
TENANT_ROUTER_MIDDLEWARE_SETTINGS = {
    "WHITELIST_ROUTES": {"health", "space:named", "health/<int:number>/"},
}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"tenant": {"()": "tenant_router.log.TenantFilter"}},
    "formatters": {"plain": {"format": "%(levelname)s %(name)s [%(tenant_id)s] %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "filters": ["tenant"], "formatter": "plain"}},
    "loggers": {"tenant_router": {"handlers": ["stderr"], "level": "INFO", "propagate": True}},
}
