"""What a job is. Features declare theirs in a module `jobs.py`, and know no library for queues."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Self

from app.discovery import find_modules

LONGEST_PAUSE_SECONDS = 60.0

JobFunction = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class Job:
    """Work to be done once for each key.

    Args:
        name: as the queue knows it; a new name orphans what is waiting under the old one.
        run: called with a Transaction and the arguments by name; what it returns is kept, as JSON.
        timeout_seconds: of one attempt.
        attempts: at most, the first one included.
        cron: when it is due, in UTC; None if it is only ever enqueued.
        has_own_transactions: run is called with the Database instead, however often it is
            delivered, and sees to it itself that nothing happens twice.
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
    """Make a job of a function: see Job. Between eight attempts lie one to two minutes."""

    def decorate(run: JobFunction) -> Job:
        feature = run.__module__.removeprefix("app.").removesuffix(".jobs")
        name = f"{feature}.{run.__name__}"
        return Job(name, run, timeout_seconds, attempts, cron, has_own_transactions)

    return decorate


@dataclass(frozen=True)
class Message:
    """What waits in the queue, as JSON."""

    job: str
    key: str  # of two with the same, one is done
    arguments: dict[str, Any] = field(default_factory=dict)
    request_id: str | None = None
    trace_context: dict[str, str] = field(default_factory=dict)  # option: tracing

    @classmethod
    def of(cls, sent: dict[str, Any]) -> Self:
        """What a queue delivers; a newer version may have sent it, with more fields."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in sent.items() if name in known})


def due_message(job: str) -> Message:
    """For a job that is due now: the same, to the minute, whoever asks."""
    return Message(job, f"{job}:{datetime.now(UTC):%Y-%m-%dT%H:%M}")


def find_jobs() -> dict[str, Job]:
    """Every feature's jobs, by name."""
    found = (value for module in find_modules("jobs") for value in vars(module).values())
    return {value.name: value for value in found if isinstance(value, Job)}


def pause_after(attempt: int) -> float:
    """Seconds before the next attempt: twice as long each time, and never the same for two."""
    longest = min(LONGEST_PAUSE_SECONDS, 2.0 ** (attempt - 1))
    return random.uniform(longest / 2, longest)  # noqa: S311 - not for cryptography
