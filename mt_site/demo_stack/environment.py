"""The environment of every process that the demo starts."""

import os
from pathlib import Path

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
)


def environment(sockets: Path) -> dict[str, str]:
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
    }
