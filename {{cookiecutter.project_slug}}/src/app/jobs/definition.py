"""Jobs. A feature declares its jobs in a module `jobs.py`, independent of the queue library."""

import inspect
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cronsim import CronSim, CronSimError

MAX_PAUSE_SECONDS = 60.0
CRON_FIELDS = 5

JobFunction = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class Job:
    """Work that a worker does after the transaction that enqueued it.

    Args:
        name: its name in the database. A renamed job does not run records with the old name.
        run: called with a session and the arguments by name. Its result is stored as JSON.
        timeout_seconds: the longest duration of one attempt.
        attempts: the largest number of attempts, including the first one.
        cron: the schedule, in UTC; None if the job has none.
        concurrency: how many of this job all workers run at once; None has no limit.
        has_own_transactions: run is called with the Database instead, and must itself be
            idempotent.
    """

    name: str
    run: JobFunction
    timeout_seconds: float
    attempts: int
    cron: str | None = None
    concurrency: int | None = None
    has_own_transactions: bool = False

    def check_arguments(self, arguments: dict[str, Any]) -> None:
        """Raise TypeError if the job does not have these arguments."""
        try:
            inspect.signature(self.run).bind(None, **arguments)
        except TypeError as error:
            raise TypeError(f"{self.name}: {error}") from None


def job(
    *,
    timeout_seconds: float = 30,
    attempts: int = 8,
    cron: str | None = None,
    concurrency: int | None = None,
    has_own_transactions: bool = False,
) -> Callable[[JobFunction], Job]:
    """Declare a job. The arguments are those of Job. Eight attempts take one to two minutes.

    Raises:
        CronSimError: the schedule is malformed.
    """
    if cron is not None:
        if len(cron.split()) != CRON_FIELDS:  # cronsim also accepts a field for seconds
            raise CronSimError(f"the schedule {cron!r} does not have five fields")
        CronSim(cron, datetime.now(UTC))

    def decorate(run: JobFunction) -> Job:
        feature = run.__module__.removesuffix(".jobs").rpartition(".")[2]
        name = f"{feature}.{run.__name__}"
        return Job(name, run, timeout_seconds, attempts, cron, concurrency, has_own_transactions)

    return decorate


def pause_after(attempt: int) -> float:
    """Return the seconds before the next attempt: exponential, with jitter."""
    longest = min(MAX_PAUSE_SECONDS, 2.0 ** (attempt - 1))
    return random.uniform(longest / 2, longest)  # noqa: S311 - not for cryptography
