"""Django's system checks of a converted project; importing this room registers them."""

from tenant_router.checks.conversion import check_conversion
from tenant_router.checks.deployment import check_deployment
from tenant_router.checks.positions import check_positions
from tenant_router.checks.routes import check_routes
from tenant_router.checks.settings import check_settings

__all__ = ["check_conversion", "check_deployment", "check_positions", "check_routes", "check_settings"]
