"""A unit of work: one request, one task, or one outermost ``with`` block, and all that is bound inside it.

What it uses (connections, cache backends, clients) nobody else may close before it ends, whichever threads it touched.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from queue import SimpleQueue
from types import MappingProxyType
from typing import Any, Protocol


class Resource(Protocol):
    """What a unit of work uses: a connection, a cache's backend, a client."""

    tenant_id: str

    @property
    def in_atomic_block(self) -> bool:
        """Whether a transaction is open on it."""

    def left_by(self, unit: Unit) -> None:
        """``unit`` uses this no longer. Called once for each unit, in whichever thread it ends."""

    def may_rest(self) -> bool:
        """Whether it may make room although the unit goes on: no transaction is open, nothing is half read."""

    def is_abandoned(self) -> None:
        """A unit that uses this became garbage: have :func:`release_abandoned` called soon, by another thread.

        The collector calls it, wherever it runs: it takes no lock.
        """


class Unit:
    """``uses``: what is in use by it. ``closes``: it is a request or a task, at whose end Django closes what is older
    than ``CONN_MAX_AGE``. ``over``: it has ended; what still has it bound resolves its tenants again, in a unit that
    ``renews`` it.
    """

    # Of the class, so that making a unit costs next to nothing, and one assignment in a forked child ends them all.
    over = False
    closes = False
    renews: Unit | None = None
    uses: Set[Any] = frozenset()
    blocks: Mapping[str, list[None]] = MappingProxyType({})  # of tenants that are bound inside, as often as they are

    def use(self, resource: Resource) -> bool:
        """Note that ``resource`` is in use from now on; ``False`` if the unit has ended meanwhile."""
        found = self.__dict__.get("uses")
        if found is None:
            found = self.__dict__.setdefault("uses", set())  # two threads may come here at once
        found.add(resource)
        if self.over:
            self._release()
        return not self.over

    def end(self) -> None:
        """It uses nothing any more. Idempotent."""
        if not self.over:
            self.over = True
            self._release()

    def open_block(self, tenant_id: str) -> None:
        """A nested block of a tenant begins, in whichever thread or task of this unit."""
        blocks = self.__dict__.get("blocks")
        if blocks is None:
            blocks = self.__dict__.setdefault("blocks", {})
        blocks.setdefault(tenant_id, []).append(None)  # a list, because it counts without a lock

    def close_block(self, tenant_id: str) -> bool:
        """A nested block ends; whether it was the last one of its tenant."""
        opened = self.blocks.get(tenant_id)
        if opened:
            opened.pop()
        return not opened

    def leave(self, tenant_id: str) -> None:
        """The last block of a tenant is left: what it used may make room, while the unit goes on."""
        uses: Any = self.uses
        for resource in [*uses]:  # a copy: other threads of this unit go on using what they need
            if resource.tenant_id == tenant_id and resource.may_rest():
                try:
                    uses.remove(resource)
                except KeyError:  # another thread has left it
                    continue
                resource.left_by(self)

    def _release(self) -> None:
        uses: Any = self.uses
        while uses:
            try:
                resource = uses.pop()
            except KeyError:  # another thread took the last one
                return
            resource.left_by(self)

    def __del__(self) -> None:
        # A unit whose context is garbage is over. Not here: the collector may run wherever locks are held.
        if self.uses and not self.over:
            used = [*self.uses]  # first: from then on other threads let go of what it used
            abandoned.put((self.uses, self.closes))
            for resource in used:
                resource.is_abandoned()


class AmbientUnit(Unit):
    """Of what a test run finds where nothing is bound: it never ends and keeps nothing."""

    def use(self, resource: Resource) -> bool:
        """Forget it: the run's connections are Django's to close."""
        return True


class UnbegunUnit(Unit):
    """Of what a command's whole process finds: wherever nothing is bound, a unit begins with the first use."""

    over = True


class Current(Unit):
    """What units of this process are made of; a forked child has a class of its own."""


abandoned: SimpleQueue[tuple[Set[Any], bool]] = SimpleQueue()


def release_abandoned() -> None:
    """Let go of what units used that became garbage without having been left."""
    while not abandoned.empty():
        unit = Current()
        unit.uses, unit.closes = abandoned.get()
        unit.end()


def _after_fork() -> None:
    """The parent's units bind nothing in a child, and what they use is not the child's to close."""
    global Current, abandoned
    Current.over = True
    Current = type("Current", (Unit,), {})  # type: ignore[misc, assignment]
    abandoned = SimpleQueue()


os.register_at_fork(after_in_child=_after_fork)
