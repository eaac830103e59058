"""Guesses are limited in PostgreSQL, and the owner of an account is never locked out for good."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from ipaddress import IPv6Address
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient, Response
from sqlalchemy import func, select, text, update

from app.db.session import open_database
from app.errors import Unavailable
from app.features.accounts import attempts
from app.features.accounts.attempts import ACCOUNT, CLIENT, MAIL, PASSWORD, RESET, Subject
from app.features.accounts.errors import TooManyAttempts
from app.features.accounts.models import Attempt
from app.features.accounts.passwords import Passwords
from app.main import create_app
from app.settings import Settings
from conftest import is_problem, running, settings_for
from counting_proxy import open_counting_proxy
from sent_mails import send_due_mails, token_of

EMAIL, PASSWORD_TEXT = "grace@navy.example", "a nanosecond is 30 cm"
NEW_PASSWORD = "a microsecond is 300 m"
ACCOUNT_OF_GRACE = {"email": EMAIL, "password": PASSWORD_TEXT}


@pytest.fixture
def fast_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare passwords without hashing them."""

    async def hash_(_self: Passwords, password: str) -> str:
        return password

    async def verify(_self: Passwords, sent: str, stored: str | None) -> tuple[bool, None]:
        return sent == stored, None

    monkeypatch.setattr(Passwords, "hash", hash_)
    monkeypatch.setattr(Passwords, "verify", verify)


def transport_of(client: AsyncClient, address: str) -> ASGITransport:
    transport = client._transport  # noqa: SLF001 - httpx offers no public access
    assert isinstance(transport, ASGITransport)
    return ASGITransport(transport.app, client=(address, 1))


@asynccontextmanager
async def client_at(client: AsyncClient, address: str) -> AsyncIterator[AsyncClient]:
    """Yield a client of the same service with another IP address."""
    async with AsyncClient(
        transport=transport_of(client, address), base_url=client.base_url
    ) as other:
        yield other


async def log_in(
    client: AsyncClient, password: str = PASSWORD_TEXT, email: str = EMAIL
) -> Response:
    """Log in from an address of its own."""
    async with client_at(client, str(IPv6Address(uuid.uuid4().int))) as other:
        form = {"username": email, "password": password}
        return await other.post("/accounts/login", data=form)


async def fill(settings: Settings, subject: Subject) -> None:
    """Use every attempt of a subject."""
    async with open_database(settings) as database, database.read_connection() as connection:
        for _ in range(subject.limit.burst):
            await attempts.count(connection, subject)


async def pass_time(settings: Settings, time: timedelta) -> None:
    async with open_database(settings) as database, database.session() as session:
        await session.execute(update(Attempt).values(ends_at=Attempt.ends_at - time))


async def number_of_rows(settings: Settings) -> int:
    async with open_database(settings) as database, database.read_session() as session:
        return await session.scalar(select(func.count()).select_from(Attempt)) or 0


def is_refused(response: Response, limit: attempts.Limit) -> bool:
    is_429 = is_problem(response, 429, "too-many-attempts")
    assert 0 < int(response.headers["Retry-After"]) <= limit.interval.total_seconds()
    return is_429


@pytest.mark.usefixtures("fast_passwords")
@pytest.mark.parametrize(("is_registered", "guesses"), [(True, 600), (False, 20)])
async def test_guesses_from_many_addresses_check_ten_passwords(
    anonymous_client: AsyncClient, *, is_registered: bool, guesses: int
) -> None:
    if is_registered:
        await anonymous_client.post("/accounts", json=ACCOUNT_OF_GRACE)
    responses = [await log_in(anonymous_client, f"guess {number}") for number in range(guesses)]
    assert [response.status_code for response in responses] == [401] * 10 + [429] * (guesses - 10)
    assert all(is_refused(response, ACCOUNT) for response in responses[10:])
    assert is_refused(await log_in(anonymous_client), ACCOUNT), "also for the right password"
    other = await log_in(anonymous_client, email="ada@engine.example")
    assert other.status_code == 401, "other accounts are not limited"


