"""Settings of the demo site.

A conventional single-tenant project. What makes it a multi-tenant one stands in the last
block, plus one line each in INSTALLED_APPS, MIDDLEWARE and DATABASE_ROUTERS.
"""

import os
from pathlib import Path

env = os.environ.get

# The repository's root: tenant_config.json lies here.
BASE_DIR = Path(__file__).resolve().parents[2]

SECRET_KEY = env("DJANGO_SECRET_KEY", "demo-placeholder-set-DJANGO_SECRET_KEY-for-anything-else")
DEBUG = env("DJANGO_DEBUG", "") == "1"

# Hosts are not listed here on purpose: the tenant registry is the allow-list. A host that
# stands for no tenant is answered 404 by the first middleware, before any view runs.
ALLOWED_HOSTS = ["*"]

INSTALLED_APPS = [
    "tenant_router",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "hospitals",
    "patients",
]

MIDDLEWARE = [
    "tenant_router.middleware.TenantContextMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "mt_site.urls"
WSGI_APPLICATION = "mt_site.wsgi.application"
ASGI_APPLICATION = "mt_site.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "mt_site" / "mt_site" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": env("PG_DATABASE", "mt_site"),
        "USER": env("PG_USER", "postgres"),
        "PASSWORD": env("PG_PASSWORD", ""),
        "HOST": env("PG_HOST", "localhost"),
        "PORT": env("PG_PORT", "5432"),
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
    },
}
DATABASE_ROUTERS = ["tenant_router.orm_backends.django_orm.router.DjangoOrmRouter"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": env("CACHE_URL", "redis://localhost:6379/1"),
    },
}

SESSION_ENGINE = "django.contrib.sessions.backends.db"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "mt_site" / "mt_site" / "static"]

CELERY_BROKER_URL = env("CELERY_BROKER_URL", "redis://localhost:6379/2")
CELERY_RESULT_BACKEND = env("CELERY_RESULT_BACKEND", "redis://localhost:6379/3")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BEAT_SCHEDULER = "tenant_router.celery.beat:TenantScheduler"
CELERY_BEAT_SCHEDULE = {
    "census": {
        "task": "patients.tasks.count_patients",
        "schedule": 3600.0,
        "options": {"headers": {"tenant_scope": "all"}},
    },
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {process} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "line"}},
    "root": {"handlers": ["stdout"], "level": "WARNING"},
    "loggers": {
        name: {"handlers": ["stdout"], "level": "INFO", "propagate": False}
        for name in ("tenant_router", "hospitals", "patients")
    },
}

# With a MongoDB the site has reports, with an Elasticsearch its patients can be searched.
MONGO_URL, ELASTICSEARCH_URL = env("MONGO_URL", ""), env("ELASTICSEARCH_URL", "")
if MONGO_URL:
    INSTALLED_APPS += ["reports"]
    MONGO_DB_SETTINGS = {"default": {"CONN_URL": f"{MONGO_URL.rstrip('/')}/mt_site"}}
if ELASTICSEARCH_URL:
    ES_SETTINGS = {"default": {"HOSTS": [ELASTICSEARCH_URL], "OPTIONS": {"request_timeout": 5}}}

# The sites that the page's header links to.
DEMO_SITES = ["tenant-1", "tenant-2"]

# --- what makes the site a multi-tenant one -------------------------------------------

TENANT_ROUTER_SERVICE_NAME = "mt_site"

TENANT_ROUTER_CONFIG_STORE_SETTINGS = {
    "BACKEND": "tenant_router.config_store.backends.redis.RedisStore",
    "LOCATION": {"URL": env("REDIS_URL", "redis://localhost:6379/0")},
    "OPTIONS": {
        "SERIALIZER": {"CLASS": "tenant_router.config_store.serializers.json.JSONSerializer"},
    },
}

TENANT_ROUTER_ORM_SETTINGS = {"django_orm": {"SETTINGS_KEY": "DATABASES"}}
if MONGO_URL:
    TENANT_ROUTER_ORM_SETTINGS["pymodm_orm"] = {"SETTINGS_KEY": "MONGO_DB_SETTINGS"}
if ELASTICSEARCH_URL:
    TENANT_ROUTER_ORM_SETTINGS["es_orm"] = {
        "SETTINGS_KEY": "ES_SETTINGS",
        "OPTIONS": {"SCHEMA": "patients.search.schema"},
    }

TENANT_ROUTER_MIDDLEWARE_SETTINGS = {
    "TENANT_ID_RESOLVER": "mt_site.hosts.tenant_id",
    "WHITELIST_ROUTES": {"healthz", "favicon"},
}
