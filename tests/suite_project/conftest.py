import os

# The suites below run in processes of their own (test_test_runner.py, run), not within the tests around them.
collect_ignore_glob = [] if os.environ.get("DJANGO_SETTINGS_MODULE") == "suite.settings" else ["*"]
