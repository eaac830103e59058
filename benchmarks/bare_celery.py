"""Celery alone: the baseline of the worker with the option `celery`.

Its messages are ids, and its settings are those of a worker: JSON without results, and one message
for each process.
"""

import os

from celery import Celery

app = Celery("bare", broker=os.environ["REDIS_URL"].replace("unix://", "redis+socket://"))
app.conf.update(
    task_default_queue="bare",
    task_ignore_result=True,
    worker_enable_remote_control=False,
    worker_prefetch_multiplier=1,
)


@app.task(name="empty")
def empty(_job_id: str) -> None:
    """Do nothing."""
