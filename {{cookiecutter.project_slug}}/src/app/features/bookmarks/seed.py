"""Example data: `app seed`."""

from sqlalchemy import select

from app.db.session import Database
from app.features.bookmarks.models import Bookmark

SEED = (
    ("https://www.postgresql.org/docs/current/", "The PostgreSQL manual", ["database"]),
    ("https://fastapi.tiangolo.com/", "FastAPI", ["http", "python"]),
    ("https://www.rfc-editor.org/rfc/rfc9457", "Problem Details for HTTP APIs", ["http"]),
)


async def seed(database: Database) -> int:
    """Add the bookmarks that are missing, and return their number."""
    async with database.session() as session:
        urls = [url for url, _, _ in SEED]
        present = set(await session.scalars(select(Bookmark.url).where(Bookmark.url.in_(urls))))
        missing = [
            Bookmark(url=url, title=title, tags=tags)
            for url, title, tags in SEED
            if url not in present
        ]
        session.add_all(missing)
    return len(missing)
