"""Source distributions whose tests are run plain and under tenant routing, and how their outcomes are read."""

import subprocess
import sys
import tarfile


def unpacked(work, name, version):
    """The source of a package's version in ``work``, downloaded from the package index once."""
    folder = work / f"{name.replace('-', '_')}-{version}"
    if not folder.exists():
        work.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*pip, "--dest", work, f"{name}=={version}"], check=True)
        with tarfile.open(work / f"{folder.name}.tar.gz") as archive:
            archive.extractall(work)
    return folder


def listed(path):
    """The lines of a file, without comments; none when there is no such file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()}


def outcome(case):
    """What a ``testcase`` of pytest's XML came to, and the first line of what went wrong."""
    for kind in ("failure", "error", "skipped"):
        found = case.find(kind)
        if found is not None:
            return kind, (found.get("message") or "").splitlines()[:1]
    return "passed", []
