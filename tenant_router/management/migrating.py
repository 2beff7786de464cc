"""Migrating many tenants: who is migrated, what is shown, and who failed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from django.core.management.base import OutputWrapper
from rich.console import Console
from rich.progress import Progress

from tenant_router.context import TenantContext
from tenant_router.exceptions import TenantUnresolved
from tenant_router.managers import tenant_context_manager
from tenant_router.orm_backends.base import MigrationRun
from tenant_router.runtime import Runtime

MIGRATED_STATES = ("A", "P", "S")


class Migration:
    """One run over all ORMs. ``failures`` maps what failed (an alias or a tenant) to its error."""

    def __init__(self, runtime: Runtime, out: OutputWrapper, *, plan: bool, reserved: bool, verbosity: int) -> None:
        self._runtime, self._out = runtime, out
        self._plan, self._reserved, self._verbosity = plan, reserved, verbosity
        self.failures: dict[str, Exception] = {}
        self.done: list[str] = []

    def run(self, tenant_ids: Iterable[str]) -> None:
        """Migrate the tenants' databases and the reserved ones; a failure is noted and the next is tried."""
        contexts = list(self._contexts(tenant_ids))
        with _Shown(self._out, self._total(contexts)) as shown:
            for manager in self._runtime.orms.values():
                run = MigrationRun(
                    contexts=contexts,
                    reserved=self._reserved,
                    plan=self._plan,
                    verbosity=self._verbosity if self._plan else max(0, self._verbosity - 1),
                    write=self._out.write,
                    report=lambda alias, error: self._report(shown, alias, error),
                )
                if not manager.migrate_to_all(run):
                    self._out.write(f"{manager.orm_id}: has no migration assistant, nothing is migrated")

    def _contexts(self, tenant_ids: Iterable[str]) -> Iterable[TenantContext]:
        for tenant_id in tenant_ids:
            try:
                yield tenant_context_manager.get_in_any_state(tenant_id)
            except TenantUnresolved as error:
                self.failures[tenant_id] = error
                self._out.write(f"{tenant_id}: FAILED: {error}")

    def _total(self, contexts: Sequence[TenantContext]) -> int:
        return sum(
            len(contexts) * len(manager.template_aliases) + len(manager.reserved_aliases) * self._reserved
            for manager in self._runtime.orms.values()
        )

    def _report(self, shown: _Shown, alias: str, error: Exception | None) -> None:
        if error is None:
            self.done.append(alias)
        else:
            self.failures[alias] = error
        shown.line(alias, error)


class _Shown:
    """A progress bar on a terminal, plain lines elsewhere."""

    def __init__(self, out: OutputWrapper, total: int) -> None:
        self._out = out
        terminal = out.isatty()
        self._progress = Progress(console=Console(file=sys.stderr)) if terminal else None
        self._task = self._progress.add_task("Migrating", total=total) if self._progress else None

    def __enter__(self) -> _Shown:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._progress:
            self._progress.stop()

    def line(self, alias: str, error: Exception | None) -> None:
        """One database is done."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=1, description=alias)
        if error is not None:
            self._out.write(f"{alias}: FAILED: {type(error).__name__}: {str(error).strip()}")
        elif self._progress is None:
            self._out.write(f"{alias}: ok")
