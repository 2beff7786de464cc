"""A project that looks at its tenants while it starts."""

from django.conf import settings

names = {alias: settings.DATABASES[alias]["NAME"] for alias in settings.DATABASES}
held = None


def hold():
    """Keep the context of a real tenant."""
    from tenant_router.managers import tenant_context_manager

    global held
    held = tenant_context_manager.get_by_id("acme.test")
