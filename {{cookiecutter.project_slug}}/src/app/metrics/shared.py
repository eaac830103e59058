"""Metrics that several processes share in files of a private folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # read by the client library at import


@contextmanager
def shared_metrics(processes: int) -> Iterator[None]:
    """Let processes that start inside share their metrics.

    Args:
        processes: their number. One process shares nothing.
    """
    if processes == 1:
        yield
        return
    with TemporaryDirectory(prefix="metrics-") as folder:
        os.environ[FOLDER] = folder
        yield
