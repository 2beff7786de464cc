"""Migrating many tenants: who is migrated, what is shown, and who failed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from django.core.management.base import OutputWrapper
from rich.console import Console
from rich.progress import Progress

from tenant_router import identity
from tenant_router.exceptions import MigrationInterrupted, one_line
from tenant_router.fleet import in_process
from tenant_router.fleet.interrupts import finishing_first
from tenant_router.fleet.ledger import Ledger, interrupted
from tenant_router.fleet.locks import Locks
from tenant_router.fleet.outcomes import FAILED, NOT_RUN, OK, STOPPED, JobFailed
from tenant_router.fleet.runner import Runner
from tenant_router.fleet.servers import Servers
from tenant_router.orm_backends.base import BaseOrmManager, MigrationRun
from tenant_router.runtime import Runtime
from tenant_router.tenant_context import FixedContext, TenantContext

NAMED = 20  # failures that the last line names


class Target(NamedTuple):
    """One database: an alias of one ORM. Without an alias, an ORM's assistant; without an ORM, a tenant."""

    alias: str
    orm_id: str = ""

    def __str__(self) -> str:
        return f"{self.alias} ({self.orm_id})" if self.alias and self.orm_id else self.alias or self.orm_id


class Migration:
    """One run over all ORMs. ``failures`` maps what failed to its error, ``done`` holds what did not.

    Databases that the ledger has as the release wants them are left out, but for a share of them, ``sample``, which
    are looked at all the same. ``jobs`` tenants are migrated at once, ``per_server`` of them on one database server;
    after more than ``max_failures`` none is begun. ``left``: the tenants that were not begun.
    """

    def __init__(
        self,
        runtime: Runtime,
        out: OutputWrapper,
        *,
        plan: bool,
        reserved: bool,
        verbosity: int,
        sample: float = 1.0,
        jobs: int = 1,
        per_server: int = 1,
        max_failures: int | None = None,
    ) -> None:
        self._runtime, self._out = runtime, out
        self._ledger, self._locks, self._sample = Ledger(runtime.store), Locks(runtime.store), sample
        self._plan, self._reserved = plan, reserved
        self._verbosity = verbosity if plan else max(0, verbosity - 1)
        self._jobs, self._max_failures = in_process.affordable(jobs), max_failures
        self._servers = Servers(per_server)
        self.left: list[str] = []
        self.failures: dict[Target, BaseException] = {}
        self.done: set[Target] = set()
        self._unmigrated: set[str] = set()  # the tenants of which a database failed, or may have failed

    def run(self, contexts: Sequence[TenantContext]) -> None:
        """Migrate the tenants' databases and the reserved ones; a failure is noted and the next is tried."""
        contexts = [FixedContext(one.id, one.revision, one.parts) for one in contexts]
        wanted = [(manager, self._unsettled(manager, contexts)) for manager in self._runtime.orms.values()]
        with _Shown(self._out, 0 if self._plan else sum(self._count(*one) for one in wanted)) as shown:
            for manager, unsettled in wanted:
                self._migrate(manager, unsettled, shown)

    def refuse(self, tenant_id: str, error: Exception) -> None:
        """Note that a tenant has no databases to migrate, and why."""
        self._note(Target(tenant_id), error, {tenant_id}, self._out.write)

    def migrated(self, tenant_id: str) -> bool:
        """Whether nothing that failed is a database of this tenant's, or may be one."""
        return tenant_id not in self._unmigrated

    @property
    def failed(self) -> str:
        """The failures, for the last line."""
        names = sorted(map(str, self.failures))
        more = len(names) - NAMED
        return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")

    def outcomes(self) -> list[dict[str, str]]:
        """What came of each database, for programs; those that the ledger left out are not among them."""
        done = [{**target._asdict(), "outcome": OK, "error": ""} for target in sorted(self.done)]
        failed = [
            {**target._asdict(), "outcome": FAILED, "error": one_line(error)}
            for target, error in sorted(self.failures.items(), key=lambda item: item[0])
        ]
        return [*done, *failed]

    def _unsettled(self, manager: BaseOrmManager, contexts: Sequence[TenantContext]) -> Sequence[TenantContext]:
        """The tenants of which a database of this ORM is not known to need nothing; nobody is asked for that."""
        assistant = manager.migration_asst if manager.migrates else None
        if assistant is None:
            return contexts
        wanted = [(one, assistant.up_to_date(one)) for one in contexts]
        noted = self._ledger.read([alias for _, databases in wanted for alias in databases])
        left, settled = [], 0
        for one, databases in wanted:
            if self._is_half_done(one, manager, {alias: interrupted(noted.get(alias)) for alias in databases}):
                continue
            if databases and all(noted.get(alias) == fingerprint for alias, fingerprint in databases.items()):
                settled += 1
                if random.random() >= self._sample:
                    continue
            left.append(one)
        if settled and self._sample < 1:
            self._out.write(f"{manager.orm_id}: {settled} of {len(contexts)} tenants are up to date")
        return left

    def _is_half_done(self, context: TenantContext, manager: BaseOrmManager, begun: Mapping[str, str]) -> bool:
        """Note who has a database in which a migration was killed that could not be rolled back."""
        for alias, migration in begun.items():
            if migration:
                error = MigrationInterrupted(
                    f"INTERRUPTED: {migration} was killed in the middle, and the database cannot roll it back. Look at "
                    f"it; then 'manage.py migrate --tenant-id {context.id}', with --fake if the migration is complete"
                )
                self._note(Target(alias, manager.orm_id), error, {context.id}, self._out.write)
        return any(begun.values())

    def _migrate(self, manager: BaseOrmManager, contexts: Sequence[TenantContext], shown: _Shown) -> None:
        owners = {identity.alias_for(one.id, alias): one.id for one in contexts for alias in manager.template_aliases}

        def report(alias: str, error: BaseException | None, step: str = "") -> None:
            target = Target(alias, manager.orm_id)
            shown.advance(str(target))
            if error is None:
                self.done.add(target)
                if not self._plan:
                    shown.done(f"{target}: ok")
                return
            # An alias that is nobody's was named by somebody's own assistant: it may be anybody's.
            owner = {owners[alias]} if alias in owners else set(owners.values())
            self._note(target, error, set() if alias in manager.reserved_aliases else owner, shown.write, step)

        run = MigrationRun(
            contexts=contexts,
            reserved=self._reserved,
            plan=self._plan,
            verbosity=self._verbosity,
            write=shown.write,
            report=report,
            each=self._each,
            several=self._jobs > 1,
        )
        if not self._plan:
            run = run._replace(holding=self._locks.holding, under_way=self._ledger.under_way)
        try:
            if not manager.migrate_to_all(run):
                shown.write(f"{manager.orm_id}: has no migration assistant, nothing is migrated")
        except (Exception, SystemExit) as error:  # anybody can write an assistant: the other ORMs go on
            left = {owner for alias, owner in owners.items() if Target(alias, manager.orm_id) not in self.done}
            self._note(Target("", manager.orm_id), error, left, shown.write)

    def _each(self, contexts: Sequence[TenantContext], migrate: Callable[[TenantContext], None]) -> None:
        """Several at once, if that is asked for. Raises ``KeyboardInterrupt`` when what ran is finished, or at once."""
        by_id = {context.id: context for context in contexts}

        def job(tenant_id: str) -> None:
            databases = by_id[tenant_id].parts.get("django_orm", {})
            with self._servers.place({alias: database.settings for alias, database in databases.items()}):
                migrate(by_id[tenant_id])
            if not self.migrated(tenant_id):
                raise JobFailed("")  # it has been told: what counts is that it failed

        threads = self._jobs if self._jobs > 1 and not self._plan else 0
        runner = Runner(job, threads=threads, max_failures=self._max_failures, leave_thread=in_process.leave_thread)
        with finishing_first(runner.finish):
            outcomes = runner.run(by_id)
        self.left += [outcome.tenant_id for outcome in outcomes if outcome.status in (NOT_RUN, STOPPED)]
        if runner.interrupted:
            raise KeyboardInterrupt

    def _note(
        self, target: Target, error: BaseException, owners: set[str], write: Callable[[str], None], step: str = ""
    ) -> None:
        self.failures[target] = error
        self._unmigrated |= owners
        write(f"{target}: FAILED {f'{step}: ' if step else ''}{one_line(error)}")

    def _count(self, manager: BaseOrmManager, contexts: Sequence[TenantContext]) -> int:
        if not manager.migrates:
            return 0
        return len(contexts) * len(manager.template_aliases) + len(manager.reserved_aliases) * self._reserved


class _Shown:
    """A progress bar on a terminal, with what is written above it; plain lines elsewhere."""

    def __init__(self, out: OutputWrapper, total: int) -> None:
        self._out = out
        stream: Any = out._out  # the wrapper would end each piece of the bar's line
        self._progress = Progress(console=Console(file=stream)) if total and out.isatty() else None
        self._task = self._progress.add_task("Migrating", total=total) if self._progress else None

    def __enter__(self) -> _Shown:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._progress:
            self._progress.stop()

    def advance(self, name: str) -> None:
        """One database is done, well or not."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=1, description=name)

    def done(self, line: str) -> None:
        """A database went well: the bar has moved, and elsewhere there is a line."""
        if self._progress is None:
            self._out.write(line)

    def write(self, line: str) -> None:
        """A line that stays."""
        if self._progress is None:
            self._out.write(line)
        else:
            self._progress.console.print(line.removesuffix("\n"), markup=False, highlight=False, soft_wrap=True)
