"""Debian's Chromium, driven by Playwright. Playwright's own browsers are not downloaded."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import BrowserContext, expect, sync_playwright

# Debian, the runners of GitHub Actions, and others.
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = [
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

HANG_MILLISECONDS = 120_000  # only bounds a wait that never ends

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and os.environ.get("CI") != "true",
    reason="needs Debian's package chromium, or Chrome; CI fails without it",
)


@contextmanager
def open_browser() -> Iterator[BrowserContext]:
    """Open a browser with an empty profile."""
    assert CHROMIUM is not None, "install Debian's package chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        expect.set_options(timeout=HANG_MILLISECONDS)
        try:
            context = browser.new_context()
            context.set_default_timeout(HANG_MILLISECONDS)
            yield context
        finally:
            browser.close()
