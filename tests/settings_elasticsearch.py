"""The tests' project as separate processes run it, with documents in Elasticsearch."""

import os

from tests.settings_processes import *  # noqa: F403
from tests.settings_processes import TENANT_ROUTER_ORM_SETTINGS

ES_SETTINGS = {"default": {"HOSTS": [os.environ["ELASTICSEARCH_URL"]]}}
TENANT_ROUTER_ORM_SETTINGS["es_orm"] = {"SETTINGS_KEY": "ES_SETTINGS"}
CELERY_IMPORTS = ["tests.elasticsearch_tasks"]
