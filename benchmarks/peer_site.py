"""The site that ``peers.py`` measures: ``python peer_site.py SYSTEM REGISTERED VISITED HOST REDIS``.

The same request for each system, over the same PostgreSQL: one indexed query, eight tenants in
turn. Systems with a database per tenant use ``bench_0`` to ``bench_7``, which the harness has made;
the others get a database of their own with eight schemas, or with one shared table.
"""

from __future__ import annotations

import sys
from typing import Any

import django
import psycopg
from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.urls import path
from one_request import MIDDLEWARE, ask

SYSTEM, REGISTERED, VISITED, HOST, REDIS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
OWN = f"bench_{SYSTEM.replace('-', '_')}_{REGISTERED}_{VISITED}"  # the database of those that share one
KEY = "MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA="  # of nothing secret: one package insists on having one


def database(name: str, engine: str = "django.db.backends.postgresql") -> dict[str, Any]:
    return {"ENGINE": engine, "NAME": name, "HOST": HOST, "USER": "postgres", "CONN_MAX_AGE": None}


def own_database() -> psycopg.Connection[Any]:
    """A new database for this system alone."""
    with psycopg.connect(host=HOST, user="postgres", dbname="postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {OWN}")
        connection.execute(f"CREATE DATABASE {OWN}")
    return psycopg.connect(host=HOST, user="postgres", dbname=OWN, autocommit=True)


def _plain() -> dict[str, Any]:
    """Plain Django, with as many databases as are used; the view names the alias, where there are several."""
    return {"DATABASES": _aliases(VISITED)}


def _many_aliases() -> dict[str, Any]:
    """Plain Django with all tenants' databases in its settings."""
    return {"DATABASES": _aliases(REGISTERED)}


def _aliases(count: int) -> dict[str, Any]:
    others = {f"t{number}": database(f"bench_{number}") for number in range(1, count)}
    return {"default": database("bench_0"), **others}


def _tenant_router() -> dict[str, Any]:
    return {
        "APPS": ["tenant_router"],
        "MIDDLEWARE": ["tenant_router.middleware.TenantContextMiddleware"],
        "DATABASES": {"default": database("template")},
        "DATABASE_ROUTERS": ["tenant_router.orm_backends.django_orm.router.DjangoOrmRouter"],
        "TENANT_ROUTER_SERVICE_NAME": OWN,
        "TENANT_ROUTER_CONFIG_STORE_SETTINGS": {
            "BACKEND": "tenant_router.config_store.backends.redis.RedisStore",
            "LOCATION": {"URL": REDIS},
            "OPTIONS": {"IDLE": 3_600, "STATUS_TTL": 36_000},  # so that each command that is seen is a request's
        },
        "TENANT_ROUTER_ORM_SETTINGS": {"django_orm": {"SETTINGS_KEY": "DATABASES"}},
    }


def _register_tenant_router() -> None:
    from tenants import on_databases, register_here

    register_here(on_databases([f"bench_{number}" for number in range(REGISTERED)]))


def _django_tenants() -> dict[str, Any]:
    return {
        "APPS": ["django_tenants"],
        "MIDDLEWARE": ["django_tenants.middleware.main.TenantMainMiddleware"],
        "DATABASES": {"default": database(OWN, "django_tenants.postgresql_backend")},
        "DATABASE_ROUTERS": ["django_tenants.routers.TenantSyncRouter"],
        "SHARED_APPS": ["django_tenants", "peer_app"],
        "TENANT_APPS": ["peer_app"],
        "TENANT_MODEL": "peer_app.Client",
        "TENANT_DOMAIN_MODEL": "peer_app.Domain",
    }


def _django_pgschemas() -> dict[str, Any]:
    shared = {"APPS": ["django_pgschemas", "peer_app", "django.contrib.contenttypes"]}
    tenants = {"TENANT_MODEL": "peer_app.Client", "DOMAIN_MODEL": "peer_app.Domain", "URLCONF": __name__}
    return {
        "APPS": ["django_pgschemas"],
        "MIDDLEWARE": ["django_pgschemas.routing.middleware.DomainRoutingMiddleware"],
        "DATABASES": {"default": database(OWN, "django_pgschemas.postgresql")},
        "DATABASE_ROUTERS": ["django_pgschemas.routers.TenantAppsRouter"],
        "TENANTS": {"public": shared, "default": {"APPS": ["peer_app"], **tenants}},
    }


def _register_schemas() -> None:
    """Rows for all tenants, schemas for those that are visited."""
    from django.db import connection
    from peer_app.models import Client, Domain, Note

    own_database().close()
    with connection.schema_editor() as editor:
        editor.create_model(Client)
        editor.create_model(Domain)
    clients = [Client(schema_name=f"t{number}") for number in range(REGISTERED)]
    made = Client.objects.bulk_create(clients)
    Domain.objects.bulk_create(
        Domain(domain=f"t{number}.test", tenant=client, is_primary=True) for number, client in enumerate(made)
    )
    with connection.cursor() as cursor:
        for number in range(VISITED):
            table = f"t{number}.{Note._meta.db_table}"
            cursor.execute(f"CREATE SCHEMA t{number}")
            cursor.execute(f"CREATE TABLE {table} (id serial PRIMARY KEY, text text)")
            cursor.execute(f"INSERT INTO {table} (text) VALUES (%s)", [f"of {number}"])
        cursor.execute("ANALYZE")


