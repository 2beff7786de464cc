"""Servers that are not in Python wheels: a test that lacks one says so, or fails where all of them must be there."""

import os

import pytest


def require(condition, reason):
    """Skip the test unless ``condition``; fail instead when ``TENANT_ROUTER_REQUIRE_SERVICES=1``."""
    if condition:
        return
    if os.environ.get("TENANT_ROUTER_REQUIRE_SERVICES") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
