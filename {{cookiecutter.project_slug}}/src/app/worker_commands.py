"""The commands `app worker` and `app jobs`."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import click

from app.command_settings import load_command_settings
from app.metrics.shared import shared_metrics  # option: metrics

T = TypeVar("T")
JOB_IDS = click.argument("job_ids", metavar="ID...", nargs=-1, required=True, type=click.UUID)
STATUSES = click.Choice(["queued", "running", "succeeded", "failed", "canceled"])


@click.command()
def worker() -> None:
    """Run jobs until SIGTERM. Running jobs then finish, or another worker repeats them."""
    # The processes of a worker share them. The client library reads this first.  # option: metrics
    shared = shared_metrics(processes=2)  # option: metrics
    click.get_current_context().with_resource(shared)  # option: metrics
    from app.jobs.backend import load_worker
    from app.worker import worker_config

    with load_command_settings() as settings:
        load_worker().run_worker(worker_config(settings))


@click.group()
def jobs() -> None:
    """List, retry and cancel jobs."""


@jobs.command(name="list")
@click.option("--status", type=STATUSES, help="Only jobs with this status.")
@click.option("--name", help="Only jobs with this name, for example bookmarks.find_duplicates.")
@click.option("--limit", default=50, show_default=True, help="Maximum number of jobs.")
def list_jobs(status: str | None, name: str | None, limit: int) -> None:
    """Print the newest jobs."""
    from app.jobs.administration import find_newest

    for job in _run(lambda database: find_newest(database, status, name, limit)):
        click.echo(f"{job.id}  {job.status:<9}  {job.created_at:%Y-%m-%d %H:%M:%S}  {job.name}")


@jobs.command()
@click.argument("job_id", metavar="ID", type=click.UUID)
def show(job_id: uuid.UUID) -> None:
    """Print every field of a job."""
    from app.jobs.administration import find

    job = _run(partial(find, job_id))
    if job is None:
        raise click.ClickException(f"no job has the id {job_id}: app jobs list")
    for field, value in job.items():
        click.echo(f"{field:<14}{'' if value is None else value}")


@jobs.command()
@JOB_IDS
def retry(job_ids: tuple[uuid.UUID, ...]) -> None:
    """Enqueue failed or canceled jobs again, with all their attempts."""
    from app.jobs.administration import retry

    _change(job_ids, retry, "queued", "it is not failed or canceled")


@jobs.command()
@JOB_IDS
def cancel(job_ids: tuple[uuid.UUID, ...]) -> None:
    """Cancel jobs that have not ended. The changes of a running job are rolled back."""
    from app.jobs.administration import cancel

    _change(job_ids, cancel, "canceled", "it has ended")


def _change(
    job_ids: tuple[uuid.UUID, ...],
    change: Callable[[uuid.UUID, Any], Awaitable[bool]],
    done: str,
    reason: str,
) -> None:
    """Change jobs one by one. Exit code 1 if one of them was not changed."""
    has_failed = False
    for job_id in job_ids:
        is_changed = _run(partial(change, job_id))
        has_failed = has_failed or not is_changed
        click.echo(
            f"{job_id}  {done if is_changed else f'not {done}: {reason}, or does not exist'}"
        )
    if has_failed:
        raise click.exceptions.Exit(1)


def _run(function: Callable[[Any], Awaitable[T]]) -> T:
    from app.db.session import open_database

    async def run() -> T:
        with load_command_settings(logs=False) as settings:
            async with open_database(settings) as database:
                return await function(database)

    return asyncio.run(run())