def _django_tenants_router() -> dict[str, Any]:
    return {
        "APPS": ["django_tenants_router"],
        "MIDDLEWARE": ["django_tenants_router.middleware.TenantMiddleware"],
        "DATABASES": {"default": database(OWN)},
        "DATABASE_ROUTERS": ["django_tenants_router.router.TenantDatabaseRouter"],
        "TENANT_ROUTER_CONFIG": {"ENCRYPTION_DECYPTION_KEY": KEY, "ROOT_DB": "default"},
    }


def _register_tenants_router() -> None:
    from django.db import connection
    from django_tenants_router.models import Tenant, TenantDatabaseConfig
    from django_tenants_router.registry import TenantRegistry

    connection.close()
    own_database().close()
    with connection.schema_editor() as editor:
        editor.create_model(Tenant)
        editor.create_model(TenantDatabaseConfig)
    names = [f"t{number}" for number in range(REGISTERED)]
    tenants = Tenant.objects.bulk_create(
        Tenant(id=_tenant_uuid(number), name=name, slug=name, schema_name=name, is_active=True)
        for number, name in enumerate(names)
    )
    TenantDatabaseConfig.objects.bulk_create(
        TenantDatabaseConfig(
            tenant=tenant, host=HOST, db_name=f"bench_{number}", db_user="postgres", db_password="", conn_max_age=3600
        )
        for number, tenant in enumerate(tenants)
    )
    TenantRegistry.load_from_db(force=True)


def _tenant_uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


def _django_multitenant() -> dict[str, Any]:
    return {
        "MIDDLEWARE": [f"{__name__}.multitenant_by_host"],
        "DATABASES": {"default": database(OWN, "django_multitenant.backends.postgresql")},
    }


def multitenant_by_host(get_response: Any) -> Any:
    """The package leaves it to its user who the tenant is; its documentation looks it up by a query, as here."""
    from django_multitenant.utils import set_current_tenant, unset_current_tenant
    from peer_app.models import Client

    def middleware(request: HttpRequest) -> Any:
        set_current_tenant(Client.objects.get(domain=request.get_host()))
        try:
            return get_response(request)
        finally:
            unset_current_tenant()

    return middleware


def _register_multitenant() -> None:
    from django.db import connection
    from peer_app.models import Client, Note

    with own_database() as shared:  # its schema editor wants Citus
        shared.execute("CREATE TABLE peer_app_client (id serial PRIMARY KEY, domain text UNIQUE)")
        shared.execute("CREATE TABLE peer_app_note (id serial PRIMARY KEY, client_id integer NOT NULL, text text)")
        shared.execute("CREATE INDEX ON peer_app_note (client_id)")
    clients = Client.objects.bulk_create(Client(domain=f"t{number}.test") for number in range(REGISTERED))
    Note.objects.bulk_create(Note(client=client, text=f"of {number}") for number, client in enumerate(clients))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


SYSTEMS: dict[str, tuple[Any, Any]] = {  # what it adds to the settings, and what makes its tenants
    "plain": (_plain, None),
    "aliases": (_many_aliases, None),
    "tenant_router": (_tenant_router, _register_tenant_router),
    "django-tenants": (_django_tenants, _register_schemas),
    "django-pgschemas": (_django_pgschemas, _register_schemas),
    "django-tenants-router": (_django_tenants_router, _register_tenants_router),
    "django-multitenant": (_django_multitenant, _register_multitenant),
}
configure, register = SYSTEMS[SYSTEM]
added = configure()
settings.configure(
    BENCH_SYSTEM=SYSTEM,
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[
        *added.pop("APPS", []),
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "peer_app",
    ],
    MIDDLEWARE=[
        *added.pop("MIDDLEWARE", []),
        *MIDDLEWARE,
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    SECRET_KEY="bench",
    **added,
)
if SYSTEM == "django-tenants-router":
    own_database().close()  # it reads its tenants while it is set up
django.setup()

from django.core.wsgi import get_wsgi_application  # noqa: E402 - settings come first
from peer_app.models import Note  # noqa: E402
from variants import answer  # noqa: E402


def note(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"text": _notes(request).get(pk=_key(request)).text})


def _key(request: HttpRequest) -> int:
    """In a table that all tenants share, rows have other keys."""
    return int(request.get_host()[1:].partition(".")[0]) + 1 if SYSTEM == "django-multitenant" else 1


def _notes(request: HttpRequest) -> Any:
    if SYSTEM not in ("plain", "aliases") or VISITED == 1:
        return Note.objects
    alias = request.get_host().partition(".")[0]
    return Note.objects.using("default" if alias == "t0" else alias)


urlpatterns = [path("", note)]


def main() -> None:
    if register is not None:
        register()
    application, executed = get_wsgi_application(), [0]
    inner = psycopg.Cursor.execute

    def execute(self: Any, *args: Any, **kwargs: Any) -> Any:
        executed[0] += 1
        return inner(self, *args, **kwargs)

    def request(number: int) -> None:
        tenant = number % VISITED
        ask(application, tenant, HTTP_X_TENANT_ID=_tenant_uuid(tenant))

    def counted() -> int:
        """Statements that the driver was given, whoever sent them; counted from the first call on."""
        psycopg.Cursor.execute = execute  # type: ignore[method-assign]
        return executed[0]

    def timed() -> None:
        psycopg.Cursor.execute = inner  # type: ignore[method-assign]

    answer(request, counted, timed)


if __name__ == "__main__":
    sys.modules[__name__.replace("__main__", "peer_site")] = sys.modules["__main__"]
    main()
