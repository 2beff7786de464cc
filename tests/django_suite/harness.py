"""Runs Django's own ``runtests.py`` in its unpacked source, plain or under tenant routing.

Started by ``run`` with the tests' folder of Django's source distribution as working
directory. The outcome of every test that did not simply pass goes to a JSON file.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, os.getcwd())

import runtests

MODE = os.environ["DJANGO_SUITE_MODE"]  # "plain", "template" or "tenant"


def recording(base):
    class Recording(base):
        def suite_result(self, suite, result, **kwargs):
            write(result)
            return super().suite_result(suite, result, **kwargs)

    return Recording


def write(result):
    outcomes = {
        "run": result.testsRun,
        "failures": sorted({name(test) for test, _ in result.failures}),
        "errors": sorted({name(test) for test, _ in result.errors}),
        "skipped": sorted({name(test) for test, _ in result.skipped}),
        "expected failures": sorted({name(test) for test, _ in result.expectedFailures}),
        "unexpected successes": sorted({name(test) for test in result.unexpectedSuccesses}),
        "tracebacks": {name(test): trace for test, trace in [*result.failures, *result.errors]},
    }
    with open(os.environ["DJANGO_SUITE_RESULT"], "w") as file:
        json.dump(outcomes, file, indent=1)


def name(test):
    return test.id() if hasattr(test, "id") else str(test)


def get_runner(settings, test_runner_class=None):
    if MODE == "plain":
        from django.test.runner import DiscoverRunner as base
    else:
        from tenant_router.testing import TenantTestRunner as base
    return recording(base)


if __name__ == "__main__":
    if MODE != "plain":
        runtests.ALWAYS_INSTALLED_APPS.insert(0, "tenant_router")
    runtests.get_runner = get_runner
    source = Path("runtests.py").read_text()
    main = source[source.index('if __name__ == "__main__":') :]
    exec(compile(main, "runtests.py", "exec"), vars(runtests) | {"__name__": "__main__"})
