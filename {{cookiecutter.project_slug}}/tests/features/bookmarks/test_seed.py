from app.db.session import open_database
from app.features.bookmarks.seed import SEED, seed
from app.settings import Settings


async def test_second_seed_adds_nothing(settings: Settings, clean_tables: None) -> None:
    del clean_tables
    async with open_database(settings) as database:
        assert await seed(database) == len(SEED)
        assert await seed(database) == 0
