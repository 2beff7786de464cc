"""Test databases of MongoDB: creating, emptying and removing them, and the gate before every other database."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure
from pymongo.monitoring import _EventListeners

from tenant_router.exceptions import RecordInvalid
from tenant_router.orm_backends.base import BaseTestDatabases, TestGate
from tenant_router.orm_backends.mongo import settings as mongo_settings
from tenant_router.orm_backends.mongo.address import from_url
from tenant_router.orm_backends.mongo.databases import CentralDatabase, TenantDatabase
from tenant_router.orm_backends.mongo.open_client import make_client

# Commands (in lower case) that change nothing; whatever is not among them counts as a write.
READS = """
aggregate buildinfo collstats count dbstats distinct explain find getlasterror getmore hello ismaster listcollections
listindexes ping
"""
# What clients ask of a server through "admin", which is a real database in every run.
OF_THE_SERVER = """
aborttransaction buildinfo committransaction connectionstatus endsessions getparameter hello hostinfo ismaster
killsessions listcommands listdatabases ping refreshsessions replsetgetstatus serverstatus startsession whatsmyuri
"""
_READS, _OF_THE_SERVER = frozenset(READS.split()), frozenset(OF_THE_SERVER.split())


class GatedEvents(_EventListeners):  # type: ignore[misc]
    """A client's event listeners: each command is asked about before it is sent."""

    # PyMongo 3 publishes every command but its handshakes right before it sends it, and outside of what catches
    # listeners' errors: network.py (command), server.py (run_operation_with_response), message.py (bulk writes),
    # collection.py and mongo_client.py (servers before 3.6). So what is raised here keeps it from being sent.
    tr_gate: TestGate

    @property
    def enabled_for_commands(self) -> bool:
        """Asked before each command: without it nothing would be published."""
        return True

    def publish_command_start(self, command: Mapping[str, Any], database_name: str, *args: Any, **kwargs: Any) -> None:
        """Ask the gate, then publish."""
        check_command(self.tr_gate, command, database_name)
        super().publish_command_start(command, database_name, *args, **kwargs)


def gated(gate: TestGate | None, client: MongoClient) -> Any:
    """``client``, which sends nothing any more to a database that ``gate`` does not admit."""
    events = client._event_listeners  # one object, shared by the client, its pools and their sockets
    events.__class__, events.tr_gate = GatedEvents, gate
    return client


def check_command(gate: TestGate, command: Mapping[str, Any], database: str) -> None:
    """Raise ``RealDatabase`` if ``command`` reads or writes what ``gate`` does not admit; tell it what is written."""
    verb = next(iter(command), "").lower()
    if (database == "admin" and verb in _OF_THE_SERVER) or verb == "killcursors":
        return
    written = [*_outputs(verb, command, database)]
    if not (database == "admin" and verb == "renamecollection"):
        gate.admit(database)
        written += [database] if verb not in _READS else []
    for name in written:
        gate.admit(name)
    for name in written:
        gate.wrote(name)


def _outputs(verb: str, command: Mapping[str, Any], database: str) -> Iterator[str]:
    """The databases that a command, sent to ``database``, names in its arguments as those that it writes to."""
    if verb == "renamecollection":
        for place in (command[next(iter(command))], command.get("to")):
            yield str(place).partition(".")[0]
    elif verb == "aggregate":
        for stage in command.get("pipeline", ()):
            yield from (_database_in(stage[key], database) for key in ("$out", "$merge") if key in stage)
    elif verb == "mapreduce":
        yield _database_in(command.get("out"), database)


def _database_in(place: Any, database: str) -> str:
    """The database in ``{"db": ..., "coll": ...}``, also within ``{"into": ...}``; text is a collection alone."""
    inner = place.get("into", place) if isinstance(place, Mapping) else place
    return str(inner.get("db", database)) if isinstance(inner, Mapping) else database


class _EveryAlias:
    def __contains__(self, alias: object) -> bool:
        return True


