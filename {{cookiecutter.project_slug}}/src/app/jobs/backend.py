"""The queue library, which distributes the rows of the table `jobs` to workers."""

from collections.abc import Sequence
from importlib import import_module
from typing import Protocol, cast

from sqlalchemy import Executable

from app.jobs.worker_context import WorkerConfig

# Packages with the modules `statements` and `worker`. The first one is used.
BACKENDS = [
    "app.jobs.pgqueuer",  # option: postgres
    "app.jobs.celery",  # option: celery
]


class Statements(Protocol):
    """The SQL of a queue library.

    Attributes:
        ENQUEUE: stores a job, and returns its id.
        DELIVER: lets workers find every queued job, also those whose message is lost.
        CLEANUP: deletes what the library keeps about finished jobs.
    """

    ENQUEUE: Executable
    DELIVER: Executable
    CLEANUP: Sequence[Executable]


class Worker(Protocol):
    """The worker of a queue library."""

    def run_worker(self, config: WorkerConfig) -> None:
        """Run jobs until SIGTERM. Running jobs then get `graceful_timeout_seconds`."""


def load_statements() -> Statements:
    return cast(Statements, import_module(f"{BACKENDS[0]}.statements"))


def load_worker() -> Worker:
    return cast(Worker, import_module(f"{BACKENDS[0]}.worker"))
