import os

import pytest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
# Else the client of Elasticsearch looks at all frames for each warning, and below pytest there are many: 0.1 s.
os.environ.setdefault("DISABLE_WARN_STACKLEVEL", "1")

import django
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

django.setup()

# How long an example takes says something about the machine and nothing about the code.
hypothesis_settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("tests")

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


def pytest_sessionstart(session):
    """Name the seed of this run's order at its start: ``-q`` leaves out pytest's header, which has it."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")  # a worker of pytest-xdist has none
    seed = session.config.getoption("randomly_seed", None)  # none with -p no:randomly
    if terminal and terminal.verbosity < 0 and seed is not None:
        terminal.write_line(f"random order: --randomly-seed={seed} repeats it")
