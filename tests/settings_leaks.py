"""The tests' project with the corpus of leaky code behind a URL and a task."""

from tests.settings_processes import *  # noqa: F403
from tests.settings_processes import TENANT_ROUTER_MIDDLEWARE_SETTINGS

ROOT_URLCONF = "tests.leaky_served"
CELERY_IMPORTS = ["tests.leaky_served"]
TENANT_ROUTER_MIDDLEWARE_SETTINGS["WHITELIST_ROUTES"] |= {"leak/<str:name>/"}
