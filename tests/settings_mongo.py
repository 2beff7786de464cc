"""The tests' project as separate processes run it, with documents in MongoDB by one of the two libraries."""

import os
from urllib.parse import urlsplit

from tests.settings_processes import *  # noqa: F403
from tests.settings_processes import TENANT_ROUTER_ORM_SETTINGS

_mongo = urlsplit(os.environ["MONGO_URL"])
MONGO_DB_SETTINGS = {
    "default": {"NAME": "template_must_not_be_opened", "HOST": _mongo.hostname, "PORT": _mongo.port or 27017}
}
TENANT_ROUTER_ORM_SETTINGS[os.environ["TESTS_MONGO_ORM"]] = {"SETTINGS_KEY": "MONGO_DB_SETTINGS"}
CELERY_IMPORTS = ["tests.mongo_tasks"]
