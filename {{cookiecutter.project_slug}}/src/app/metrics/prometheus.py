"""Prometheus metrics at `/metrics`: requests, the connection pool, the build and the processes.

Several server processes put their numbers into files of a private folder, and whichever is
asked adds them up: https://prometheus.github.io/client_python/multiprocess/
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from app.db.limiter import ConnectionLimiter
from app.metrics.settings import MetricsSettings
from app.service_info import service_version
from app.web.request_summary import RequestSummary

PATH = "/metrics"
FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the client library's own variable, read when it is imported
# Labels come from clients, and each new value is a new series for ever: these are all there are.
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
OTHER_METHOD = "OTHER"
UNMATCHED = "unmatched"  # of all paths that no route matched
# A quantile is told to the width of a bucket: 2 s is a border because it is an alert's.
DURATIONS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10)
WAITS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 5)


class Metrics:
    """What is counted in this process, and the text that says so for all processes."""

    def __init__(self, settings: MetricsSettings) -> None:
        self.settings = settings
        # Would be a second series for every one, which nothing here reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client does not annotate it
        ours = CollectorRegistry()
        self._requests = Counter(
            "http_requests", "Requests.", ("method", "route", "status"), registry=ours
        )
        self._durations = Histogram(
            "http_request_duration_seconds",
            "From a request's arrival to the end of its answer.",
            ("method", "route"),
            registry=ours,
            buckets=DURATIONS,
        )
        self._in_flight = _gauge("http_requests_in_flight", "Requests being answered.", ours)
        self._pool_size = _gauge("database_pool_size", "Connections there may be.", ours)
        self._checked_out = _gauge("database_pool_checked_out", "Connections in use.", ours)
        self._waits = Histogram(
            "database_pool_wait_seconds",
            "From asking for a connection to having one, or to giving up.",
            registry=ours,
            buckets=WAITS,
        )
        Gauge(
            "app_build_info",
            "Always 1: the labels are what counts.",
            ("version", "commit"),
            registry=ours,
            multiprocess_mode="livemax",
        ).labels(service_version(), settings.commit_sha).set(1)
        # Looking children up by their labels would cost more than counting.
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        folder = os.environ.get(FOLDER)
        self._exposed = ours
        if folder is None:
            ProcessCollector(registry=ours)
        else:
            self._exposed = CollectorRegistry()
            self._exposed.register(LiveProcesses(Path(folder)))  # first: it forgets the dead
            MultiProcessCollector(self._exposed, folder)  # type: ignore[no-untyped-call]  # prometheus_client does not annotate it

    def count_start(self, summary: RequestSummary) -> None:
        """Count a request in; scrapes do not measure themselves."""
        if summary.path != PATH:
            self._in_flight.inc()

    def count_end(self, summary: RequestSummary) -> None:
        """Count a request out, with what came of it."""
        if summary.path == PATH:
            return
        self._in_flight.dec()
        method = summary.method if summary.method in METHODS else OTHER_METHOD
        labels = (method, summary.route or UNMATCHED, summary.status)
        children = self._children.get(labels)
        if children is None:
            durations = self._durations.labels(*labels[:2])
            children = self._children[labels] = (self._requests.labels(*labels), durations)
        requests, durations = children
        requests.inc()
        durations.observe(summary.duration_seconds)

    def watch(self, limiter: ConnectionLimiter) -> None:
        """Follow the use of connections, event by event, since each process has its own."""
        self._pool_size.set(limiter.size)

        def taken(waited_seconds: float) -> None:
            self._waits.observe(waited_seconds)
            self._checked_out.set(limiter.in_use)

        limiter.on_acquire.append(taken)
        limiter.on_release.append(lambda: self._checked_out.set(limiter.in_use))

    def text(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._exposed)


class LiveProcesses(Collector):
    """What the system knows of each server process; those that ended are taken out of sums."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for pid in {file.stem.rpartition("_")[2] for file in self._folder.glob("gauge_live*.db")}:
            if not _is_alive(int(pid)):
                with suppress(FileNotFoundError):  # another process was asked just now, and did it
                    mark_process_dead(int(pid), self._folder)  # type: ignore[no-untyped-call]  # prometheus_client does not annotate it
                continue
            for metric in ProcessCollector(registry=None, pid=partial(str, pid)).collect():
                family = families.setdefault(metric.name, metric)
                samples = [s._replace(labels={"pid": pid}) for s in metric.samples]
                family.samples = samples if family is metric else family.samples + samples
        return families.values()


def _is_alive(pid: int) -> bool:
    if os.name != "posix":
        return True  # elsewhere this signal would end it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _gauge(name: str, what: str, registry: CollectorRegistry) -> Gauge:
    """A number that is summed over the processes that run."""
    return Gauge(name, what, registry=registry, multiprocess_mode="livesum")


@contextmanager
def shared_metrics(processes: int) -> Iterator[None]:
    """Let the server processes that are started meanwhile share their metrics.

    Args:
        processes: their number. One process shares nothing.
    """
    if processes == 1:
        yield
        return
    with TemporaryDirectory(prefix="metrics-") as folder:
        os.environ[FOLDER] = folder
        yield
