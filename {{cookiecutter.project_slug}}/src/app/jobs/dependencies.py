"""The dependency for routes whose services enqueue jobs."""

from typing import Annotated

from app.jobs.queue import Queue
from app.web.dependencies import from_state

QueueDep = Annotated[Queue, from_state("queue")]