@pytest.mark.usefixtures("fast_passwords")
async def test_parallel_guesses_do_not_exceed_the_limit(anonymous_client: AsyncClient) -> None:
    await anonymous_client.post("/accounts", json=ACCOUNT_OF_GRACE)
    responses = await asyncio.gather(*(log_in(anonymous_client, "guess") for _ in range(60)))
    assert sorted(response.status_code for response in responses) == [401] * 10 + [429] * 50


@pytest.mark.usefixtures("fast_passwords")
async def test_parallel_logins_from_one_address_do_not_wait_for_each_other(
    anonymous_client: AsyncClient,
) -> None:
    emails = [f"{number}@navy.example" for number in range(8)]
    async with client_at(anonymous_client, "unix socket") as client:
        for email in emails:
            await anonymous_client.post("/accounts", json=ACCOUNT_OF_GRACE | {"email": email})
        forms = [{"username": email, "password": PASSWORD_TEXT} for email in emails]
        responses = await asyncio.gather(
            *(client.post("/accounts/login", data=form) for form in forms)
        )
    assert {response.status_code for response in responses} == {200}


@pytest.mark.usefixtures("fast_passwords")
async def test_owner_logs_in_after_one_interval(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    await anonymous_client.post("/accounts", json=ACCOUNT_OF_GRACE)
    await fill(settings, ACCOUNT.of(EMAIL))
    assert is_refused(await log_in(anonymous_client), ACCOUNT)
    await pass_time(settings, ACCOUNT.interval)
    assert (await log_in(anonymous_client)).status_code == 200
    responses = [await log_in(anonymous_client, "guess") for _ in range(10)]
    assert {response.status_code for response in responses} == {401}, "a log-in deletes failures"


@pytest.mark.usefixtures("fast_passwords")
async def test_session_continues_while_guesses_are_refused(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    await anonymous_client.post("/accounts", json=ACCOUNT_OF_GRACE)
    tokens = (await log_in(anonymous_client)).json()
    await fill(settings, ACCOUNT.of(EMAIL))
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    assert (await anonymous_client.post("/accounts/login", data=form)).status_code == 200


@pytest.mark.usefixtures("fast_passwords")
async def test_new_password_ends_the_wait_of_the_owner(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    await anonymous_client.post("/accounts", json=ACCOUNT_OF_GRACE)
    await send_due_mails(settings)
    await fill(settings, ACCOUNT.of(EMAIL))
    await anonymous_client.post("/accounts/password/forgotten", json={"email": EMAIL})
    (mail,) = await send_due_mails(settings)
    reset = {"token": token_of(mail, "reset-password"), "password": NEW_PASSWORD}
    assert (await anonymous_client.post("/accounts/password/reset", json=reset)).status_code == 204
    assert (await log_in(anonymous_client, NEW_PASSWORD)).status_code == 200


LIMITED: dict[str, dict[str, Any]] = {
    "/accounts": {"json": {"email": "ada@engine.example", "password": PASSWORD_TEXT}},
    "/accounts/login": {"data": {"username": EMAIL, "password": PASSWORD_TEXT}},
    "/accounts/verification": {},
    "/accounts/verification/confirm": {"json": {"token": "guess"}},
    "/accounts/password/forgotten": {"json": {"email": EMAIL}},
    "/accounts/password/reset": {"json": {"token": "guess", "password": NEW_PASSWORD}},
    "/accounts/email/confirm": {"json": {"token": "guess"}},
    "/accounts/me/password": {
        "json": {"current_password": PASSWORD_TEXT, "new_password": NEW_PASSWORD}
    },
    "/accounts/me/email": {
        "json": {"current_password": PASSWORD_TEXT, "email": "hopper@navy.example"}
    },
    "/accounts/me/deletion": {"json": {"current_password": PASSWORD_TEXT}},
}


@pytest.mark.usefixtures("fast_passwords")
@pytest.mark.parametrize("path", LIMITED)
async def test_client_without_an_attempt_left_is_refused(
    anonymous_client: AsyncClient, settings: Settings, path: str
) -> None:
    await anonymous_client.post("/accounts", json=ACCOUNT_OF_GRACE)
    tokens = (await log_in(anonymous_client)).json()
    await fill(settings, CLIENT.of("192.0.2.1"))
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    async with client_at(anonymous_client, "192.0.2.1") as client:
        refused = await client.post(path, headers=bearer, **LIMITED[path])
    assert is_refused(refused, CLIENT)
    async with client_at(anonymous_client, "192.0.2.2") as client:
        other = await client.post(path, headers=bearer, **LIMITED[path])
    assert other.status_code != 429, "other clients are not limited"


@pytest.mark.usefixtures("fast_passwords")
async def test_success_gives_the_attempt_back_to_the_client(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    await anonymous_client.post("/accounts", json=ACCOUNT_OF_GRACE)
    before = await number_of_rows(settings)
    tokens = (await log_in(anonymous_client)).json()
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    change = {"current_password": PASSWORD_TEXT, "new_password": NEW_PASSWORD}
    async with client_at(anonymous_client, "192.0.2.1") as client:
        assert (
            await client.post("/accounts/me/password", json=change, headers=bearer)
        ).status_code == 200
    async with client_at(anonymous_client, "192.0.2.1") as client:
        form = {"username": EMAIL, "password": NEW_PASSWORD}
        assert (await client.post("/accounts/login", data=form)).status_code == 200
    async with open_database(settings) as database, database.read_session() as session:
        left = select(Attempt).where(Attempt.digest == CLIENT.of("192.0.2.1").digest)
        row = (await session.scalars(left)).one_or_none()
        now = (await session.scalars(select(func.now()))).one()
    assert row is None or row.ends_at <= now
    await log_in(anonymous_client, NEW_PASSWORD)
    assert await number_of_rows(settings) <= before + 2, "rows without an effect are deleted"


@pytest.mark.usefixtures("fast_passwords")
async def test_outage_after_a_change_does_not_withhold_its_response(
    anonymous_client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await anonymous_client.post("/accounts", json=ACCOUNT_OF_GRACE)
    tokens = (await log_in(anonymous_client)).json()
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}

    async def fail(*_: object) -> None:
        raise Unavailable("an outage")

    monkeypatch.setattr(attempts, "refund", fail)
    change = {"current_password": PASSWORD_TEXT, "new_password": NEW_PASSWORD}
    changed = await anonymous_client.post("/accounts/me/password", json=change, headers=bearer)
    assert changed.status_code == 200
    assert "refresh_token" in changed.json()


@pytest.mark.usefixtures("fast_passwords")
async def test_guesses_of_the_current_password_are_limited(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    await anonymous_client.post("/accounts", json=ACCOUNT_OF_GRACE)
    tokens = (await log_in(anonymous_client)).json()
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}

    async def delete(password: str) -> Response:
        async with client_at(anonymous_client, str(IPv6Address(uuid.uuid4().int))) as client:
            sent = {"current_password": password}
            return await client.post("/accounts/me/deletion", json=sent, headers=bearer)

    responses = [await delete("guess") for _ in range(12)]
    assert [response.status_code for response in responses] == [422] * 10 + [429] * 2
    assert is_refused(await delete(PASSWORD_TEXT), PASSWORD)
    await pass_time(settings, PASSWORD.interval)
    assert (await delete(PASSWORD_TEXT)).status_code == 204


@pytest.mark.usefixtures("fast_passwords")
@pytest.mark.parametrize(
    ("path", "limit"), [("/accounts/password/forgotten", RESET), ("/accounts/verification", MAIL)]
)
async def test_mails_to_one_address_are_limited(
    anonymous_client: AsyncClient, settings: Settings, path: str, limit: attempts.Limit
) -> None:
    await anonymous_client.post("/accounts", json=ACCOUNT_OF_GRACE)
    tokens = (await log_in(anonymous_client)).json()
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    sent: dict[str, Any] = {"json": {"email": EMAIL}} if "forgotten" in path else {}

    async def ask() -> Response:
        async with client_at(anonymous_client, str(IPv6Address(uuid.uuid4().int))) as client:
            return await client.post(path, headers=bearer, **sent)

    accepted = limit.burst - (limit is MAIL)  # the registration has mailed a link, too
    responses = [await ask() for _ in range(6)]
    statuses = [response.status_code for response in responses]
    assert statuses == [202] * accepted + [429] * (6 - accepted)
    assert all(is_refused(response, limit) for response in responses[accepted:])
    assert len(await send_due_mails(settings)) == accepted + 1


@pytest.mark.usefixtures("fast_passwords")
async def test_other_mails_to_an_address_do_not_delay_a_new_password(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    await fill(settings, MAIL.of(EMAIL))
    sent = {"email": EMAIL}
    assert (await anonymous_client.post("/accounts/password/forgotten", json=sent)).is_success


@pytest.mark.usefixtures("fast_passwords")
async def test_mails_of_one_client_to_new_addresses_are_limited(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    await anonymous_client.post("/accounts", json=ACCOUNT_OF_GRACE)
    tokens = (await log_in(anonymous_client)).json()
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    change = {"current_password": PASSWORD_TEXT, "email": "hopper@navy.example"}
    async with client_at(anonymous_client, "192.0.2.1") as client:
        sent = await client.post("/accounts/me/email", json=change, headers=bearer)
    assert sent.status_code == 202
    async with open_database(settings) as database, database.read_session() as session:
        left = select(Attempt.digest).where(Attempt.digest == CLIENT.of("192.0.2.1").digest)
        assert await session.scalar(left.where(Attempt.ends_at > func.now())) is not None


async def test_table_stores_no_address(anonymous_client: AsyncClient, settings: Settings) -> None:
    async with client_at(anonymous_client, "192.0.2.1") as client:
        await client.post("/accounts/login", data={"username": EMAIL, "password": "guess"})
    async with open_database(settings) as database, database.read_session() as session:
        rows = (await session.execute(text("SELECT attempts::text FROM attempts"))).scalars().all()
    assert len(rows) == 2
    for row in rows:
        for value in (b"192.0.2.1", EMAIL.encode()):
            assert value.hex() not in row


@pytest.mark.parametrize("limit", [CLIENT, MAIL, PASSWORD, RESET], ids=lambda limit: limit.name)
async def test_burst_passes_then_one_attempt_in_each_interval(
    settings: Settings, clean_tables: None, limit: attempts.Limit
) -> None:
    del clean_tables
    subject = limit.of("_test")
    await fill(settings, subject)
    async with open_database(settings) as database, database.read_connection() as connection:
        with pytest.raises(TooManyAttempts) as refused:
            await attempts.count(connection, subject)
        interval = limit.interval.total_seconds()
        assert 0 < refused.value.retry_after_seconds <= interval
        await pass_time(settings, limit.interval)
        await attempts.count(connection, subject)
        with pytest.raises(TooManyAttempts):
            await attempts.count(connection, subject)


@pytest.mark.usefixtures("fast_passwords")
async def test_login_takes_one_round_trip_more_than_without_limits(
    database_url: str, clean_tables: None
) -> None:
    """One finds the account. The transaction has five: begin, attempts, two, and commit."""
    del clean_tables
    async with (
        open_counting_proxy(database_url) as (proxy, url),
        running(create_app(settings_for(url))) as client,
    ):
        await client.post("/accounts", json=ACCOUNT_OF_GRACE)
        form = {"username": EMAIL, "password": PASSWORD_TEXT}
        for expected, password in ((6, PASSWORD_TEXT), (1, "guess")):
            for _ in range(2):  # the first also prepares the statements
                proxy.round_trips = 0
                await client.post("/accounts/login", data=form | {"password": password})
            assert proxy.round_trips == expected


async def test_50_logins_hash_two_passwords_at_once_and_leave_the_service_responsive(
    anonymous_client: AsyncClient,
) -> None:
    logins = [
        asyncio.create_task(log_in(anonymous_client, "guess", f"{number}@navy.example"))
        for number in range(50)
    ]
    responses = 0
    while not all(login.done() for login in logins):
        assert (await anonymous_client.get("/health/live")).status_code == 200
        responses += 1
        await asyncio.sleep(0)  # without a server, the request waits for nothing
    statuses = {login.result().status_code for login in logins}
    assert statuses <= {401, 503}
    assert responses > len(logins), "health checks do not wait for passwords"
