"""Traces of jobs."""

import uuid
from contextlib import nullcontext
from dataclasses import replace

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import open_database
from app.jobs.attempts import attempt
from app.jobs.definition import Job
from app.settings import Settings
from app.tracing.setup import open_tracing
from app.worker import open_worker_context
from conftest import Lines, settings_for
from processes import Receiver
from stored_jobs import store
from trace_collector import collector, spans

__all__ = ["collector"]  # a fixture

SELECT = text("SELECT 1")


async def select(session: AsyncSession, *, fails: bool) -> None:
    await session.execute(SELECT)
    if fails:
        raise RuntimeError


JOB = Job("_test.select", select, 5, 1)


def settings_of(database_url: str, collector: Receiver) -> Settings:
    return settings_for(
        database_url,
        otel_exporter_otlp_endpoint=f"http://{collector.address}",
        trace_ratio=1.0,
    )


async def enqueue_in_span(settings: Settings, *, fails: bool = False) -> uuid.UUID:
    """Enqueue a job within a span, and return its id."""
    async with (
        open_database(settings) as database,
        open_tracing(settings, {"database": database}) as tracer,
    ):
        span = tracer.start_as_current_span("request") if tracer else nullcontext()
        with span:
            return await store(database, JOB, fails=fails)


async def run_once(settings: Settings, job_id: uuid.UUID) -> None:
    async with open_worker_context(settings, uuid.uuid4(), concurrency=1) as context:
        await attempt(replace(context, jobs={JOB.name: JOB}), job_id)


async def test_job_of_a_traced_request_continues_its_trace(
    database_url: str, clean_tables: None, collector: Receiver, lines: Lines
) -> None:
    assert clean_tables is None
    settings = settings_of(database_url, collector)
    await run_once(settings, await enqueue_in_span(settings))
    found = {span["name"]: span for span in spans(collector)}
    request, job = found["request"], found["_test.select"]
    assert (job["parent"], job["trace"]) == (request["id"], request["trace"])
    assert found["SELECT"]["parent"] == job["id"]
    (line,) = [line for line in lines() if line["message"] == "job done"]
    assert line["trace_id"] == job["trace"]


async def test_job_that_fails_is_an_error_in_its_trace(
    database_url: str, clean_tables: None, collector: Receiver, lines: Lines
) -> None:
    assert clean_tables is None
    settings = settings_of(database_url, collector)
    await run_once(settings, await enqueue_in_span(settings, fails=True))
    (job,) = [span for span in spans(collector) if span["name"] == "_test.select"]
    assert job["attributes"]["error.type"] == "RuntimeError"
    (line,) = [line for line in lines() if line["message"] == "job failed"]
    assert line["trace_id"] == job["trace"]


async def test_job_without_an_endpoint_has_no_trace(
    settings: Settings, clean_tables: None, lines: Lines
) -> None:
    assert clean_tables is None
    await run_once(settings, await enqueue_in_span(settings))
    assert "trace_id" not in next(line for line in lines() if line["message"] == "job done")
