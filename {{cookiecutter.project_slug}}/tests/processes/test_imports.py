"""A server process with the default settings: its modules, and its objects."""

import subprocess
import sys

from processes import ROOT, environment

START = """
import asyncio, gc, sys, threading
from app import cli
from app.main import create_served_app

async def open_and_close():
    app = create_served_app()
    async with app.router.lifespan_context(app):
        return [thread.name for thread in threading.enumerate()]

print(*sys.modules)
print(*asyncio.run(open_and_close()))
print(gc.get_freeze_count())
from app.sentry.reporting import report_job  # option: sentry
report_job(RuntimeError(), "_test.fail")  # option: sentry
print(*sys.modules)
"""


def test_start_imports_needed_modules_only_and_no_collection_traverses_them(
    database_url: str,
) -> None:
    result = subprocess.run(
        [sys.executable, "-c", START],
        cwd=ROOT,
        env=environment(database_url, LOG_LEVEL="error"),
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split() for line in result.stdout.splitlines()]
    before, after = lines[0], lines[-1]
    assert int(lines[2][0]) > 10_000
    assert "app.web.health" in before
    # Commands of migrations, of several processes and of development have imports of their own.
    assert {"alembic", "app.db.migrate", "app.dev.services"}.isdisjoint(after)
    assert "pgqueuer" not in before  # option: postgres
    assert "celery" not in before  # option: celery
    assert "sentry_sdk" not in after  # option: sentry
    assert "opentelemetry.sdk.trace" not in after  # option: tracing
    assert "opentelemetry.exporter" not in after  # option: tracing
    assert lines[1] == ["MainThread"]  # in the template only
