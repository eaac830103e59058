"""Settings of Python in processes that run until they are stopped."""

import gc

GC_THRESHOLD = 10_000  # new objects between two collections


def exclude_start_from_garbage_collection() -> None:
    """Let no collection traverse the modules and objects of the start.

    They live as long as the process. Without this, a read takes a fifth longer, its p99 is five
    times the median, and a job takes a fifth more CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
