"""`app worker` and `app scheduler`."""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager

import click

from app.jobs.heartbeat import Heartbeat
from app.settings import Settings

ReadySettings = Callable[[], AbstractContextManager[Settings]]
check_option = click.option("--check", is_flag=True, help="Only say whether it is alive.")


@click.command()
@check_option
@click.pass_obj
def worker(ready_settings: ReadySettings, *, check: bool) -> None:
    """Do jobs until SIGTERM. What runs is finished then, or done anew by another worker."""
    if check:
        _check("worker")
    from app.jobs.queue import load_backend

    with ready_settings() as settings:
        _require_redis(settings)
        load_backend().run_worker(settings)


@click.command()
@check_option
@click.pass_obj
def scheduler(ready_settings: ReadySettings, *, check: bool) -> None:
    """Enqueue jobs when they are due, until SIGTERM. One is enough, and two do no harm."""
    if check:
        _check("scheduler")
    from app.jobs.queue import load_backend

    with ready_settings() as settings:
        _require_redis(settings)
        load_backend().run_scheduler(settings)


def _check(name: str) -> None:
    problem = Heartbeat(name).problem()
    if problem:
        click.echo(f"{name}: {problem}", err=True)
    sys.exit(1 if problem else 0)


def _require_redis(settings: Settings) -> None:
    if settings.redis_url is None:
        click.echo("settings: REDIS_URL is missing, and that is where jobs wait", err=True)
        sys.exit(2)
