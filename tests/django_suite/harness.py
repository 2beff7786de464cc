"""Runs Django's own ``runtests.py`` in its unpacked source, plain or under tenant routing.

Started by ``run`` with the tests' folder of Django's source distribution as working
directory. The outcome of every test that did not simply pass goes to a JSON file.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, os.getcwd())

import runtests
from recording import runner

MODE = os.environ["DJANGO_SUITE_MODE"]  # "plain", "template" or "tenant"


def get_runner(settings, test_runner_class=None):
    return runner(MODE)


if __name__ == "__main__":
    if MODE != "plain":
        runtests.ALWAYS_INSTALLED_APPS.insert(0, "tenant_router")
    runtests.get_runner = get_runner
    source = Path("runtests.py").read_text()
    main = source[source.index('if __name__ == "__main__":') :]
    exec(compile(main, "runtests.py", "exec"), vars(runtests) | {"__name__": "__main__"})
