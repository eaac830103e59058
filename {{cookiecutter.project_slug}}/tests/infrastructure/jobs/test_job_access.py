"""With accounts, only the owner of a job can read it."""

import uuid

from httpx import AsyncClient
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.tokens import AccessTokens
from app.db.session import open_database
from app.jobs.definition import Job
from app.settings import Settings
from conftest import is_problem
from stored_jobs import store


async def run(_session: AsyncSession) -> None: ...


JOB = Job("_test.job", run, 5, 1)


async def test_job_is_read_only_by_its_owner(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    owner, other = uuid.uuid4(), uuid.uuid4()
    tokens = AccessTokens(settings)
    async with open_database(settings) as database:
        owned, unowned = (
            await store(database, JOB, owner_id=owner),
            await store(database, JOB),
        )
    path = f"/jobs/{owned}"
    assert is_problem(await anonymous_client.get(path), 401, "token-required")
    for account, location, status in (
        (owner, path, 200),
        (other, path, 404),
        (owner, f"/jobs/{unowned}", 404),
    ):
        headers = {"Authorization": f"Bearer {tokens.issue(account)}"}
        response = await anonymous_client.get(location, headers=headers)
        assert response.status_code == status
