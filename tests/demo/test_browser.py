"""The page in a real browser."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.demo.running import WAIT_SECONDS, Demo

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("demo")]

NARROW, WIDE = {"width": 360, "height": 740}, {"width": 1280, "height": 860}
CONTRAST = (Path(__file__).parent / "contrast.js").read_text()
Open = Callable[..., Page]


@contextmanager
def visiting(browser: Browser, demo: Demo) -> Iterator[Open]:
    """Open a tenant's page; whatever the browser complains about fails the test."""
    complaints, contexts = [], []

    def opener(name: str, viewport=WIDE, complain=True, **options) -> Page:
        contexts.append(browser.new_context(viewport=viewport, **options))
        contexts[-1].set_default_timeout(WAIT_SECONDS * 1000)
        page = contexts[-1].new_page()
        if complain:
            page.on("console", lambda message: message.type in ("error", "warning") and complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("response", lambda response: response.status >= 400 and complaints.append(response.url))
        page.goto(demo.url(name))
        return page

    yield opener
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def visit(browser: Browser, demo: Demo) -> Iterator[Open]:
    with visiting(browser, demo) as opener:
        yield opener


def add_patient(page: Page, name: str) -> None:
    page.get_by_role("button", name="Add Patient", exact=True).click()
    dialog = page.get_by_role("dialog", name="Add a patient")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_label("Age").fill("41")
    dialog.get_by_label("Hospital").select_option(index=1)
    dialog.get_by_role("button", name="Add patient").click()


def patients(page: Page):
    return page.get_by_role("tabpanel", name="Patients")


def wait_until_read(page: Page) -> None:
    """Both lists have been read once, whether their tabs are shown or not."""
    for name in ("hospitals", "patients"):
        expect(page.locator(f"#panel-{name}")).to_have_attribute("aria-busy", "false")


def test_the_pages_of_two_tenants_differ(visit):
    seen = []
    for name in ("tenant-1", "tenant-2"):
        page = visit(name)
        expect(page.get_by_role("heading", level=1)).to_have_text(f"{name}.test.com")
        expect(page.locator(".sites [aria-current=page]")).to_have_text(name)
        expect(page.locator(".tile:not(.skeleton)").first).to_be_visible()
        seen.append(set(page.locator(".tile h2").all_inner_texts()))
    assert not seen[0] & seen[1]


def test_the_header_leads_to_the_other_tenant(visit, demo):
    page = visit("tenant-1")
    page.get_by_role("link", name="tenant-2").click()
    expect(page).to_have_url(demo.url("tenant-2"))


def test_a_patient_added_in_the_dialog_shows_up_by_itself_and_at_this_tenant_only(visit):
    page, other = visit("tenant-1"), visit("tenant-2")
    wait_until_read(page)  # of those that it had not seen before the first list, the page says nothing
    add_patient(page, "Grace From The Browser")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("tab", name="Patients")).to_have_attribute("aria-selected", "true")
    expect(patients(page).get_by_text("Grace From The Browser")).to_be_visible()
    expect(page.get_by_role("status")).to_contain_text("Added: Grace From The Browser")
    other.get_by_role("tab", name="Patients").click()
    with other.expect_request(lambda request: request.url.endswith("/api/patients/")) as asked:
        pass
    answer = asked.value.response()
    assert answer.ok
    assert "Grace From The Browser" not in answer.text()
    expect(other.get_by_text("Grace From The Browser")).to_have_count(0)


def test_the_dialog_refuses_bad_input_beside_the_field(visit):
    page = visit("tenant-1")
    page.get_by_role("button", name="Add Patient", exact=True).click()
    page.get_by_label("Age").fill("200")
    page.get_by_role("dialog").get_by_role("button", name="Add patient").click()
    expect(page.get_by_label("Name")).to_be_focused()
    expect(page.get_by_label("Name")).to_have_accessible_description("Enter the patient's name.")
    expect(page.get_by_label("Age")).to_have_accessible_description("Enter a whole number from 0 to 130.")


def test_everything_works_by_keyboard(visit):
    page = visit("tenant-2")
    page.get_by_role("tab", name="Hospitals").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Patients")).to_be_focused()
    expect(patients(page)).to_be_visible()
    button = page.get_by_role("button", name="Add Patient", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.press("Escape")
    expect(button).to_be_focused()


def test_without_motion_the_list_is_refreshed_all_the_same(visit):
    page = visit("tenant-2", reduced_motion="reduce")
    assert page.evaluate("document.getAnimations().length") == 0
    add_patient(page, "Calm Patient")
    expect(patients(page).get_by_text("Calm Patient")).to_be_visible()


def test_the_refreshing_can_be_paused(visit):
    page = visit("tenant-2")
    page.get_by_role("button", name="Refresh patients automatically").click()
    wait_until_read(page)
    expect(page.locator("[data-loading]")).to_have_count(0)  # what was asked for before the pause is there
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.evaluate("new Promise((done) => setTimeout(done, 4000))")  # longer than a turn, by the page's own clock
    assert requests == []


def test_a_server_that_does_not_answer_is_said_so_and_can_be_asked_again(visit):
    page = visit("tenant-1", complain=False)
    page.route("**/api/**", lambda route: route.abort())
    page.reload()
    expect(page.get_by_text("The hospitals could not be loaded")).to_be_visible()
    page.unroute("**/api/**")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".tile:not(.skeleton)").first).to_be_visible()


@pytest.mark.parametrize("tab", ["Hospitals", "Patients"])
def test_a_phone_shows_no_horizontal_overflow(visit, tab):
    page = visit("tenant-1", NARROW)
    wait_until_read(page)
    page.get_by_role("tab", name=tab).click()
    assert overflow(page) == 0
    page.get_by_role("button", name="Add Patient", exact=True).click()
    assert overflow(page) == 0


def overflow(page: Page) -> int:
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["wide", "narrow"])
def test_every_text_has_the_contrast_of_wcag_aa_in_every_accent(visit, viewport):
    page = visit("tenant-1", viewport, reduced_motion="reduce")
    wait_until_read(page)
    faults = page.evaluate(CONTRAST)
    page.get_by_role("tab", name="Patients").click()
    page.get_by_role("button", name="Add Patient", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Add patient").click()
    faults += page.evaluate(CONTRAST)
    assert faults == []


def test_everything_comes_from_the_site_itself(visit, demo):
    page = visit("tenant-1")
    page.wait_for_load_state("networkidle")
    urls = page.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert urls
    assert all(re.match(re.escape(demo.url("tenant-1")), url) for url in urls)
