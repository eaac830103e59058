"""Reports of jobs that fail."""

import subprocess
import sys

from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs.attempts import attempt
from app.jobs.definition import Job, Message
from app.worker import open_worker_context
from conftest import settings_for
from error_receiver import dsn_of, events, receiver
from processes import Receiver

__all__ = ["receiver"]  # a fixture


async def fail(_session: AsyncSession) -> None:
    raise RuntimeError("of a job")


FAIL = Job("test.fail", fail, 5, 2)


async def test_job_is_reported_once_after_its_last_attempt(
    database_url: str, clean_tables: None, receiver: Receiver
) -> None:
    assert clean_tables is None
    settings = settings_for(database_url, sentry_dsn=dsn_of(receiver.address))
    message = Message(FAIL.name, "test.fail:1", request_id="request-7")
    async with open_worker_context(settings, connections=1) as context:
        for number in (1, 2):
            await attempt(context, FAIL, message, number)
    (event,) = events(receiver)
    assert event["transaction"] == "test.fail"
    assert event["tags"]["request_id"] == "request-7"
    assert event["tags"]["job_key"] == "test.fail:1"
    assert event["exception"]["values"][0]["type"] == "RuntimeError"


def test_job_that_fails_without_a_dsn_does_not_import_the_sdk() -> None:
    script = """
import sys
from app.sentry.reporting import report_job
report_job(RuntimeError(), "test.fail")
sys.exit("sentry_sdk" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
