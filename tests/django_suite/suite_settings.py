"""Settings for Django's own suite; the environment says which database and which mode."""

import os

MODE = os.environ["DJANGO_SUITE_MODE"]

if os.environ.get("DJANGO_SUITE_DATABASE") == "postgres":
    _postgres = {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ["DJANGO_SUITE_PG_HOST"],
        "USER": os.environ["DJANGO_SUITE_PG_USER"],
    }
    DATABASES = {
        "default": {**_postgres, "NAME": "suite_default"},
        "other": {**_postgres, "NAME": "suite_other"},
    }
else:
    DATABASES = {
        "default": {"ENGINE": "django.db.backends.sqlite3"},
        "other": {"ENGINE": "django.db.backends.sqlite3"},
    }

SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False

if MODE != "plain":
    DATABASE_ROUTERS = ["tenant_router.orm_backends.django_orm.router.DjangoOrmRouter"]
    TENANT_ROUTER_SERVICE_NAME = "suite"
    TENANT_ROUTER_CONFIG_STORE_SETTINGS = {
        "BACKEND": "tenant_router.config_store.backends.memory.MemoryStore",
    }
    TENANT_ROUTER_ORM_SETTINGS = {"django_orm": {"SETTINGS_KEY": "DATABASES"}}
    TENANT_ROUTER_TEST_SETTINGS = {"ALIASES": MODE}
