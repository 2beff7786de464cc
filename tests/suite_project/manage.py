import multiprocessing
import os
import sys

if __name__ == "__main__":
    if "SUITE_START_METHOD" in os.environ:
        multiprocessing.set_start_method(os.environ["SUITE_START_METHOD"])
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "suite.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
