"""The metrics of jobs, at `/metrics` of every worker."""

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import structlog
from fastapi import FastAPI, Response
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from sqlalchemy import case, func, select

from app.db.session import Database
from app.errors import Unavailable
from app.jobs.models import UNFINISHED, JobRecord
from app.metrics.prometheus import PATH, LiveProcesses, add_build_info
from app.metrics.settings import MetricsSettings
from app.metrics.shared import FOLDER
from app.web.operator_token import SentToken, require_token

log = structlog.get_logger()

DURATIONS = (0.01, 0.05, 0.25, 1, 5, 30, 120, 600)
OUTCOMES = ("succeeded", "repeated", "retried", "failed")
QUEUE_TIMEOUT_SECONDS = 5.0  # Prometheus' default timeout of a scrape is 10 s
_IS_DUE = (JobRecord.status == "queued") & (JobRecord.run_after <= func.now())
_COUNT = (
    select(
        JobRecord.name,
        func.count().filter(_IS_DUE),
        func.count().filter(JobRecord.status == "running"),
        func.coalesce(
            func.extract("epoch", func.now() - func.min(case((_IS_DUE, JobRecord.run_after)))), 0
        ),
    )
    .where(JobRecord.status.in_(UNFINISHED))
    .group_by(JobRecord.name)
)
# In the order of the columns of _COUNT.
_GAUGES = (
    ("jobs_waiting", "Jobs that are due and not started."),
    ("jobs_running", "Jobs that are running."),
    ("jobs_oldest_waiting_seconds", "Time since the oldest waiting job was due."),
)
_NONE = (0,) * len(_GAUGES)


class JobMetrics:
    """The metrics of the attempts of this process.

    Args:
        settings: the labels of the build.
        job_names: of every job. Their counters begin with 0: Prometheus' `increase` does not count
            the first value of a series.
    """

    def __init__(self, settings: MetricsSettings, job_names: Iterable[str]) -> None:
        registry = CollectorRegistry()
        self._attempts = Counter(
            "job_attempts", "Attempts at jobs.", ("job_name", "outcome"), registry=registry
        )
        self._durations = Histogram(
            "job_duration_seconds",
            "Duration of an attempt.",
            ("job_name",),
            registry=registry,
            buckets=DURATIONS,
        )
        for job_name in job_names:
            self._durations.labels(job_name)
            for outcome in OUTCOMES:
                self._attempts.labels(job_name, outcome)
        add_build_info(registry, settings.commit_sha)

    def count(self, job_name: str, outcome: str, seconds: float) -> None:
        """Count an attempt.

        Args:
            job_name: the name of the job.
            outcome: one of OUTCOMES.
            seconds: the duration of the attempt.
        """
        self._attempts.labels(job_name, outcome).inc()
        self._durations.labels(job_name).observe(seconds)


def add_metrics_route(
    app: FastAPI, settings: MetricsSettings, database: Database, job_names: Iterable[str]
) -> None:
    """Add `/metrics`: the attempts of this worker, and the queue of all workers.

    Args:
        app: the application of the worker.
        settings: the token.
        database: has the queue.
        job_names: of every job.
    """
    # The processes of this worker write their values to files of this folder.
    folder = os.environ[FOLDER]
    registry = CollectorRegistry()
    registry.register(LiveProcesses(Path(folder)))
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]  # prometheus_client does not annotate it

    @app.get(PATH)
    async def read_metrics(token: SentToken) -> Response:
        require_token(settings, settings.metrics_token, token)
        text = generate_latest(registry) + await _read_queue(database, job_names)
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)


class _Queue(Collector):
    """The gauges of the queue. A `Gauge` would be shared with other processes of the worker."""

    def __init__(self, counts: Mapping[str, Sequence[float]]) -> None:
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        for number, (name, documentation) in enumerate(_GAUGES):
            family = GaugeMetricFamily(name, documentation, labels=["job_name"])
            for job_name, values in self._counts.items():
                family.add_metric([job_name], values[number])
            yield family


async def _read_queue(database: Database, job_names: Iterable[str]) -> bytes:
    """Return the gauges of the queue. While the database is unavailable there are none."""
    counts: dict[str, Sequence[float]] = dict.fromkeys(job_names, _NONE)
    try:
        async with asyncio.timeout(QUEUE_TIMEOUT_SECONDS), database.read_connection() as connection:
            for job_name, *values in await connection.execute(_COUNT):
                counts[job_name] = values
    except (TimeoutError, Unavailable):
        log.warning("metrics lack the queue", reason="the database is unavailable")
        return b""
    registry = CollectorRegistry()
    registry.register(_Queue(counts))
    return generate_latest(registry)
