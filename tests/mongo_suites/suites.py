"""An object mapper's own test suite, plain and under a bound tenant, compared test by test.

Unpacks the source distribution of the installed library, adds what it lacks (the helpers that
its tests import are not distributed: ours are beside ``run``), runs pytest twice on the server
that ``MONGO_URL`` names, and prints every test whose outcome differs. Exits with 1 when one does.
"""

import argparse
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from tests.distributions import outcome, unpacked  # noqa: E402 - found by the line above

PLUGINS = ["-p", "suite_plugin", "-p", "no:randomly", "-p", "no:django", "-p", "no:tenant_router"]
PYTEST = ["-q", "-W", "ignore", *PLUGINS]


def main(library, folder, helpers, left_out, arguments):
    """Run it: ``folder`` holds the library's tests, ``helpers`` ours; ``left_out``: modules not to run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir()) / "tenant_router-suites",
        help="where the source is unpacked",
    )
    parser.add_argument("labels", nargs="*", help="arguments for pytest")
    options = parser.parse_args()
    if "MONGO_URL" not in os.environ:
        sys.exit("MONGO_URL names no MongoDB server")
    source = unpacked(options.work.resolve(), library, importlib.metadata.version(library))
    shutil.copytree(helpers, source / folder, dirs_exist_ok=True)
    ignored = [f"--ignore={folder}/{name}.py" for name in left_out]
    results = {
        mode: run(source, mode, library, [folder, *ignored, *arguments, *options.labels])
        for mode in ("plain", "tenant")
    }
    sys.exit(report(library, results["plain"], results["tenant"]))


def run(source, mode, library, arguments):
    """Test id -> outcome and the first line of what went wrong."""
    result = source / f"{mode}.xml"
    result.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": f"{HERE}", "SUITE_MODE": mode, "SUITE_LIBRARY": library}
    (source / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", *PYTEST, f"--junitxml={result}", *arguments]
    with open(source / f"{mode}.log", "w") as log:
        subprocess.run(command, cwd=source, env=environment, stdout=log, stderr=log, check=False)
    if not result.exists():
        sys.exit(f"the {mode} run did not finish: see {log.name}")
    cases = ElementTree.parse(result).iter("testcase")
    return {f"{case.get('classname')}.{case.get('name')}": outcome(case) for case in cases}


def report(library, plain, tenant):
    print(f"{library}: {len(plain)} tests plain, {len(tenant)} with a bound tenant")
    print(f"plain: {dict(Counter(kind for kind, _ in plain.values()))}")
    print(f"bound: {dict(Counter(kind for kind, _ in tenant.values()))}")
    for test, (kind, why) in sorted(plain.items()):
        if kind in ("failure", "error") and tenant.get(test, ("",))[0] == kind:
            print(f"    fails in both: {test}: {' '.join(why)[:150]}")
    absent = ("absent", [])
    found = [test for test in sorted({*plain, *tenant}) if plain.get(test, absent)[0] != tenant.get(test, absent)[0]]
    print(f"{len(found)} differ")
    for test in found:
        (old, _), (new, why) = plain.get(test, absent), tenant.get(test, absent)
        print(f"  ! {test}: {old} -> {new}: {' '.join(why)[:200]}")
    return 1 if found or not plain else 0
