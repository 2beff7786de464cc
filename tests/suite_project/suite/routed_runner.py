from suite.runner import ShopRunner

from tenant_router.testing import TenantTestRunner


class RoutedShopRunner(TenantTestRunner, ShopRunner):
    pass
