from sqlalchemy import insert, select, text

from app.database import open_database
from app.settings import Settings
from app.tasks.attempts import attempt
from app.tasks.definition import due_message
from app.tasks.jobs import forget_finished_jobs
from app.tasks.models import FinishedJobModel as Row


async def test_only_old_notes_are_forgotten(settings: Settings, clean_tables: None) -> None:
    assert clean_tables is None
    async with open_database(settings) as database:
        async with database.transaction() as transaction:
            for key, days in (("old", 8), ("older", 80), ("new", 6)):
                age = text(f"now() - interval '{days} days'")
                row = insert(Row).values(key=key, job="x", finished_at=age)
                await transaction.connection.execute(row)
        message = due_message(forget_finished_jobs.name)
        assert await attempt(database, forget_finished_jobs, message, 1) is None
        rows = await database.fetch(select(Row.key, Row.result))
    assert {row.key: row.result for row in rows} == {"new": None, message.key: 2}
