"""Jobs. A feature declares its jobs in a module `jobs.py`, independent of the queue library."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cronsim import CronSim, CronSimError
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as pydantic_dataclass

MAX_PAUSE_SECONDS = 60.0
CRON_FIELDS = 5

JobFunction = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class Job:
    """Work that takes effect once for each key.

    Args:
        name: its name in the queue. A renamed job does not get messages with the old name.
        run: called with a session and the arguments by name. Its result is stored as JSON.
        timeout_seconds: the longest duration of one attempt.
        attempts: the largest number of attempts, including the first one.
        cron: the schedule, in UTC; None if the job has none.
        has_own_transactions: run is called with the Database instead, once for each message
            that is received, and must itself be idempotent.
    """

    name: str
    run: JobFunction
    timeout_seconds: float
    attempts: int
    cron: str | None = None
    has_own_transactions: bool = False


def job(
    *,
    timeout_seconds: float = 30,
    attempts: int = 8,
    cron: str | None = None,
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
        return Job(name, run, timeout_seconds, attempts, cron, has_own_transactions)

    return decorate


@pydantic_dataclass(frozen=True, config=ConfigDict(hide_input_in_errors=True))
class Message:
    """The message of a job in the queue, as JSON.

    Pydantic ignores unknown fields, so a message may come from a newer version.
    """

    job: str
    key: str  # of several messages with the same key, one takes effect
    arguments: dict[str, Any] = field(default_factory=dict)
    request_id: str | None = None
    trace_context: dict[str, str] = field(default_factory=dict)  # option: tracing


def is_due(cron: str, minute: datetime) -> bool:
    """Return whether a schedule includes the minute, which begins at this time."""
    return next(CronSim(cron, minute - timedelta(minutes=1)), None) == minute


def due_message(job: str, minute: datetime) -> Message:
    """Return the message of a job that is due. Every scheduler returns the same for a minute."""
    return Message(job, f"{job}:{minute:%Y-%m-%dT%H:%M}")


def pause_after(attempt: int) -> float:
    """Return the seconds before the next attempt: exponential, with jitter."""
    longest = min(MAX_PAUSE_SECONDS, 2.0 ** (attempt - 1))
    return random.uniform(longest / 2, longest)  # noqa: S311 - not for cryptography
