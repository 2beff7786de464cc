"""What the pages name is there: files, links, and modules with what is taken from them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FILE = re.compile(r"(?<![\w/.-])(?:tenant_router|tests|benchmarks)/[\w./]*\w(?![\w<*])")
DOTTED = re.compile(r"(?<![\w./-])tenant_router(?:\.(?![EW]\d)\w+)+")
IMPORTED = re.compile(r"^from (tenant_router[\w.]*) import ([\w, ]+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([\w./-]+)(?:#[\w-]+)?\)")


def _is_there(name):
    """Whether a dotted name leads to a folder, a module, or a word in one."""
    place = ROOT
    for part in name.split("."):
        if place.is_dir() and ((place / part).is_dir() or (place / f"{part}.py").is_file()):
            place = place / part if (place / part).is_dir() else place / f"{part}.py"
        else:
            text = (place / "__init__.py" if place.is_dir() else place).read_text()
            return re.search(rf"\b{part}\b", text) is not None
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page):
    text = page.read_text()
    names = DOTTED.findall(text)
    names += [f"{module}.{name.strip()}" for module, taken in IMPORTED.findall(text) for name in taken.split(",")]
    assert [name for name in names if not _is_there(name)] == []
    assert [name for name in FILE.findall(text) if not (ROOT / name).exists()] == []
    assert [name for name in LINK.findall(text) if not (page.parent / name).exists()] == []


@pytest.mark.parametrize("name", ["tenant_router.boot", "tenant_router.conf.nothing", "tenant_router.log.no_one"])
def test_what_is_not_there_is_found_out(name):
    assert not _is_there(name)
