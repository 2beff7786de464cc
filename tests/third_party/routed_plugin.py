"""Adds our settings where a suite's ``conftest.py`` calls ``settings.configure()``: ``pytest -p routed_plugin``."""

from django.conf import LazySettings
from routed import settings_of

_configure = LazySettings.configure


def configure(self, *args, **options):
    _configure(self, *args, **(options | settings_of(options)))


LazySettings.configure = configure
