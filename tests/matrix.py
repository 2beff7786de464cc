#!/usr/bin/env python3
"""Runs the unit, contract and connection tests on the supported pairs of Python and Django; see ``make matrix``.

    python3 tests/matrix.py                                 # every pair
    python3 tests/matrix.py py310-django42 py313-django60   # these
    python3 tests/matrix.py --install py310-django42        # only make what it runs in, below .matrix/

A Python that is not on the machine is skipped with the reason; with ``TENANT_ROUTER_REQUIRE_SERVICES=1``, as in CI,
that is a failure. The script needs Python 3.10 and its standard library alone.
"""

from __future__ import annotations

import argparse
import configparser
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".matrix"
TESTS = ("tests/unit", "tests/contract", "tests/integration/test_connections.py")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
DJANGOS = {"4.2": "3.10", "5.2": "3.10", "6.0": "3.12"}  # each with the oldest of PYTHONS that it runs on
# Of the extra `dev`. One that is missing here is installed without need, and nothing worse happens.
NOT_NEEDED = {
    "aiohttp",
    "blinker",
    "channels",
    "coverage",
    "django-stubs",
    "gunicorn",
    "import-linter",
    "mypy",
    "playwright",
    "pymemcache",
    "pytest-django",
    "ruff",
    "setuptools",
    "types-jsonschema",
    "uvicorn",
}


class Pair(NamedTuple):
    """A version of Python and one of Django, such as ``3.10`` and ``4.2``."""

    python: str
    django: str

    @property
    def base(self) -> Path:
        """The environment that the pairs of a Python share: all packages."""
        return HOME / f"py{self.python.replace('.', '')}"

    @property
    def name(self) -> str:
        """As tox writes it: ``py310-django42``."""
        return f"{self.base.name}-django{self.django.replace('.', '')}"

    @property
    def own(self) -> Path:
        """The environment that the tests run in: its Django, and then the packages of ``base``."""
        return HOME / self.name

    @property
    def packages(self) -> str:
        """Where packages lie in an environment."""
        return f"lib/python{self.python}/site-packages"


class Result(NamedTuple):
    """What became of a pair (passed, failed or skipped), and the reason, or the last line that pytest printed."""

    pair: Pair
    outcome: str
    detail: str


PAIRS = {
    pair.name: pair
    for pair in (Pair(python, django) for django in DJANGOS for python in PYTHONS)
    if PYTHONS.index(pair.python) >= PYTHONS.index(DJANGOS[pair.django])
}


@cache
def interpreter(version: str) -> str | None:
    """The path of a Python of this version: the running one, the one on PATH, or the newest that pyenv has."""
    ask = ("-c", "import sys; print('%s.%s' % sys.version_info[:2])")
    return next((path for path in _candidates(version) if _output(path, *ask) == version), None)


def _candidates(version: str) -> Iterator[str]:
    yield sys.executable
    # May be pyenv's shim, which fails unless the version is chosen there: that is why each candidate is asked.
    yield from filter(None, [shutil.which(f"python{version}")])
    releases = Path(_output("pyenv", "root") or os.devnull, "versions").glob(f"{version}.*")
    numbers = {int(number): path for path in releases if (number := path.name.rpartition(".")[2]).isdigit()}
    yield from (str(numbers[number] / "bin" / "python") for number in sorted(numbers, reverse=True))


def _output(*command: str) -> str:
    """What a command prints; nothing when it fails or does not exist."""
    with suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return ""


def requirements() -> list[str]:
    """What setup.cfg says that the package and its tests need. The package itself is taken from the checkout."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = (setup["options"]["install_requires"] + setup["options.extras_require"]["dev"]).split("\n")
    return [line for line in lines if line and re.split(r"[^\w.-]", line)[0] not in NOT_NEEDED]


def install(pair: Pair, python: str) -> None:
    """Make the environments of a pair, unless they are there and setup.cfg wants the same as then."""
    needed, django = requirements(), f"Django=={pair.django}.*"
    if not _is_made(pair.base, wanted := "\n".join([python, *needed])):
        _run(python, "-m", "venv", "--clear", pair.base)
        _pip(pair.base, *needed)
        _made(pair.base, wanted)
    if not _is_made(pair.own, wanted := f"{python}\n{django}"):
        _run(python, "-m", "venv", "--clear", "--without-pip", pair.own)
        _pip(pair.base, "--no-deps", "--target", pair.own / pair.packages, django)
        path = pair.own / pair.packages / "shared.pth"
        path.write_text(f"import site; site.addsitedir({str(pair.base / pair.packages)!r})\n")
        _made(pair.own, wanted)


def _is_made(folder: Path, wanted: str) -> bool:
    with suppress(FileNotFoundError):
        return (folder / "made.txt").read_text() == wanted
    return False


def _made(folder: Path, wanted: str) -> None:
    (folder / "made.txt").write_text(wanted)


def _pip(environment: Path, *arguments: str | Path) -> None:
    # Most of what is installed is never imported. (pip takes the variable as "compile: no".)
    quiet = {"PIP_NO_COMPILE": "no", "PIP_QUIET": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    _run(environment / "bin" / "python", "-m", "pip", "install", *arguments, **quiet)


def _run(*command: str | Path, **environment: str) -> None:
    subprocess.run(command, check=True, env={**os.environ, **environment})


def test(pair: Pair, workers: str) -> Result:
    """Run the tests on a pair; what pytest prints is shown as it comes."""
    python = pair.own / "bin" / "python"
    versions = "import platform, django; print('Python', platform.python_version() + ', Django', django.__version__)"
    print(f"\n== {pair.name}: {_output(str(python), '-c', versions)}", flush=True)
    last = ""
    command: list[str | Path] = [python, "-m", "pytest", "-q", "-n", workers, *TESTS]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        for last in tests.stdout:
            print(last, end="", flush=True)
    return Result(pair, "failed" if tests.returncode else "passed", last.strip("= \n"))


def attempt(pair: Pair, options: argparse.Namespace) -> Result:
    """Install a pair and run its tests, and say what became of it."""
    python = interpreter(pair.python)
    if python is None:
        required = os.environ.get("TENANT_ROUTER_REQUIRE_SERVICES") == "1"
        return Result(pair, "failed" if required else "skipped", f"no Python {pair.python} on PATH or in pyenv")
    try:
        install(pair, python)
    except subprocess.CalledProcessError as error:
        return Result(pair, "failed", f"not installed: {error}")
    return Result(pair, "passed", "installed") if options.install else test(pair, options.workers)


def main() -> int:
    """Try the pairs that the command line names; 1 when one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(";")[0])
    parser.add_argument("pairs", nargs="*", metavar="PAIR", help=f"of {', '.join(PAIRS)}; all without one")
    parser.add_argument("--install", action="store_true", help="make the environments and run nothing")
    parser.add_argument("--workers", default="2", help="processes that run tests (2)")
    options = parser.parse_args()
    if unknown := set(options.pairs) - set(PAIRS):
        parser.error(f"no such pair: {', '.join(sorted(unknown))}; there are {', '.join(PAIRS)}")
    results = [attempt(PAIRS[name], options) for name in options.pairs or PAIRS]
    print(f"\n{'Django':8}{'Python':8}{'outcome':9}")
    for result in results:
        print(f"{result.pair.django:8}{result.pair.python:8}{result.outcome:9}{result.detail}")
    return int(any(result.outcome == "failed" for result in results))


if __name__ == "__main__":
    sys.exit(main())
