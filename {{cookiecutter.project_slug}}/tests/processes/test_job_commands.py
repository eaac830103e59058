"""The commands `app jobs`."""

import asyncio
import uuid

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import open_database
from app.jobs.definition import Job
from app.jobs.models import JOBS
from conftest import settings_for
from processes import Finished, environment, run
from stored_jobs import store, stored


async def nothing(_session: AsyncSession, *, word: str) -> None: ...


JOB = Job("_test.job", nothing, 5, 1)


async def jobs(database_url: str, *arguments: str) -> Finished:
    env = environment(database_url)
    return await asyncio.to_thread(run, ["app", "jobs", *arguments], env)


async def test_jobs_are_listed_shown_retried_and_canceled(migrated_database: str) -> None:
    async with open_database(settings_for(migrated_database)) as database:
        first = await store(database, JOB, word="a")
        second = await store(database, JOB, key="k", word="b")
        async with database.session() as session:
            failed = update(JOBS).where(JOBS.c.id == first).values(status="failed", attempts=8)
            await session.execute(failed)

        listed = await jobs(migrated_database, "list")
        assert [line.split()[:2] for line in listed.stdout.splitlines()] == [
            [str(second), "queued"],
            [str(first), "failed"],
        ]
        for option in (["--status", "failed"], ["--name", "_test.job", "--limit", "1"]):
            assert len((await jobs(migrated_database, "list", *option)).stdout.splitlines()) == 1
        assert (await jobs(migrated_database, "list", "--name", "_test.other")).stdout == ""

        shown = await jobs(migrated_database, "show", str(second))
        fields = dict(
            line.split(maxsplit=1) for line in shown.stdout.splitlines() if " " in line.strip()
        )
        assert fields["key"] == "k"
        assert fields["arguments"] == "{'word': 'b'}"

        retried = await jobs(migrated_database, "retry", str(first), str(second))
        assert retried.returncode == 1
        assert retried.stdout.splitlines() == [
            f"{first}  queued",
            f"{second}  not queued: it is not failed or canceled, or does not exist",
        ]
        row = await stored(database, first)
        assert (row["status"], row["attempts"]) == ("queued", 0)

        canceled = await jobs(migrated_database, "cancel", str(second))
        assert (canceled.returncode, canceled.stdout) == (0, f"{second}  canceled\n")
        again = await jobs(migrated_database, "cancel", str(second))
        assert (again.returncode, again.stdout) == (
            1,
            f"{second}  not canceled: it has ended, or does not exist\n",
        )


async def test_unknown_job_is_reported(database_url: str) -> None:
    job_id = uuid.uuid4()
    result = await jobs(database_url, "show", str(job_id))
    assert result.returncode == 1
    assert result.stderr == f"Error: no job has the id {job_id}: app jobs list\n"
