"""Writing to the config store: what a configuration changes, whether that is allowed, and committing it.

Other rooms import ``Writer``, ``Plan``, ``differences``, ``refused_records``, ``Stamping``, ``TRANSITIONS``,
``provision``, ``undo_provisioning``, ``refresh_reference`` and the errors from here.
"""

from tenant_router.lifecycle.commits import PartlyCommitted, Unconfirmed
from tenant_router.lifecycle.plan import CHANGED, CREATED, REMOVED, UNCHANGED, Plan, differences
from tenant_router.lifecycle.provisioning import provision
from tenant_router.lifecycle.reference import refresh_reference
from tenant_router.lifecycle.review import refused_records
from tenant_router.lifecycle.stamping import Stamping
from tenant_router.lifecycle.states import TRANSITIONS, StateRefused
from tenant_router.lifecycle.undoing import undo_provisioning
from tenant_router.lifecycle.writer import Writer

__all__ = [
    "CHANGED",
    "CREATED",
    "REMOVED",
    "TRANSITIONS",
    "UNCHANGED",
    "PartlyCommitted",
    "Plan",
    "Stamping",
    "StateRefused",
    "Unconfirmed",
    "Writer",
    "differences",
    "provision",
    "refresh_reference",
    "refused_records",
    "undo_provisioning",
]
