"""Writing to the config store: what a configuration changes, whether that is allowed, and committing it.

Other rooms import ``Writer`` and ``Plan`` from here.
"""

from tenant_router.lifecycle.plan import CHANGED, CREATED, REMOVED, UNCHANGED, Plan
from tenant_router.lifecycle.writer import PartlyCommitted, Writer

__all__ = ["CHANGED", "CREATED", "REMOVED", "UNCHANGED", "PartlyCommitted", "Plan", "Writer"]
