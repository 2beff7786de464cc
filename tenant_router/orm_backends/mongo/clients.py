"""MongoDB clients: one for each cluster with its credentials and options, shared by all tenants on it.

A client is a resource of units of work: nobody closes one that a living unit uses. When the last of them ends it
rests: it may make room for another, and it is closed at once if no tenant needs it any more. It is made and closed
outside of every lock; who comes meanwhile for the same cluster waits for it, and nobody else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, WeakValueDictionary

from pymongo import MongoClient

from tenant_router import unit_of_work as units
from tenant_router.janitor import SWEEP_GAP, Janitor
from tenant_router.orm_backends.budget import Budget
from tenant_router.orm_backends.mongo.bound_client import Home, resting_state
from tenant_router.orm_backends.mongo.open_client import OpenClient, make_client
from tenant_router.orm_backends.mongo.opening import Opening
from tenant_router.orm_backends.mongo.settings import Target

if TYPE_CHECKING:
    from tenant_router.unit_of_work import Unit


class Cluster:
    """A MongoDB cluster with one set of credentials and options, and its client while there is one."""

    def __init__(self, arguments: Mapping[str, Any], clients: Clients) -> None:
        self._arguments, self._clients = arguments, clients
        self.several = False  # whether more than one tenant uses it: then connections are shared out
        self._handed_out: WeakSet[Home] = WeakSet()  # whose handles have led to the client
        self._wanted: WeakSet[Home] = WeakSet()  # those of them that were not replaced
        self.opened: OpenClient | None = None
        self._opening: Opening | None = None

    def reset_after_fork(self) -> None:
        """Forget the client: it is the parent's."""
        self._opening = None
        if self.opened is not None:
            self.let_go(self.opened)

    def use(self, database: Home, unit: Unit) -> bool:
        """``unit`` uses the client from now on; ``False`` if the unit has ended meanwhile.

        Raises ``TooManyConnections``, and what PyMongo raises for options that it cannot use.
        """
        while True:
            with self._clients.budget.lock:
                if self.opened is not None:
                    return self._lend(self.opened, database, unit)
                others = self._opening
                if others is None or others.is_mine:
                    others, mine = None, Opening()
                    self._opening = mine
            if others is not None:
                others.wait()
            else:
                self._open(mine)

    def left(self) -> None:
        """One unit uses the client no longer, for one database."""
        with self._clients.budget.lock:
            opened = self.opened
            if opened is None:
                return
            opened.users -= 1
            if opened.users:
                return
            if self.is_wanted or not self._clients.reclaim(opened):
                self._clients.rest(opened)
                return
        self._clients.close(opened)

    def retire(self, database: Home) -> None:
        """``database`` was replaced: close the client if it was the last one, now or when its last unit ends."""
        with self._clients.budget.lock:
            database.retired = True
            self._wanted.discard(database)
            opened = self.opened
            if self.is_wanted or opened is None:
                return
            if not self._clients.reclaim(opened):
                if opened.users:  # perhaps by a stream that was never closed
                    self._clients.janitor.do(units.release_abandoned)
                else:
                    self._clients.rest(opened)
                return
        self._clients.close(opened)

    def is_abandoned(self) -> None:
        """A unit that used it became garbage."""
        self._clients.janitor.do_if_running(units.release_abandoned)

    @property
    def is_wanted(self) -> bool:
        """Whether a tenant's current record leads to it."""
        return bool(self._wanted)

    def let_go(self, opened: OpenClient) -> None:
        """It is its client no longer; the budget's lock is held."""
        self.opened, state = None, resting_state(opened.client)
        for database in [*self._handed_out]:
            database.client._tr_rest(state)
        self._handed_out.clear()

    @contextmanager
    def held(self) -> Iterator[MongoClient | None]:
        """The client itself, for what ends something and belongs to nobody's unit; ``None`` if there is none."""
        with self._clients.budget.lock:
            opened = self.opened
            if opened is not None:
                opened.users += 1
                self._clients.budget.idle.pop(opened, None)
        try:
            yield opened.client if opened is not None else None
        finally:
            if opened is not None:
                self.left()

    def _lend(self, opened: OpenClient, database: Home, unit: Unit) -> bool:
        """The lock is held."""
        if database in unit.uses:
            return True  # another thread of the unit was first
        opened.users += 1
        self._clients.budget.idle.pop(opened, None)
        self._hand_out(database, opened.client)
        goes_on = unit.use(database)
        if goes_on and database not in unit.uses:  # what a test run finds where nothing is bound keeps nothing
            self.left()
        return goes_on

    def _hand_out(self, database: Home, client: MongoClient) -> None:
        if not self.several and any(other.tenant_id != database.tenant_id for other in self._handed_out):
            self.several = True
        self._handed_out.add(database)
        if not database.retired:
            self._wanted.add(database)
        database.client._tr_lead_to(client)

    def _open(self, opening: Opening) -> None:
        try:
            made = self._make()
        except BaseException as error:
            self._opening_ended(opening)
            opening.failed(error)
            raise
        with self._clients.budget.lock:
            self._opening_ended(opening)
            surplus = made if self.opened is not None else None
            self.opened = self.opened or made
        opening.succeeded()
        if surplus is not None:
            self._clients.close(surplus)

    def _opening_ended(self, opening: Opening) -> None:
        if self._opening is opening:
            self._opening = None

    def _make(self) -> OpenClient:
        budget = self._clients.budget
        place = budget.admit()
        try:
            client = self._clients.make(self._arguments)
        except BaseException:
            budget.failed(place)
            raise
        made = OpenClient(client, self)
        try:
            budget.connected(place)
        except BaseException:
            made.close()
            raise
        return made


