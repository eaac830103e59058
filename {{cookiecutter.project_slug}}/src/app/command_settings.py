"""Load the settings of a command. Each problem is one line, and development needs no settings."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click
import structlog

from app.logging.setup import configure_logs
from app.settings import Settings, SettingsError, load_settings, unknown_variables

BAD_SETTINGS = 2  # exit code

log = structlog.get_logger()


@contextmanager
def load_command_settings(*, logs: bool = True) -> Iterator[Settings]:
    """Yield the settings of a command. Wrong settings end the program with one line each.

    In development, embedded servers start if DATABASE_URL is not set.

    Args:
        logs: configure logs, and warn about unknown variables in `.env`.
    """
    try:
        settings = load_settings()
    except SettingsError as error:
        exit_for_problems(error.problems)
    if logs:
        configure_logs(settings)
        for problem in unknown_variables():
            log.warning("unknown variable", reason=problem)
    if settings.database_url is not None:
        yield settings
        return
    try:
        from app.dev.services import embedded_services
    except ImportError:
        exit_for_problems(["DATABASE_URL is missing, and the embedded PostgreSQL is not installed"])
    except OSError as error:
        raise click.ClickException(f"PostgreSQL cannot be embedded: {error}") from error
    with embedded_services() as variables:
        for name, url in variables.items():
            if getattr(settings, name.lower()) is None:
                os.environ[name] = url
        yield load_settings()


def exit_for_problems(problems: list[str]) -> NoReturn:
    for problem in problems:
        click.echo(f"settings: {problem}", err=True)
    sys.exit(BAD_SETTINGS)
