"""A project that keeps documents by PyModm, MongoEngine and in Elasticsearch, each with a central alias, too.

``STORES_TAG``: what its real databases' and indices' names begin with.
"""

import os

TAG = os.environ["STORES_TAG"]
SECRET_KEY = "stores-only"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["tenant_router", "django.contrib.auth", "django.contrib.contenttypes"]
MIDDLEWARE = ["tenant_router.middleware.TenantContextMiddleware"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "real.sqlite3"}}
DATABASE_ROUTERS = ["tenant_router.orm_backends.django_orm.router.DjangoOrmRouter"]

MONGO_URL, ELASTICSEARCH_URL = os.environ["MONGO_URL"], os.environ["ELASTICSEARCH_URL"]
PYMODM = {
    "default": {"CONN_URL": f"{MONGO_URL}/{TAG}_real"},
    "central": {"CONN_URL": f"{MONGO_URL}/{TAG}_central"},
}
_host, _, _port = MONGO_URL.partition("://")[2].partition(":")
MONGOENGINE = {  # the template without a name: each tenant's record has one
    "default": {"HOST": _host, "PORT": _port},
    "central": {"HOST": _host, "PORT": _port, "NAME": f"{TAG}_central"},
}
ES_SETTINGS = {
    "default": {"HOSTS": [ELASTICSEARCH_URL], "INDEX_PREFIX": "", "OPTIONS": {"request_timeout": 60}},
    "central": {"HOSTS": [ELASTICSEARCH_URL], "OPTIONS": {"request_timeout": 60}},
}

TENANT_ROUTER_SERVICE_NAME = TAG
TENANT_ROUTER_CONFIG_STORE_SETTINGS = {"BACKEND": "tenant_router.config_store.backends.memory.MemoryStore"}
_options = {"RESERVED_CONN_ALIASES": ["central"]}
TENANT_ROUTER_ORM_SETTINGS = {
    "django_orm": {"SETTINGS_KEY": "DATABASES"},
    "pymodm_orm": {"SETTINGS_KEY": "PYMODM", "OPTIONS": _options},
    "mongoengine_orm": {"SETTINGS_KEY": "MONGOENGINE", "OPTIONS": _options},
    "es_orm": {
        "SETTINGS_KEY": "ES_SETTINGS",
        "OPTIONS": {**_options, "SCHEMA": "tests.stores_project.documents.SCHEMA"},
    },
}
TENANT_ROUTER_BOOTSTRAP_SETTINGS = ["tests.stores_project.documents.hold"]
TENANT_ROUTER_TEST_SETTINGS = {"OTHER_TENANT_IDS": ["b"], "ALIASES": os.environ.get("STORES_ALIASES", "template")}
TEST_RUNNER = "tenant_router.testing.TenantTestRunner"
