"""The jobs of an account are exported and deleted with it."""

import uuid
from collections.abc import AsyncIterator

import pytest
from httpx import AsyncClient

from app.db.session import Database, open_database
from app.jobs.personal_data import delete_personal_data, export_personal_data
from app.settings import Settings
from stored_jobs import job_of, store


async def stub(_session: object, *, word: str) -> None:
    """Has one argument."""


JOB = job_of(stub)


@pytest.fixture
async def database(settings: Settings, clean_tables: None) -> AsyncIterator[Database]:
    assert clean_tables is None
    async with open_database(settings) as database:
        yield database


async def exported(database: Database, account_id: uuid.UUID) -> list[object]:
    async with database.read_connection() as connection:
        return [job["arguments"] for job in await export_personal_data(connection, account_id)]


async def test_jobs_of_an_account_are_exported_and_deleted(database: Database) -> None:
    own, other = uuid.uuid4(), uuid.uuid4()
    for owner, word in ((own, "a"), (other, "b"), (own, "c")):
        await store(database, JOB, owner_id=owner, word=word)
    assert await exported(database, own) == [{"word": "a"}, {"word": "c"}]
    async with database.session() as session:
        await delete_personal_data(session, own)
    assert await exported(database, own) == []
    assert await exported(database, other) == [{"word": "b"}]


async def test_jobs_belong_to_the_data_of_an_account(
    anonymous_client: AsyncClient, database: Database
) -> None:
    account = {"email": "grace@navy.example", "password": "a nanosecond is 30 cm"}
    registered = (await anonymous_client.post("/accounts", json=account)).json()
    form = {"username": account["email"], "password": account["password"]}
    tokens = (await anonymous_client.post("/accounts/login", data=form)).json()
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    owner = uuid.UUID(registered["id"])
    await store(database, JOB, owner_id=owner, word="a")
    response = await anonymous_client.get("/accounts/me/export", headers=headers)
    assert [job["arguments"] for job in response.json()["jobs"]] == [{"word": "a"}]
    sent = {"current_password": account["password"]}
    deleted = await anonymous_client.post("/accounts/me/deletion", json=sent, headers=headers)
    assert deleted.status_code == 204
    assert await exported(database, owner) == []
