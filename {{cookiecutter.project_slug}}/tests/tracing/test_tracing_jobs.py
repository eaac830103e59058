"""Traces of jobs."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import open_database
from app.jobs.attempts import attempt
from app.jobs.definition import Job, Message
from app.jobs.queue import Queue
from app.settings import Settings
from app.tracing.setup import open_tracing
from app.worker import open_worker_context
from conftest import Lines, settings_for
from processes import Receiver
from trace_collector import collector, spans

__all__ = ["collector"]  # a fixture

SELECT = text("SELECT 1")


async def select(session: AsyncSession, *, fails: bool) -> None:
    await session.execute(SELECT)
    if fails:
        raise RuntimeError


JOB = Job("test.select", select, 5, 1)


def settings_of(database_url: str, collector: Receiver) -> Settings:
    return settings_for(
        database_url,
        otel_exporter_otlp_endpoint=f"http://{collector.address}",
        trace_ratio=1.0,
    )


async def enqueue(settings: Settings) -> Message:
    """Enqueue a job within a span, and return its message."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async with (
        open_database(settings) as database,
        open_tracing(settings, {"database": database}) as tracer,
    ):
        assert tracer is not None
        with tracer.start_as_current_span("request"):
            async with database.session() as session:
                Queue(send).enqueue(session, JOB, key="1", fails=False)
    return sent[0]


async def test_job_of_a_traced_request_continues_its_trace(
    database_url: str, clean_tables: None, collector: Receiver, lines: Lines
) -> None:
    assert clean_tables is None
    settings = settings_of(database_url, collector)
    message = await enqueue(settings)
    async with open_worker_context(settings, connections=1) as context:
        await attempt(context, JOB, message, 1)
    found = {span["name"]: span for span in spans(collector)}
    request, job = found["request"], found["test.select"]
    assert (job["parent"], job["trace"]) == (request["id"], request["trace"])
    assert found["SELECT"]["parent"] == job["id"]
    (line,) = [line for line in lines() if line["message"] == "job done"]
    assert line["trace_id"] == job["trace"]


async def test_job_that_fails_is_an_error_in_its_trace(
    database_url: str, clean_tables: None, collector: Receiver, lines: Lines
) -> None:
    assert clean_tables is None
    message = Message(JOB.name, "test.select:2", {"fails": True})
    async with open_worker_context(settings_of(database_url, collector), connections=1) as context:
        await attempt(context, JOB, message, 1)
    (job,) = [span for span in spans(collector) if span["name"] == "test.select"]
    assert job["attributes"]["error.type"] == "RuntimeError"
    (line,) = [line for line in lines() if line["message"] == "job failed"]
    assert line["trace_id"] == job["trace"]


async def test_job_without_an_endpoint_has_no_trace(
    settings: Settings, clean_tables: None, lines: Lines
) -> None:
    assert clean_tables is None
    async with open_worker_context(settings, connections=1) as context:
        await attempt(context, JOB, Message(JOB.name, "test.select:3", {"fails": False}), 1)
    assert "trace_id" not in next(line for line in lines() if line["message"] == "job done")
