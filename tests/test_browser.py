"""A person uses the accounts of a baked service in a browser."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import needs_chromium, open_browser
from conftest import Bake
from node import needs_npx, unpack
from playwright.sync_api import BrowserContext, Locator, Page, Route, expect
from test_first_minutes import environment, page_of_mails, processes_of, serving

pytestmark = [pytest.mark.slow, pytest.mark.posix, needs_chromium, needs_npx]

CDN = "https://cdn.jsdelivr.net/npm/swagger-ui-dist@5/"  # /docs loads its files from there
SWAGGER_UI = "swagger-ui-dist@5.35.0"  # the same files
EMAIL = "grace@navy.example"
PASSWORD = "a nanosecond is 30 cm"
NEW_PASSWORD = "a microsecond is 300 m"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[BrowserContext]:
    """Open a browser that reaches this machine only. The test serves the files of the CDN."""
    files = unpack(SWAGGER_UI, tmp_path)

    def answer(route: Route) -> None:
        url = route.request.url
        if url.startswith("http://localhost:"):
            route.continue_()
        elif url.startswith(CDN):
            route.fulfill(path=files / Path(url).name)
        else:
            route.abort()

    with open_browser() as context:
        context.route("**/*", answer)
        yield context


def test_person_registers_confirms_logs_in_and_replaces_a_password(
    bake: Bake, browser: BrowserContext, tmp_path: Path
) -> None:
    project = bake(lock=True, auth="accounts").copy_to(tmp_path / "project")
    uv_run = ["uv", "run", "--quiet", "--no-python-downloads", "--python", sys.executable]
    refused: list[str] = []  # by the policy of a page
    browser.on("console", lambda m: refused.append(m.text) if "Content Security" in m.text else 0)
    env = environment(tmp_path)
    with serving([*uv_run, "app", "dev"], project, env) as url:
        mails = page_of_mails(env)
        docs = browser.new_page()
        docs.goto(f"{url}/docs")

        account = f'{{"email": "{EMAIL}", "password": "{PASSWORD}"}}'
        assert try_out(docs, "POST", "/accounts", account)[0] == "201"
        mail = open_mail(browser, mails, "Confirm your e-mail address")
        with mail.expect_popup() as opened:
            mail.frame_locator("iframe").get_by_text("Confirm the address").click()
        opened.value.get_by_role("button", name="Confirm the address").click()
        expect(opened.value.locator("pre")).to_contain_text("204")

        docs.bring_to_front()  # Chromium slows the timers of other tabs
        log_in(docs, PASSWORD)
        status, body = try_out(docs, "GET", "/accounts/me")
        assert status == "200"
        assert EMAIL in body
        assert '"email_verified_at": null' not in body
        log_out(docs)
        assert try_out(docs, "GET", "/accounts/me")[0] == "401"

        path = "/accounts/password/forgotten"
        assert try_out(docs, "POST", path, f'{{"email": "{EMAIL}"}}')[0] == "202"
        mail = open_mail(browser, mails, "Choose a new password")
        with mail.expect_popup() as opened:
            mail.locator("pre a").click()
        opened.value.get_by_label("New password").fill(NEW_PASSWORD)
        opened.value.get_by_role("button", name="Set the password").click()
        expect(opened.value.locator("pre")).to_contain_text("204")

        docs.bring_to_front()
        log_in(docs, PASSWORD, is_refused=True)
        log_in(docs, NEW_PASSWORD)
        assert try_out(docs, "GET", "/accounts/me")[0] == "200"
    assert refused == []
    assert processes_of(project) == []


def open_mail(browser: BrowserContext, mails: str, subject: str) -> Page:
    """Wait on the page of mails until it shows a mail, and open the mail."""
    page = browser.new_page()
    page.goto(mails)
    page.get_by_role("link", name=subject).click()
    return page


def try_out(docs: Page, method: str, path: str, body: str | None = None) -> tuple[str, str]:
    """Send a request with "Try it out", and return the status and the body of the response."""
    block = docs.locator(f".opblock-{method.lower()}", has=docs.locator(f"[data-path='{path}']"))
    if block.locator(".opblock-body").count() == 0:
        block.locator(".opblock-summary-control").click()
        block.get_by_role("button", name="Try it out").click()
    else:
        block.get_by_role("button", name="Clear").click()
    if body is not None:
        block.locator("textarea").fill(body)
    block.get_by_role("button", name="Execute").click()
    response = block.locator(".live-responses-table .response")
    status = response.locator(".response-col_status").inner_text().strip()
    return status, response.inner_text()


def log_in(docs: Page, password: str, *, is_refused: bool = False) -> None:
    """Log in with the dialog "Authorize"."""
    form = open_login(docs)
    form.locator("#oauth_username").fill(EMAIL)
    form.locator("#oauth_password").fill(password)
    form.get_by_text("Authorize", exact=True).click()
    if is_refused:
        expect(form).to_contain_text("invalid_grant")
    else:
        expect(form.get_by_text("Logout", exact=True)).to_be_visible()
    form.get_by_text("Close", exact=True).click()


def log_out(docs: Page) -> None:
    form = open_login(docs)
    form.get_by_text("Logout", exact=True).click()
    form.get_by_text("Close", exact=True).click()


def open_login(docs: Page) -> Locator:
    """Return the part of the dialog that asks for the address and the password."""
    docs.locator(".btn.authorize").first.click()
    return docs.locator(".modal-ux .auth-container", has_text="OAuth2PasswordBearer")
