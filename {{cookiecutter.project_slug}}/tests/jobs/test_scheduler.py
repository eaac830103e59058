"""The scheduler, with a backend that fails once."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs import scheduler
from app.jobs.definition import Job, Message
from valkey_server import start_valkey


async def run(_session: AsyncSession) -> None:
    pass


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """Restore the handlers that the scheduler replaces."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    handlers = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


async def test_due_job_is_sent_again_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    async def send(message: Message) -> None:
        sent.append(message.job)
        if len(sent) == 1:
            raise ConnectionError("no Redis")
        signal.raise_signal(signal.SIGTERM)

    @asynccontextmanager
    async def open_sender(_url: str, _timeout_seconds: float) -> AsyncIterator[object]:
        yield send

    job = Job("test.job", run, 1, 1, cron="* * * * *")
    monkeypatch.setattr(scheduler, "load_backend", lambda: SimpleNamespace(open_sender=open_sender))
    monkeypatch.setattr(scheduler, "find_jobs", lambda: {job.name: job})
    monkeypatch.setattr(scheduler, "BEAT_SECONDS", 0.1)
    with start_valkey() as valkey:
        async with asyncio.timeout(10):
            await scheduler.run_scheduler(valkey.url)
    assert sent == ["test.job", "test.job"]
