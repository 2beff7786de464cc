import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.demo.running import START_SECONDS, WAIT_SECONDS, Demo
from tests.services import require

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A folder outside pytest's own.

    Every pytest that starts closes its common parent to other users, and where the tests run
    as root PostgreSQL is another user.
    """
    with tempfile.TemporaryDirectory(prefix="mt-demo-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def folder() -> Iterator[Path]:
    with _private_folder() as path:
        yield path


@contextmanager
def started(*options: str) -> Iterator[Demo]:
    """A demo with ``options`` of its command, until the end of the block."""
    with _private_folder() as path:
        running = Demo(path / "state", *options)
        try:
            yield running.wait_until_ready()
        finally:
            running.stop()


@pytest.fixture(scope="session")
def demo() -> Iterator[Demo]:
    """One demo for all tests that leave it running; they use names of their own."""
    with started() as running:
        yield running


@pytest.fixture(scope="session")
def chromium() -> str:
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    require(found, "no Chromium: set CHROMIUM or install one of " + ", ".join(CHROMIUM_NAMES))
    return found


@pytest.fixture(
    scope="module"
)  # Playwright keeps an event loop running in this thread, which Django refuses to work in
def browser(chromium):
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=WAIT_SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=CHROMIUM_ARGUMENTS, timeout=START_SECONDS * 1000
        )
        yield browser
        browser.close()