class Clients:
    """All clients of one manager's tenants: at most ``limit`` are open, but for those that living units use."""

    def __init__(self, orm_id: str, limit: int) -> None:
        self._orm_id, self._limit = orm_id, limit
        self.make: Callable[[Mapping[str, Any]], MongoClient] = make_client  # a test run has one of its own
        self.janitor = Janitor(self._close_unwanted)
        self._clusters: WeakValueDictionary[tuple[Any, ...], Cluster] = WeakValueDictionary()
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self.budget: Budget[OpenClient] = Budget(
            self._limit, "MongoDB clients", f"OPTIONS['MAX_CLIENTS'] of {self._orm_id!r}"
        )

    def reset_after_fork(self) -> None:
        """Drop the parent's clients without a word to the servers."""
        self.budget.forsaken = True
        self.janitor.reset_after_fork()
        self._begin()
        for cluster in [*self._clusters.values()]:
            cluster.reset_after_fork()

    def cluster(self, target: Target) -> Cluster:
        """The cluster of ``target``; equal ones are the same object."""
        with self._lock:
            found = self._clusters.get(target.cluster_key)
            if found is None:
                found = self._clusters[target.cluster_key] = Cluster(target.arguments, self)
            return found

    def open_count(self) -> int:
        """How many clients are open."""
        return self.budget.open_count()

    def reclaim(self, opened: OpenClient) -> bool:
        """Take a client from its cluster, if nobody uses it, and from those that may make room; the lock is held."""
        reclaimed = opened.reclaim()
        if reclaimed:
            self.budget.idle.pop(opened, None)
        return reclaimed

    def rest(self, opened: OpenClient) -> None:
        """Nobody uses a client; the lock is held. One that no tenant needs is busy still, and is looked at again."""
        self.budget.rest(opened)
        if not opened.cluster.is_wanted:
            self.janitor.look_at(monotonic() + SWEEP_GAP)

    def close(self, opened: OpenClient) -> None:
        """Close a client that its cluster has let go of."""
        self.budget.closed(opened)
        opened.close()

    def close_all(self) -> None:
        """Close every client, whoever uses it."""
        self.janitor.stop()
        for cluster in [*self._clusters.values()]:
            with self.budget.lock:
                opened = cluster.opened
                if opened is not None:
                    cluster.let_go(opened)
                    self.budget.idle.pop(opened, None)
            if opened is not None:
                self.close(opened)

    def _close_unwanted(self) -> float | None:
        """Close what rests and is not needed; when to look again."""
        with self.budget.lock:
            unwanted = [opened for opened in self.budget.idle if not opened.cluster.is_wanted]
            reclaimed = [opened for opened in unwanted if self.reclaim(opened)]
        for opened in reclaimed:
            self.close(opened)
        return monotonic() + SWEEP_GAP if len(reclaimed) < len(unwanted) else None
