"""Django's test clients, for one tenant."""

from __future__ import annotations

from typing import Any

from django.test import AsyncClient, Client

from tenant_router.context_decorators import tenant_context_bind
from tenant_router.middleware import TEST_KEY


class _TenantClientMixin:
    """Mixed into a client: its requests are the tenant's, and so are the sessions that it opens itself."""

    defaults: Any

    def _bound(self) -> tenant_context_bind:
        return tenant_context_bind(self.defaults[TEST_KEY])

    @property
    def session(self) -> Any:
        """The client's session. Save what you change in it with the tenant bound."""
        with self._bound():
            session: Any = super().session  # type: ignore[misc]
            session.keys()  # it is read at its first use
            return session

    def login(self, **credentials: Any) -> Any:
        """Log in as a user of the tenant."""
        with self._bound():
            return super().login(**credentials)  # type: ignore[misc]

    def force_login(self, user: Any, backend: str | None = None) -> None:
        """Log in as a user of the tenant, without a password."""
        with self._bound():
            super().force_login(user, backend)  # type: ignore[misc]

    def logout(self) -> None:
        """Log out at the tenant."""
        with self._bound():
            super().logout()  # type: ignore[misc]

    async def asession(self) -> Any:
        """:attr:`session`, asynchronously."""
        async with self._bound():
            session: Any = await super().asession()  # type: ignore[misc]
            await session.akeys()
            return session

    async def alogin(self, **credentials: Any) -> Any:
        """:meth:`login`, asynchronously."""
        async with self._bound():
            return await super().alogin(**credentials)  # type: ignore[misc]

    async def aforce_login(self, user: Any, backend: str | None = None) -> None:
        """:meth:`force_login`, asynchronously."""
        async with self._bound():
            await super().aforce_login(user, backend)  # type: ignore[misc]

    async def alogout(self) -> None:
        """:meth:`logout`, asynchronously."""
        async with self._bound():
            await super().alogout()  # type: ignore[misc]


class TenantClient(_TenantClientMixin, Client):
    """``django.test.Client`` of one tenant."""


class TenantAsyncClient(_TenantClientMixin, AsyncClient):
    """``django.test.AsyncClient`` of one tenant."""


def tenant_client(tenant_id: str, **defaults: Any) -> TenantClient:
    """A test client whose requests are the tenant's, whatever the project resolves tenants by."""
    return TenantClient(**{TEST_KEY: tenant_id, **defaults})


def tenant_async_client(tenant_id: str, **defaults: Any) -> TenantAsyncClient:
    """:func:`tenant_client` for async tests."""
    return TenantAsyncClient(**{TEST_KEY: tenant_id, **defaults})
