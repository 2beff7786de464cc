"""The tests' project with commands that workers run."""

import os

from tests.settings_processes import *  # noqa: F403

TENANT_ROUTER_FLEET_SETTINGS = {"CELERY_COMMANDS": os.environ.get("TESTS_COMMANDS", "shell count_notes").split()}
