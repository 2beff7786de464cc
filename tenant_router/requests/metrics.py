"""Metrics of this process for Prometheus, when ``prometheus_client`` is installed.

They are computed when they are scraped and cost a request nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tenant_router import runtime
from tenant_router.config_store.base import STATE_NAMES, packed_state

_registered: list[object] = []


def register() -> bool:
    """Add our collector to the client's default registry, once; whether it is there."""
    try:
        from prometheus_client import REGISTRY
    except ImportError:
        return False
    if not _registered:
        collector: Any = Collector()
        REGISTRY.register(collector)
        _registered.append(collector)
    return True


class Collector:
    """What ``prometheus_client`` asks for the values; nothing while the runtime is not installed."""

    def describe(self) -> list[Any]:
        """No values are needed to register."""
        return []

    def collect(self) -> Iterator[Any]:
        """The metrics, of the process that is scraped."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        if not runtime.is_installed():
            return
        process = runtime.get()
        for name, (what, value) in _gauges(process).items():
            yield GaugeMetricFamily(f"tenant_router_{name}", what, value)
        for name, (what, count) in _counters(process).items():
            yield CounterMetricFamily(f"tenant_router_{name}", what, count)
        tenants = GaugeMetricFamily("tenant_router_tenants", "Known tenants by state.", labels=["state"])
        for state, count in Counter(map(packed_state, list(process.registry.index.values()))).items():
            tenants.add_metric([STATE_NAMES.get(state, state)], count)
        yield tenants


def _gauges(process: runtime.Runtime) -> dict[str, tuple[str, float]]:
    reflector, registry = process.reflector, process.registry
    return {
        "ready": ("1 while this process is known to be up to date.", int(reflector.ready)),
        "since_contact_seconds": ("Seconds since the config store last answered.", reflector.since_contact),
        "applied_revision": ("The revision of the config store that is served.", process.describe().revision),
        "loaded_tenants": ("Tenants whose configuration is prepared.", len(registry.prepared)),
        "refused_records": ("Tenants whose current record is refused here.", len(registry.refusals)),
    }


def _counters(process: runtime.Runtime) -> dict[str, tuple[str, int]]:
    reflector = process.reflector
    return {
        "changes_applied": ("Changes of tenants taken over.", process.pipeline.applied),
        "synchronisations": ("Times that all tenants' revisions were read.", reflector.syncs),
        "store_failures": ("Failed attempts to follow the config store.", reflector.failures),
        "shrinks_refused": ("Times that tenants were gone from the config store.", reflector.shrinking.refusals),
    }
