import pytest

pytest.register_assert_rewrite("tenant_router.testing.store_contract")

pytest_plugins = ["tests.fixtures_servers"]
