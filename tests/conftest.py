import os

import pytest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

import django

django.setup()

pytest.register_assert_rewrite("tenant_router.testing.store_contract", "tests.tenants")

pytest_plugins = [
    "tests.fixtures_processes",
    "tests.fixtures_servers",
    "tests.fixtures_tenants",
    "tests.fixtures_orm",
    "tests.fixtures_isolation",
    "tests.fixtures_mongo",
    "tests.fixtures_elasticsearch",
]
