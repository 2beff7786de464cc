"""The contract of a config store as tests, for everybody who writes a backend."""

from tenant_router.testing.store_contract.commits import Commits
from tenant_router.testing.store_contract.failures import Failures
from tenant_router.testing.store_contract.keeping import Keeping
from tenant_router.testing.store_contract.leases import BesideTheHistory
from tenant_router.testing.store_contract.log import Log
from tenant_router.testing.store_contract.records import Records
from tenant_router.testing.store_contract.sharing import Sharing
from tenant_router.testing.store_contract.waiting import Waiting


class StoreContract(Commits, Records, Log, Waiting, Sharing, BesideTheHistory, Keeping, Failures):
    """What every backend must pass. Derive ``TestMyStore(StoreContract)`` and override the hooks.

    ``store`` is a fixture: an empty store that is closed after the test. ``reopen``, ``wipe``
    and ``short_log`` are needed by every backend; ``outage`` and ``denied`` skip their tests
    unless they are overridden, which suits stores that no network leads to. For readable
    failures, call ``pytest.register_assert_rewrite("tenant_router.testing.store_contract")``
    in a ``conftest.py``.
    """
