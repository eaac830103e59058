from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text

from app.db.session import open_database
from app.jobs.cleanup import delete_old_jobs
from app.jobs.models import JOBS, WORKERS
from app.settings import Settings
from sql import fetch

AGES = {  # days since the end of the job, by status
    "succeeded": (6.9, 7.1, 80),
    "canceled": (6.9, 7.1),
    "failed": (7.1, 29, 31),
    "queued": (None,),
}


async def test_cleanup_deletes_old_jobs_and_keeps_failed_ones_longer(
    settings: Settings, clean_tables: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clean_tables is None
    monkeypatch.setattr("app.jobs.cleanup.BATCH_SIZE", 2)
    jobs: list[dict[str, Any]] = [
        {
            "name": f"{status} {days}",
            "status": status,
            "arguments": {},
            "finished_at": None if days is None else func.now() - timedelta(days=days),
        }
        for status, ages in AGES.items()
        for days in ages
    ]
    async with open_database(settings) as database:
        async with database.session() as session:
            for values in jobs:
                await session.execute(insert(JOBS).values(values))
            for host, minutes in (("gone", 61), ("alive", 1)):
                beat = text(f"now() - interval '{minutes} minutes'")
                row = {"id": func.gen_random_uuid(), "host": host, "concurrency": 1}
                await session.execute(insert(WORKERS).values(**row, beat_at=beat))
        assert await delete_old_jobs.run(database) == 4
        kept = {row["name"] for row in await fetch(database, select(JOBS.c.name))}
        hosts = [row["host"] for row in await fetch(database, select(WORKERS.c.host))]
    assert kept == {"succeeded 6.9", "canceled 6.9", "failed 7.1", "failed 29", "queued None"}
    assert hosts == ["alive"]
