"""Test runners that leave the outcome of every test in a JSON file."""

import json
import os

from django.test.utils import iter_test_cases


def recording(base):
    """A runner like ``base`` that writes which tests there are, and which did not simply pass, to ``SUITE_RESULT``."""

    class Recording(base):
        def build_suite(self, *args, **kwargs):
            suite = super().build_suite(*args, **kwargs)
            self.built = sorted(test.id() for test in iter_test_cases(suite))
            return suite

        def suite_result(self, suite, result, **kwargs):
            write(result, self.built)
            return super().suite_result(suite, result, **kwargs)

    return Recording


def write(result, built):
    outcomes = {
        "run": result.testsRun,
        "built": built,
        "failures": sorted({name(test) for test, _ in result.failures}),
        "errors": sorted({name(test) for test, _ in result.errors}),
        "skipped": sorted({name(test) for test, _ in result.skipped}),
        "expected failures": sorted({name(test) for test, _ in result.expectedFailures}),
        "unexpected successes": sorted({name(test) for test in result.unexpectedSuccesses}),
        "tracebacks": {name(test): trace for test, trace in [*result.failures, *result.errors]},
    }
    with open(os.environ["SUITE_RESULT"], "w") as file:
        json.dump(outcomes, file, indent=1)


def name(test):
    return test.id() if hasattr(test, "id") else str(test)


def runner(mode):
    """The runner of a mode: ``"plain"``, or one of our kinds of aliases."""
    if mode == "plain":
        from django.test.runner import DiscoverRunner as base
    else:
        from tenant_router.testing import TenantTestRunner as base
    return recording(base)
