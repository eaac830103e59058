"""With accounts, the owner of a job and administrators can read it."""

import uuid

from httpx import AsyncClient
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import open_database
from app.jobs.definition import Job
from app.settings import Settings
from authentication import issue_administrator_token, issue_token
from conftest import is_problem
from stored_jobs import store


async def run(_session: AsyncSession) -> None: ...


JOB = Job("_test.job", run, 5, 1)


async def test_job_is_read_only_by_its_owner(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    (owner_id, token), (_, other_token) = issue_token(settings), issue_token(settings)
    async with open_database(settings) as database:
        owned, unowned = (
            await store(database, JOB, owner_id=owner_id),
            await store(database, JOB),
        )
    path = f"/jobs/{owned}"
    assert is_problem(await anonymous_client.get(path), 401, "token-required")
    for sent, location, status in (
        (token, path, 200),
        (other_token, path, 404),
        (token, f"/jobs/{unowned}", 404),
    ):
        headers = {"Authorization": f"Bearer {sent}"}
        response = await anonymous_client.get(location, headers=headers)
        assert response.status_code == status


async def test_sender_with_the_permission_reads_every_job(
    anonymous_client: AsyncClient, settings: Settings
) -> None:
    async with open_database(settings) as database:
        owned, unowned = (
            await store(database, JOB, owner_id=uuid.uuid4()),
            await store(database, JOB),
        )
    headers = {"Authorization": f"Bearer {issue_administrator_token(settings)}"}
    for job_id in (owned, unowned):
        response = await anonymous_client.get(f"/jobs/{job_id}", headers=headers)
        assert response.status_code == 200
    missing = await anonymous_client.get(f"/jobs/{uuid.uuid4()}", headers=headers)
    assert is_problem(missing, 404, "job-not-found")