class MongoTestDatabases(BaseTestDatabases):
    """The test databases of PyModm or MongoEngine, on the servers that the aliases' settings name."""

    def __init__(self, manager: Any) -> None:
        super().__init__(manager)
        self._gate: TestGate | None = None
        self._real: list[MongoClient] = []  # of reserved aliases, from before the run
        # By what makes a cluster: the run's own, for which nobody need be bound.
        self._own: dict[Any, MongoClient] = {}
        self._pid = 0

    def real_name(self, alias: str) -> str:
        """The ``NAME`` in the settings of ``alias``, or the one in its ``CONN_URL``."""
        settings = self.manager.settings_of(alias)
        parsed = from_url(settings["CONN_URL"]) if settings.get("CONN_URL") else None
        return str(settings.get("NAME") or (parsed or {}).get("NAME") or "")

    def begin(self, gate: TestGate, reserved: Mapping[str, str]) -> None:
        """Give up all clients; new ones, and those that somebody kept, ask ``gate`` before each command."""
        if self._gate is None:
            self._real = [gated(gate, central.database.client) for central in self.manager.central.values()]
        self._gate = gate

        def make(arguments: Mapping[str, Any]) -> MongoClient:
            return gated(gate, make_client(arguments))

        self._installed_anew(make, _EveryAlias())
        self.manager.central = {
            alias: CentralDatabase(self._target(alias, name), make) for alias, name in reserved.items()
        }

    def end(self) -> None:
        """Undo :meth:`begin`."""
        for client in self._real:
            client._event_listeners.__class__ = _EventListeners
        self._real, self._gate = [], None
        self._installed_anew(make_client, self.manager.templates)

    def prepare(self, tenant_id: str, names: Mapping[str, str]) -> dict[str, TenantDatabase]:
        """The databases of a test tenant by alias."""
        targets, clients = {alias: self._target(alias, name) for alias, name in names.items()}, self.manager.clients
        return {
            alias: TenantDatabase(tenant_id, alias, target, clients.cluster(target), self.manager)
            for alias, target in targets.items()
        }

    def exists(self, alias: str, name: str) -> bool:
        """Whether the database has any collection."""
        return bool(self._database(alias, name).list_collection_names())

    def flush(self, alias: str, name: str) -> bool:
        """Delete all documents. Collections stay, because the libraries remember which indexes they have created."""
        database = self._database(alias, name)
        for collection in database.list_collections():
            if collection.get("type", "collection") == "collection" and not collection["name"].startswith("system."):
                _empty(database[collection["name"]])
        return True

    def remove(self, alias: str, name: str) -> None:
        """Drop the database."""
        self._database(alias, name).client.drop_database(name)

    def _database(self, alias: str, name: str) -> Database:
        target = self._target(alias, name)
        if target.cluster_key not in self._own:
            self._pid = os.getpid()
            self._own[target.cluster_key] = MongoClient(connect=False, **target.arguments)
        return gated(self._gate, self._own[target.cluster_key])[name]

    def _target(self, alias: str, name: str) -> mongo_settings.Target:
        # Credentials belong to the real database, unless they say otherwise: so all but the name is of that one.
        settings, real = self.manager.settings_of(alias), self.real_name(alias) or name
        if alias in self.manager.templates:
            try:
                return mongo_settings.build(settings, {"NAME": real})._replace(name=name)
            except RecordInvalid:  # it has a half of the credentials, and each record the other one
                settings = {key: value for key, value in settings.items() if key not in ("USER", "PASS")}
        return mongo_settings.central({**settings, "NAME": real})._replace(name=name)

    def _installed_anew(self, make: Any, replaced: Any) -> None:
        """Nothing that the libraries have kept from before leads anywhere else than what holds from now on."""
        if self._pid == os.getpid():  # in a forked process they are the parent's
            for client in self._own.values():
                client.close()
        self._own.clear()
        self.manager.uninstall()
        self.manager.clients.make, self.manager.replaced_aliases = make, replaced
        self.manager.install()


def _empty(collection: Any) -> None:
    try:
        collection.delete_many({})
    except OperationFailure:  # a capped collection
        collection.drop()
