"""The client that PyMongo's objects of a tenant hold: each use of it is checked, and counted.

A :class:`BoundClient` shares the state of its cluster's ``MongoClient``, by having the same ``__dict__``, and knows
whose it is. Databases, collections, cursors, bulk operations, change streams, GridFS and sessions all reach the server
through ``database.client``; so whatever an application keeps of them, it is asked here who is bound.

Relied on, all of PyMongo 3.13; tests/integration/test_pymongo_facts.py fails when it changes:

- ``_select_server`` is where every operation chooses its server, before it takes a connection: commands, queries,
  ``getMore``, bulk writes, the commit of a transaction. What ends something (``killCursors``, the return of a session)
  does not pass there.
- ``_run_operation`` sends what reads by a cursor, and its ``operation.db`` is the database.
- ``_topology`` is needed for whatever talks to a server, and nothing else keeps it.
- ``ClientSession._client`` is what a commit or an abort goes through.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, NoReturn, Protocol

from pymongo import MongoClient
from pymongo.client_session import ClientSession, _TxnState

from tenant_router import context as _context
from tenant_router.exceptions import ConfigurationError, TenantMismatch
from tenant_router.orm_backends.mongo.settings import Target
from tenant_router.unit_of_work import Resource

_stack_get = _context.stack.get
_select_server, _run_operation = MongoClient._select_server, MongoClient._run_operation


class SharedClient(Protocol):
    """A cluster, with the client that its tenants share."""

    several: bool

    def held(self) -> AbstractContextManager[MongoClient | None]:
        """The client itself, which stays open meanwhile; ``None`` if there is none."""


class Home(Resource, Protocol):
    """The tenant's database that a handle is for."""

    alias: str
    orm_id: str
    target: Target
    client: BoundClient
    retired: bool

    @property
    def cluster(self) -> SharedClient:
        """Where it is."""

    def use(self) -> None:
        """The unit of work here uses it from now on. Raises unless its tenant is bound."""

    def has_started(self, session: Any) -> None:
        """The application has started a session."""

    def refuse(self, what: str) -> TenantMismatch:
        """The error for reaching ``what`` through the handle."""


class _Topology:
    """Of a handle that rests: whoever needs the topology makes it lead to an open client first.

    No ``__set__``: the state of a client has its own ``_topology``, which is found before this.
    """

    def __get__(self, client: Any, owner: type) -> Any:
        if client is None:
            return self
        client._tr_home.use()
        return client.__dict__["_topology"]


# Names with an underscore in front: others are databases (pymongo/mongo_client.py: __getattr__).
class BoundClient(MongoClient):  # type: ignore[misc]
    """A tenant's handle of its cluster's client."""

    __slots__ = ("_tr_home",)
    _topology = _Topology()

    @classmethod
    def _tr_of(cls, home: Home) -> BoundClient:
        """The handle of one database. It leads nowhere yet."""
        handle: BoundClient = object.__new__(cls)
        handle._tr_home = home
        return handle

    def _tr_lead_to(self, client: MongoClient) -> None:
        """Be ``client`` from now on."""
        self.__dict__ = client.__dict__  # type: ignore[misc]

    def _tr_rest(self, state: dict[str, Any]) -> None:
        """Lead nowhere, with the :func:`resting_state` of what it has led to."""
        self.__dict__ = state  # type: ignore[misc]

    # --- the doors: on the way of each operation, so without super() and with few calls ---

    def _select_server(self, server_selector: Any, session: Any, address: Any = None) -> Any:
        self._tr_check()
        if type(session) is BoundSession and session._client is not self:
            session._client._tr_check()  # PyMongo refuses it too, and does not say why
        return _select_server(self, server_selector, session, address)

    def _run_operation(self, operation: Any, unpack_res: Any, address: Any = None) -> Any:
        if operation.db != self._tr_home.target.name:
            raise self._tr_home.refuse(f"database {operation.db!r}")
        return _run_operation(self, operation, unpack_res, address)

    def start_session(self, *args: Any, **kwargs: Any) -> Any:
        """A session of the tenant: its transactions are the tenant's."""
        self._tr_check()
        session = super().start_session(*args, **kwargs)
        session.__class__ = BoundSession
        self._tr_home.has_started(session)
        return session

    def _tr_check(self) -> None:
        """Raise unless the tenant is bound here; from now on its unit of work uses the client."""
        home, bound = self._tr_home, _stack_get()
        if bound:
            unit = bound[0]
            if home in unit.uses and not unit.over and bound[-1].parts[home.orm_id][home.alias] is home:
                return
        home.use()

    # --- what would change the client for all tenants ---

    def close(self) -> None:
        """Do nothing: other tenants use it."""

    def set_cursor_manager(self, manager_class: Any) -> NoReturn:
        """Refused."""
        raise self._shared("a cursor manager")

    def _cache_credentials(self, source: Any, credentials: Any, connect: bool = False) -> NoReturn:
        raise self._shared("Database.authenticate()")

    def _purge_credentials(self, source: Any) -> NoReturn:
        raise self._shared("Database.logout()")

    def _shared(self, what: str) -> ConfigurationError:
        return ConfigurationError(
            f"{what} would change the client of all tenants of a cluster: a tenant's credentials and options are in "
            "its record"
        )

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def __hash__(self) -> int:
        return id(self)


class BoundSession(ClientSession):  # type: ignore[misc]
    """A session that an application has started as a tenant. Its end is always allowed, and aborts."""

    _client: Any

    def abort_transaction(self) -> None:
        """As in PyMongo, whoever is bound here."""
        handle = self._client
        with handle._tr_home.cluster.held() as client:
            if client is None:  # it was closed meanwhile, and the server aborts by its own time limit
                self._transaction.state = _TxnState.ABORTED
                self._unpin()
                return
            self._client = client
            try:
                super().abort_transaction()
            finally:
                self._client = handle


def resting_state(client: MongoClient) -> dict[str, Any]:
    """The state of handles whose client is to be closed, or is a parent process's: its options are known still."""
    gone = {"_topology", "_kill_cursors_executor"}
    state = {name: value for name, value in client.__dict__.items() if name not in gone}
    return {**state, "_return_server_session": _nothing, "_close_cursor_now": _nothing}


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Instead of what would talk to a server."""
