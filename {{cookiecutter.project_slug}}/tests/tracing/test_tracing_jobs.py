"""Jobs in traces."""

from sqlalchemy import select
from test_tracing import collector, spans

from app.db.session import open_database
from app.jobs.attempts import attempt
from app.jobs.definition import Job, Message
from app.jobs.queue import Queue
from app.jobs.worker_context import open_worker_context
from app.settings import Settings
from app.tracing import open_tracing
from conftest import Lines, settings_for
from processes import Receiver
from sql import fetch

__all__ = ["collector"]  # a fixture


async def look(session: AsyncSession, *, fails: bool) -> None:
    await fetch(session, select(1))
    if fails:
        raise RuntimeError


LOOK = Job("test.look", look, 5, 1)


def traced(database_url: str, collector: Receiver) -> Settings:
    return settings_for(
        database_url,
        otel_exporter_otlp_endpoint=f"http://{collector.address}",
        trace_ratio=1.0,
    )


async def enqueue(settings: Settings) -> Message:
    """What is enqueued within a span."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async with open_tracing(settings) as tracer, open_database(settings) as database:
        assert tracer is not None
        with tracer.start_as_current_span("request"):
            async with database.session() as session:
                Queue(send).enqueue(transaction, LOOK, key="1", fails=False)
    return sent[0]


async def test_a_job_is_part_of_the_trace_of_the_request_that_enqueued_it(
    database_url: str, clean_tables: None, collector: Receiver, lines: Lines
) -> None:
    assert clean_tables is None
    settings = traced(database_url, collector)
    message = await enqueue(settings)
    async with open_worker_context(settings, connections=1) as database:
        await attempt(database, LOOK, message, 1)
    found = {span["name"]: span for span in spans(collector)}
    request, job = found["request"], found["test.look"]
    assert (job["parent"], job["trace"]) == (request["id"], request["trace"])
    assert found["SELECT"]["parent"] == job["id"]
    (line,) = [line for line in lines() if line["message"] == "job done"]
    assert line["trace_id"] == job["trace"]


async def test_a_job_that_fails_is_an_error_in_its_trace(
    database_url: str, clean_tables: None, collector: Receiver, lines: Lines
) -> None:
    assert clean_tables is None
    message = Message(LOOK.name, "test.look:2", {"fails": True})
    async with open_worker_context(traced(database_url, collector), connections=1) as database:
        await attempt(database, LOOK, message, 1)
    (job,) = [span for span in spans(collector) if span["name"] == "test.look"]
    assert job["attributes"]["error.type"] == "RuntimeError"
    (line,) = [line for line in lines() if line["message"] == "job failed"]
    assert line["trace_id"] == job["trace"]


async def test_without_a_collector_there_is_no_trace(
    settings: Settings, clean_tables: None, lines: Lines
) -> None:
    assert clean_tables is None
    async with open_worker_context(settings, connections=1) as database:
        await attempt(database, LOOK, Message(LOOK.name, "test.look:3", {"fails": False}), 1)
    assert "trace_id" not in next(line for line in lines() if line["message"] == "job done")
