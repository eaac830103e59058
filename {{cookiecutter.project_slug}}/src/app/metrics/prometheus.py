"""Prometheus metrics at `/metrics`: requests, the connection pool, the build and the processes.

Several server processes write their values to files of a private folder. The process that receives
the scrape adds them up: https://prometheus.github.io/client_python/multiprocess/
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from http import HTTPMethod
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics import disable_created_metrics
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from app.db.limiter import ConnectionLimiter
from app.metrics.settings import MetricsSettings
from app.metrics.shared import FOLDER
from app.service_info import service_version
from app.web.request_summary import RequestSummary

PATH = "/metrics"
# Quantiles are as exact as the buckets. The limit of an alert is 2 s, so 2 s is a bucket.
DURATIONS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10)
WAITS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 5)


class Metrics:
    """The metrics of this process, and the exposition of all server processes."""

    def __init__(self, settings: MetricsSettings, limiter: ConnectionLimiter) -> None:
        self.settings = settings
        # They would double the number of series, and no dashboard or alert reads them.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client does not annotate it
        registry = CollectorRegistry()
        # The values of the running processes are added up.
        gauge = partial(Gauge, registry=registry, multiprocess_mode="livesum")
        self._requests = Counter(
            "http_requests", "Requests.", ("method", "route", "status"), registry=registry
        )
        self._durations = Histogram(
            "http_request_duration_seconds",
            "Duration of a request, from its arrival to the end of the response.",
            ("method", "route"),
            registry=registry,
            buckets=DURATIONS,
        )
        self._in_flight = gauge("http_requests_in_flight", "Requests in progress.")
        gauge("database_pool_size", "Maximum number of connections.").set(limiter.size)
        in_use = gauge("database_pool_checked_out", "Connections in use.")
        waits = Histogram(
            "database_pool_wait_seconds",
            "Wait for a connection, including waits that timed out.",
            registry=registry,
            buckets=WAITS,
        )
        limiter.on_acquire += [waits.observe, lambda _: in_use.set(limiter.in_use)]
        limiter.on_release.append(lambda: in_use.set(limiter.in_use))
        add_build_info(registry, settings.commit_sha)
        # The client library's look-up of a child by its labels costs more than the count.
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        folder = os.environ.get(FOLDER)
        self._exposed = registry
        if folder is None:
            ProcessCollector(registry=registry)
        else:
            self._exposed = CollectorRegistry()
            # Before the next collector, because it removes the values of dead processes.
            self._exposed.register(LiveProcesses(Path(folder)))
            MultiProcessCollector(self._exposed, folder)  # type: ignore[no-untyped-call]  # prometheus_client does not annotate it

    def count_start(self, summary: RequestSummary) -> None:
        """Count the start of a request, unless it is a scrape."""
        if summary.path != PATH:
            self._in_flight.inc()

    def count_end(self, summary: RequestSummary) -> None:
        """Count the end of a request, with its status and its duration."""
        if summary.path == PATH:
            return
        self._in_flight.dec()
        # Clients choose the method and the path, and each new value of a label is a new series.
        method = summary.method if summary.method in HTTPMethod.__members__ else "OTHER"
        labels = (method, summary.route or "unmatched", summary.status)
        children = self._children.get(labels)
        if children is None:
            durations = self._durations.labels(*labels[:2])
            children = self._children[labels] = (self._requests.labels(*labels), durations)
        requests, durations = children
        requests.inc()
        durations.observe(summary.duration_seconds)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._exposed)


def add_build_info(registry: CollectorRegistry, commit: str) -> None:
    """Add the version and the commit of this process, as labels of a gauge that is 1."""
    Gauge(
        "app_build_info",
        "Always 1; the labels have the version and the commit.",
        ("version", "commit"),
        registry=registry,
        multiprocess_mode="livemax",
    ).labels(service_version(), commit).set(1)


class LiveProcesses(Collector):
    """The resources of each server process. Values of dead processes leave the sums."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for pid in {file.stem.rpartition("_")[2] for file in self._folder.glob("gauge_live*.db")}:
            if not _is_alive(int(pid)):
                with suppress(FileNotFoundError):  # a concurrent scrape has removed it
                    mark_process_dead(int(pid), self._folder)  # type: ignore[no-untyped-call]  # prometheus_client does not annotate it
                continue
            for metric in ProcessCollector(registry=None, pid=partial(str, pid)).collect():
                empty = Metric(metric.name, metric.documentation, metric.type)
                family = families.setdefault(metric.name, empty)
                for sample in metric.samples:
                    family.add_sample(sample.name, {"pid": pid}, sample.value)
        return families.values()


def _is_alive(pid: int) -> bool:
    if os.name != "posix":
        return True  # on Windows this signal would end the process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
