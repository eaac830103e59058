"""Something to look at: `app seed`."""

from app.db.database import Database
from app.features.bookmarks import service
from app.features.bookmarks.schemas import BookmarkInput

SEED = (
    ("https://www.postgresql.org/docs/current/", "The PostgreSQL manual"),
    ("https://fastapi.tiangolo.com/", "FastAPI"),
    ("https://www.rfc-editor.org/rfc/rfc9457", "Problem Details for HTTP APIs"),
)


async def seed(database: Database) -> int:
    """Add what is not there yet; how many that were."""
    added = 0
    for url, title in SEED:
        try:
            async with database.transaction() as transaction:
                new = BookmarkInput.model_validate({"url": url, "title": title})
                await service.create(transaction, new)
                added += 1
        except service.DuplicateBookmark:
            continue
    return added
