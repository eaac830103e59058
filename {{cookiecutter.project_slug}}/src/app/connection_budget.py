"""The connections of all replicas, compared with those that PostgreSQL accepts."""

from dataclasses import dataclass

from sqlalchemy import text

from app.db.session import PROBE_CONNECTIONS, Database
from app.db.url import parse_postgres_url
from app.settings import Settings

# The role of a service is not a superuser. `reserved_connections` exists since PostgreSQL 16.
AVAILABLE = text(
    "SELECT current_setting('max_connections')::int"
    " - current_setting('superuser_reserved_connections')::int"
    " - coalesce(current_setting('reserved_connections', true)::int, 0)"
)


@dataclass(frozen=True)
class ConnectionBudget:
    """The result of the comparison.

    Attributes:
        is_within_limit: PostgreSQL accepts all connections, or a pooler limits them.
        detail: the sum, and the remedy if PostgreSQL does not.
    """

    is_within_limit: bool
    detail: str


def needed_connections(settings: Settings, replicas: int) -> tuple[int, str]:
    """Return the connections that all processes may open, and the sum as a text."""
    processes = settings.web_concurrency
    size = settings.database_pool_size
    needed = replicas * processes * (size + PROBE_CONNECTIONS)
    summands = f"{replicas} replicas x {processes} x ({size} + {PROBE_CONNECTIONS})"
    workers, per_worker = settings.max_workers, settings.worker_connections  # option: worker
    needed += workers * per_worker  # option: worker
    summands += f" + {workers} workers x {per_worker}"  # option: worker
    return needed, f"{summands} = {needed}"


async def compare_connections(settings: Settings, database: Database) -> ConnectionBudget | None:
    """Compare the connections of MAX_REPLICAS with max_connections.

    Returns:
        The result, or None if MAX_REPLICAS is not set.

    Raises:
        SQLAlchemyError, OSError: the database cannot be reached.
    """
    if settings.max_replicas is None:
        return None
    if is_pooled(settings):
        return ConnectionBudget(True, "not compared: the pooler limits the connections")
    needed, total = needed_connections(settings, settings.max_replicas)
    async with database.probe() as connection:
        available = (await connection.execute(AVAILABLE)).scalar_one()
    if needed <= available:
        return ConnectionBudget(True, f"{total} of {available}")
    return ConnectionBudget(
        False,
        f"{total}, but PostgreSQL accepts {available}: lower DATABASE_POOL_SIZE or the number of "
        "replicas, raise max_connections, or add a pooler",
    )


def is_pooled(settings: Settings) -> bool:
    """Check whether DATABASE_URL goes through a transaction pooler."""
    url = settings.database_url
    is_marked = url is not None and parse_postgres_url(url.get_secret_value()).is_pooled
    return is_marked or settings.database_unpooled_url is not None
