"""The project's own runner: an option, a set-up step and a parallel suite of its own."""

from django.conf import settings
from django.test import runner
from django.test.runner import DiscoverRunner, ParallelTestSuite


def init_shop_worker(counter, *args, **kwargs):
    runner._init_worker(counter, *args, **kwargs)
    settings.SHOP_WORKER = True


class ShopParallelTestSuite(ParallelTestSuite):
    init_worker = init_shop_worker


class ShopRunner(DiscoverRunner):
    parallel_test_suite = ShopParallelTestSuite

    def __init__(self, *args, shop="corner", **kwargs):
        super().__init__(*args, **kwargs)
        self.shop = shop

    @classmethod
    def add_arguments(cls, parser):
        super().add_arguments(parser)
        parser.add_argument("--shop", default="corner")

    def setup_databases(self, **kwargs):
        from shop.models import Category

        created = super().setup_databases(**kwargs)
        Category.objects.create(name=f"of the {self.shop} shop")
        return created

    def teardown_databases(self, old_config, **kwargs):
        from shop.models import Category

        assert Category.objects.filter(name=f"of the {self.shop} shop").count() <= 1
        super().teardown_databases(old_config, **kwargs)
