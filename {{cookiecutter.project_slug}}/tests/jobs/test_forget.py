import pytest
from sqlalchemy import insert, select, text

from app.db.database import open_database
from app.jobs.cleanup import delete_finished_jobs
from app.jobs.models import FinishedJobModel as Row
from app.settings import Settings


async def test_every_old_note_is_forgotten_and_no_other(
    settings: Settings, clean_tables: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clean_tables is None
    monkeypatch.setattr("app.jobs.cleanup.MOST_AT_ONCE", 2)
    async with open_database(settings) as database:
        async with database.transaction() as transaction:
            for key, days in (("a", 8), ("b", 80), ("c", 9), ("d", 7.1), ("e", 8), ("new", 6)):
                age = text(f"now() - interval '{days} days'")
                row = insert(Row).values(key=key, job="x", finished_at=age)
                await transaction.connection.execute(row)
        assert await delete_finished_jobs.run(database) == 5
        rows = await database.fetch(select(Row.key))
    assert [row.key for row in rows] == ["new"]
