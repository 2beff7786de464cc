from django.apps import AppConfig


class ReportsConfig(AppConfig):
    """Installed when the site has a MongoDB (see the settings)."""

    name = "reports"
