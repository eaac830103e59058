"""The commands `app worker` and `app scheduler`."""

import asyncio
import sys

import click

from app.command_settings import exit_for_problems, load_command_settings
from app.jobs.process import heartbeat_problem
from app.settings import Settings

check_option = click.option("--check", is_flag=True, help="Only check the heartbeat.")


@click.command()
@check_option
def worker(*, check: bool) -> None:
    """Run jobs until SIGTERM. Running jobs then finish, or another worker repeats them."""
    if check:
        sys.exit(heartbeat_problem("worker"))
    from app.jobs.queue import load_backend
    from app.worker import worker_config

    with load_command_settings() as settings:
        load_backend().run_worker(worker_config(settings, _require_redis(settings)))


@click.command()
@check_option
def scheduler(*, check: bool) -> None:
    """Enqueue jobs when they are due, until SIGTERM. Run one; a second one has no effect."""
    if check:
        sys.exit(heartbeat_problem("scheduler"))
    from app.jobs.scheduler import run_scheduler

    with load_command_settings() as settings:
        asyncio.run(run_scheduler(_require_redis(settings)))


def _require_redis(settings: Settings) -> str:
    if settings.redis_url is None:
        exit_for_problems(["REDIS_URL is missing: set it to the Redis that holds the queue"])
    return settings.redis_url.get_secret_value()
