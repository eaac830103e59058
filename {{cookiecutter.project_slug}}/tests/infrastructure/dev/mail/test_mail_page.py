"""The page of caught mails, and the stand-in for the frontend."""

from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path

import pytest
from fastapi.routing import iter_route_contexts
from httpx import ASGITransport, AsyncClient, Response

from app.dev.mail.folder import keep_mail
from app.dev.mail.page import ACTIONS, create_page
from app.features.accounts.routes import router
from processes import Receiver

LINK = "http://localhost:8025/account#action=verify-email&token=a_b-c"
ATTACK = "<script>alert(1)</script>"


@pytest.fixture
async def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncClient]:
    monkeypatch.chdir(tmp_path)
    async with client_of("http://127.0.0.1:1") as client:
        yield client


def client_of(service_url: str, host: str = "localhost:8025") -> AsyncClient:
    transport = ASGITransport(create_page(service_url))
    return AsyncClient(transport=transport, base_url=f"http://{host}")


def keep(*, html: str | None = f"<a href='{LINK}'>Confirm</a>{ATTACK}") -> str:
    message = EmailMessage()
    message["To"], message["Subject"] = "grace@navy.example", ATTACK
    message.set_content(f"{ATTACK}\n{LINK}\n")
    if html:
        message.add_alternative(html, subtype="html")
    return keep_mail(message.as_bytes()).id


def policy_of(response: Response) -> dict[str, str]:
    """Return the content security policy: the sources by directive."""
    policy = response.headers["Content-Security-Policy"].split("; ")
    return {name: sources for name, _, sources in (d.partition(" ") for d in policy)}


async def test_list_has_the_newest_mail_first(page: AsyncClient) -> None:
    assert "No mail yet" in (await page.get("/")).text
    first, second = keep(), keep()
    text = (await page.get("/")).text
    assert text.index(f"/mails/{second}") < text.index(f"/mails/{first}")


async def test_text_of_a_mail_is_escaped_and_its_links_are_clickable(page: AsyncClient) -> None:
    response = await page.get(f"/mails/{keep()}")
    assert ATTACK not in response.text
    link = LINK.replace("&", "&amp;")
    assert f'<a href="{link}" rel="noopener" target="_blank">{link}</a>' in response.text
    policy = policy_of(response)
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["frame-src"] == policy["form-action"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"


async def test_html_of_a_mail_is_sandboxed(page: AsyncClient) -> None:
    mail_id = keep()
    frame = (await page.get(f"/mails/{mail_id}")).text.partition("<iframe")[2]
    tokens = "allow-popups allow-popups-to-escape-sandbox"  # neither scripts nor an origin
    assert f'src="/mails/{mail_id}/html" sandbox="{tokens}">' in frame
    policy = policy_of(await page.get(f"/mails/{mail_id}/html"))
    assert policy["sandbox"] == tokens
    assert policy["default-src"] == policy["form-action"] == "'none'"
    assert "script-src" not in policy


async def test_mail_without_html_has_no_frame(page: AsyncClient) -> None:
    assert "<iframe" not in (await page.get(f"/mails/{keep(html=None)}")).text


@pytest.mark.parametrize("path", ["unknown", "..%2f..%2fpyproject", "unknown/html", "%2e%2e/html"])
async def test_unknown_mail_is_not_found(page: AsyncClient, path: str) -> None:
    keep()
    assert (await page.get(f"/mails/{path}")).status_code == 404


async def test_site_with_another_name_cannot_read_mails() -> None:
    async with client_of("http://127.0.0.1:1", "attacker.example:8025") as client:
        assert (await client.get("/")).status_code == 400


async def test_link_sends_its_token_to_the_service(page: AsyncClient) -> None:
    assert (await page.get("/account")).text.count("<form") == len(ACTIONS)
    assert "location.hash" in (await page.get("/account.js")).text
    with Receiver() as receiver:
        async with client_of(f"http://{receiver.address}") as client:
            values = {"token": "a_b-c", "password": "a nanosecond is 30 cm"}
            response = await client.post("/account/reset-password", data=values)
    (received,) = receiver.received
    assert received.path == "/accounts/password/reset"
    assert received.body == b'{"token":"a_b-c","password":"a nanosecond is 30 cm"}'
    assert "POST /accounts/password/reset: 200 OK" in response.text


def test_actions_of_links_send_requests_of_the_service() -> None:
    paths = {route.path for route in iter_route_contexts(router.routes)}
    assert {path for _, path in ACTIONS.values()} <= paths


async def test_unknown_action_is_not_found(page: AsyncClient) -> None:
    assert (await page.post("/account/delete", data={"token": "a"})).status_code == 404


async def test_service_that_is_down_is_named(page: AsyncClient) -> None:
    response = await page.post("/account/verify-email", data={"token": "a"})
    assert "http://127.0.0.1:1: " in response.text
