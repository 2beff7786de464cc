"""The settings module that ``THIRD_PARTY_SETTINGS`` names, and ours on top of it."""

import importlib
import os

from recording import runner
from routed import MODE, settings_of

_base = vars(importlib.import_module(os.environ["THIRD_PARTY_SETTINGS"]))
_base = {name: value for name, value in _base.items() if name.isupper()}
globals().update(_base | settings_of(_base))

RoutedRunner = runner(MODE)
TEST_RUNNER = f"{__name__}.RoutedRunner"
