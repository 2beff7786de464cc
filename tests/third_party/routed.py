"""What turns a package's test settings into a multi-tenant project's: settings alone."""

import os

MODE = os.environ["THIRD_PARTY_MODE"]  # "plain", "template" or "tenant"


def settings_of(base):
    """The changed settings, given those of the package as a dictionary."""
    if MODE == "plain":
        return {}
    return {
        "INSTALLED_APPS": ["tenant_router", *base["INSTALLED_APPS"]],
        "MIDDLEWARE": ["tenant_router.middleware.TenantContextMiddleware", *base.get("MIDDLEWARE", ())],
        "DATABASE_ROUTERS": ["tenant_router.orm_backends.django_orm.router.DjangoOrmRouter"],
        "TENANT_ROUTER_SERVICE_NAME": "third_party",
        "TENANT_ROUTER_CONFIG_STORE_SETTINGS": {
            "BACKEND": "tenant_router.config_store.backends.memory.MemoryStore",
            "OPTIONS": {"SERIALIZER": {"CLASS": "tenant_router.config_store.serializers.json.JSONSerializer"}},
        },
        "TENANT_ROUTER_ORM_SETTINGS": {"django_orm": {"SETTINGS_KEY": "DATABASES"}},
        "TENANT_ROUTER_TEST_SETTINGS": {"ALIASES": MODE},
    }
