import pytest
from sqlalchemy import insert, select, text

from app.db.session import open_database
from app.jobs.cleanup import delete_finished_jobs
from app.jobs.models import FinishedJob
from app.settings import Settings
from sql import fetch


async def test_cleanup_deletes_old_records_and_keeps_recent_ones(
    settings: Settings, clean_tables: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clean_tables is None
    monkeypatch.setattr("app.jobs.cleanup.BATCH_SIZE", 2)
    async with open_database(settings) as database:
        async with database.session() as session:
            for key, days in (("a", 8), ("b", 80), ("c", 9), ("d", 7.1), ("e", 8), ("new", 6)):
                age = text(f"now() - interval '{days} days'")
                row = insert(FinishedJob).values(key=key, job="x", finished_at=age)
                await session.execute(row)
        assert await delete_finished_jobs.run(database) == 5
        rows = await fetch(database, select(FinishedJob.key))
    assert [row.key for row in rows] == ["new"]
