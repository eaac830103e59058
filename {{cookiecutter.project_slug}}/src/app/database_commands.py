"""The commands that work on the database: `app migrate`, `app seed`, `app psql` and `app db`."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys

import click
import structlog

from app.command_settings import load_command_settings
from app.settings import Settings

FAILED = 1  # exit code
THIS_MACHINE = {"localhost", "127.0.0.1", "::1"}

log = structlog.get_logger()


def migrate_or_exit(
    settings: Settings, *, to: str | None = None, accept_newer: bool = True
) -> None:
    """Migrate the database. After an error, log its reason and end the program.

    Args:
        settings: of the service.
        to: a revision, "head" or "base"; without it, the last revision.
        accept_newer: succeed if the database has migrations that this code does not have.
    """
    from app.db.migrate import migrate
    from app.db.schema_version import MigrationError

    try:
        asyncio.run(migrate(settings, to=to, accept_newer=accept_newer))
    except MigrationError as error:
        log.critical("not migrated", reason=str(error))
        sys.exit(FAILED)


@click.command()
@click.option("--to", metavar="REVISION", help="Upgrade or downgrade to it, for example 0002.")
def migrate(to: str | None) -> None:
    """Run `alembic upgrade head` under a lock. Several replicas may run this at once."""
    with load_command_settings() as settings:
        migrate_or_exit(settings, to=to)


@click.command()
def seed() -> None:
    """Add the example data of every feature. Existing rows stay."""
    with load_command_settings() as settings:
        migrate_or_exit(settings)
        add_example_data(settings)


def add_example_data(settings: Settings) -> None:
    from app.db.session import open_database
    from app.discovery import find_modules

    async def run() -> int:
        async with open_database(settings) as database:
            return sum([await module.seed(database) for module in find_modules("seed")])

    click.echo(f"{asyncio.run(run())} rows added")


# -h and all other options are psql's.
@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(arguments: tuple[str, ...]) -> None:
    """Open psql on the database, or run it with ARGUMENTS.

    It is the embedded PostgreSQL's own psql, or that of the PATH if DATABASE_URL is set.
    """
    from app.db.libpq import VARIABLES, direct_url, libpq_parameters

    given = os.environ.get("DATABASE_URL")
    with load_command_settings(logs=False) as settings:
        # The embedded PostgreSQL sets the variable.
        is_embedded = os.environ.get("DATABASE_URL") != given
        program = _embedded_psql() if is_embedded else shutil.which("psql")
        if program is None:
            raise click.ClickException("psql is not installed: install the client of PostgreSQL")
        # libpq would prefer these to the variables below.
        env = {k: v for k, v in os.environ.items() if k not in {"PGSERVICE", "PGHOSTADDR"}}
        # Other users can see the arguments of a process, and not its environment.
        for name, value in libpq_parameters(direct_url(settings)).items():
            env[VARIABLES[name]] = value
        # Ctrl-C ends a statement of psql, and not this process.
        signal.signal(signal.SIGINT, lambda *_: None)
        result = subprocess.run([program, *arguments], env=env, check=False)
    sys.exit(result.returncode)


def _embedded_psql() -> str:
    from app.dev.services import psql_program

    return str(psql_program())


@click.group()
def db() -> None:
    """Show or replace the database."""


@db.command()
def url() -> None:
    """Print the URL of the database, with the password, for psql and other clients."""
    from app.db.libpq import direct_url, libpq_parameters, libpq_url

    with load_command_settings(logs=False) as settings:
        click.echo(libpq_url(libpq_parameters(direct_url(settings))))


@db.command()
@click.option("--seed", "with_seed", is_flag=True, help="Add the example data.")
@click.option("--force", is_flag=True, help="End the sessions of other programs.")
@click.option("--yes", is_flag=True, help="Do not ask before a database of another machine.")
def reset(*, with_seed: bool, force: bool, yes: bool) -> None:
    """Replace the development database by an empty, migrated one."""
    from app.db.libpq import direct_url, libpq_parameters
    from app.db.reset import ResetError, database_name, reset_database
    from app.db.schema_version import MigrationError

    with load_command_settings() as settings:
        host = libpq_parameters(direct_url(settings))["host"]
        is_local = host in THIS_MACHINE or host.startswith("/")  # a socket
        if not (yes or is_local or settings.is_deployed):
            click.confirm(f"Drop the database {database_name(settings)} of {host}?", abort=True)
        try:
            asyncio.run(reset_database(settings, force=force))
        except (ResetError, MigrationError) as error:
            log.critical("not reset", reason=str(error))
            sys.exit(FAILED)
        log.info("reset", database=database_name(settings))
        if with_seed:
            add_example_data(settings)
