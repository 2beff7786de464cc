"""A conventional project: a shop with a replica, a database for documents and a central one for its audit log.

``SUITE_MODE`` is "plain" (tenant_router is not installed), "template", "tenant" or "strict".
"""

import os
from pathlib import Path

MODE = os.environ.get("SUITE_MODE", "plain")
DATABASE = os.environ.get("SUITE_DATABASE", "memory")  # or "file", or the socket folder of a PostgreSQL
SCRATCH = Path(os.environ.get("SUITE_SCRATCH", "."))

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "suite-only"
USE_TZ = True
ROOT_URLCONF = "suite.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"
MEDIA_ROOT = SCRATCH / "media"
SITE_ID = 1
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.sites",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "shop",
    "audit",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
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


def _database(name, **test):
    if DATABASE == "memory":
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": SCRATCH / f"{name}.sqlite3", "TEST": test}
    if DATABASE == "file":
        test = {"NAME": SCRATCH / f"test_{name}.sqlite3", **test}
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": SCRATCH / f"{name}.sqlite3", "TEST": test}
    postgres = {"ENGINE": "django.db.backends.postgresql", "HOST": DATABASE, "USER": "postgres"}
    return {**postgres, "NAME": f"shop_{name}", "TEST": test}


DATABASES = {
    "default": _database("default"),
    "documents": _database("documents"),
    "replica": _database("default", MIRROR="default"),
    "central": _database("central"),
}
if DATABASE == "memory" and os.environ.get("SUITE_START_METHOD") == "spawn":
    del DATABASES["replica"]  # Django cannot hand a mirror in memory to a spawned process
DATABASE_ROUTERS = ["audit.routers.AuditRouter", "shop.routers.DocumentRouter"]
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "table": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cache_table"},
    "files": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": SCRATCH / "cache"},
}
TEST_RUNNER = {
    "plain": "django.test.runner.DiscoverRunner",
    "own-plain": "suite.runner.ShopRunner",
    "own": "suite.routed_runner.RoutedShopRunner",
}.get(os.environ.get("SUITE_RUNNER", MODE), "tenant_router.testing.TenantTestRunner")

if MODE != "plain":
    INSTALLED_APPS = ["tenant_router", *INSTALLED_APPS]
    MIDDLEWARE = ["tenant_router.middleware.TenantContextMiddleware", *MIDDLEWARE]
    DATABASE_ROUTERS = [*DATABASE_ROUTERS, "tenant_router.orm_backends.django_orm.router.DjangoOrmRouter"]
    TENANT_ROUTER_SERVICE_NAME = "suite"
    TENANT_ROUTER_CONFIG_STORE_SETTINGS = {
        "BACKEND": os.environ.get("SUITE_STORE", "tenant_router.config_store.backends.memory.MemoryStore"),
        "LOCATION": {"URL": os.environ["SUITE_REDIS"]} if "SUITE_REDIS" in os.environ else {},
        "OPTIONS": {"SERIALIZER": {"CLASS": "tenant_router.config_store.serializers.json.JSONSerializer"}},
    }
    TENANT_ROUTER_ORM_SETTINGS = {
        "django_orm": {"SETTINGS_KEY": "DATABASES", "OPTIONS": {"RESERVED_CONN_ALIASES": {"central"}}}
    }
    TENANT_ROUTER_TEST_SETTINGS = {
        "ALIASES": "tenant" if MODE == "tenant" else "template",
        "STRICT": MODE == "strict",
        "OTHER_TENANT_IDS": os.environ.get("SUITE_OTHERS", "").split(),
    }
    if os.environ.get("SUITE_HOLD"):
        TENANT_ROUTER_BOOTSTRAP_SETTINGS = ["audit.bootstrap.hold"]
