"""The environment of every process that the demo starts."""

import os
from pathlib import Path

from demo_stack.errors import DemoError

SERVICES = ("MONGO_URL", "ELASTICSEARCH_URL")

# What a shell may have set for other projects and would be read by ours.
FOREIGN = (
    "TENANT_ID",
    "GUNICORN_CMD_ARGS",
    "PORT",
    "DJANGO_DEBUG",
    "PGSERVICE",
    "PGOPTIONS",
    "PGSSLMODE",
    "PGHOSTADDR",
    *SERVICES,
)


def chosen_services(name: str) -> dict[str, str]:
    """Where the services of ``make demo SERVICES=all`` are; none for the demo that needs Python alone."""
    if name != "all":
        return {}
    missing = [variable for variable in SERVICES if not os.environ.get(variable)]
    if missing:
        raise DemoError(
            f"SERVICES=all needs {' and '.join(missing)} in the environment; "
            "`docker compose up mongo elasticsearch` starts both, see docs/docker.md"
        )
    return {variable: os.environ[variable] for variable in SERVICES}


def environment(sockets: Path, services: dict[str, str] | None = None) -> dict[str, str]:
    redis = sockets / "redis.sock"
    own = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    return own | {
        "DJANGO_SETTINGS_MODULE": "mt_site.settings",
        "PG_HOST": str(sockets),
        "PG_PORT": "5432",
        "PG_USER": "postgres",
        "PG_PASSWORD": "",
        "PG_DATABASE": "mt_site",
        "REDIS_URL": f"unix://{redis}?db=0",
        "CACHE_URL": f"unix://{redis}?db=1",
        "CELERY_BROKER_URL": f"redis+socket://{redis}?virtual_host=2",
        "CELERY_RESULT_BACKEND": f"redis+socket://{redis}?virtual_host=3",
        "PYTHONUNBUFFERED": "1",
        **(services or {}),
    }
