"""PgQueuer alone: the baseline of the worker with the option `postgres`.

It runs empty jobs with the same size of a batch and the same concurrency as a worker, and prints
the seconds from the first to the last.
"""

import os
import sys
import time
from datetime import timedelta

import asyncpg
import uvloop
from pgqueuer import Job, Queries, QueueManager

NUMBER, CONCURRENCY = int(sys.argv[1]), int(sys.argv[2])


async def main() -> None:
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    await connection.execute("TRUNCATE pgqueuer, pgqueuer_log")
    manager = QueueManager(Queries.from_asyncpg_connection(connection))
    times: list[float] = []

    @manager.entrypoint("empty")
    async def empty(_job: Job) -> None:
        times.append(time.perf_counter())
        if len(times) == NUMBER:
            manager.shutdown.set()

    ids = [str(number).encode() for number in range(NUMBER)]
    await manager.queries.enqueue(["empty"] * NUMBER, ids, [0] * NUMBER)
    await manager.run(
        dequeue_timeout=timedelta(seconds=5),
        batch_size=max(1, CONCURRENCY // 2),
        max_concurrent_tasks=max(2, CONCURRENCY),
        log_aggregation_interval=timedelta(0),
    )
    print(times[-1] - times[0])


uvloop.run(main())  # as the command `pgq run` does
