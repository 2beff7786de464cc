"""``make demo SERVICES=all``: reports in MongoDB, a search in Elasticsearch, and neither of them elsewhere."""

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.demo.conftest import started
from tests.demo.running import Demo, demo_command
from tests.demo.test_browser import Open, add_patient, patients, visiting
from tests.services import require

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("demo services")]


@pytest.fixture(scope="module")
def complete() -> Iterator[Demo]:
    for variable in ("MONGO_URL", "ELASTICSEARCH_URL"):
        require(os.environ.get(variable), f"{variable} is not set")
    with started("--services", "all") as running:
        yield running


@pytest.fixture
def visit(browser: Browser, complete: Demo) -> Iterator[Open]:
    with visiting(browser, complete) as opener:
        yield opener


def test_each_site_has_reports_of_its_own(visit):
    seen = []
    for name in ("tenant-1", "tenant-2"):
        page = visit(name)
        page.get_by_role("tab", name="Reports").click()
        panel = page.get_by_role("tabpanel", name="Reports")
        expect(panel.locator(".row:not(.skeleton)").first).to_be_visible()
        seen.append(set(panel.locator("b").all_inner_texts()))
    assert seen[0]
    assert seen[1]
    assert not seen[0] & seen[1]


def test_the_search_finds_the_sites_own_patients(visit):
    page = visit("tenant-1")
    for name in ("Ottilie Marsh", "Quentin Vale"):
        add_patient(page, name)
        expect(patients(page).get_by_text(name)).to_be_visible()
    search = page.get_by_role("searchbox", name="Search patients")
    search.fill("otti")
    expect(patients(page).get_by_text("Quentin Vale")).to_be_hidden()
    expect(patients(page).get_by_text("Ottilie Marsh")).to_be_visible()
    page.get_by_role("searchbox").fill("")
    expect(patients(page).get_by_text("Quentin Vale")).to_be_visible()

    other = visit("tenant-2")
    other.get_by_role("searchbox").fill("otti")
    expect(patients(other).get_by_text("Nobody found")).to_be_visible()


def test_a_tenant_that_is_added_has_them_too(complete, visit):
    done = demo_command(complete.state, "tenant", "tenant-9.test.com")
    assert done.returncode == 0, done.stderr
    page = visit("tenant-9")
    page.get_by_role("tab", name="Reports").click()
    expect(page.get_by_role("tabpanel", name="Reports").locator(".row:not(.skeleton)").first).to_be_visible()


def test_the_demo_of_python_alone_has_neither(browser, demo):
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(demo.url("tenant-1"))
        expect(page.get_by_role("tab", name="Patients")).to_be_visible()
        assert page.get_by_role("tab", name="Reports").count() == page.get_by_role("searchbox").count() == 0


def test_missing_services_are_named(folder):
    done = demo_command(folder / "state", "up", "--services", "all", MONGO_URL="", ELASTICSEARCH_URL="")
    assert done.returncode == 1
    assert done.stderr.startswith("demo: SERVICES=all needs MONGO_URL and ELASTICSEARCH_URL in the environment")
