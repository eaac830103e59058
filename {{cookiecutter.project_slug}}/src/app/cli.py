"""The commands of the program `app`. `app --help` lists them.

Commands import modules when they run, so that each command starts fast.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click
import structlog

from app.account_commands import accounts  # option: accounts
from app.command_settings import load_command_settings
from app.database_commands import db, migrate, migrate_or_exit, psql, seed
from app.logging.setup import configure_logs
from app.mail.commands import mails  # option: accounts
from app.mail.development import catch_mails  # option: accounts
from app.settings import Settings, load_settings, unknown_variables
from app.worker_commands import jobs, worker  # option: worker

FAILED = 1  # exit code
APP = "app.main:create_served_app"
COMMANDS: list[click.Command] = [migrate, seed, psql, db]  # of other modules
COMMANDS += [worker, jobs]  # option: worker
COMMANDS += [accounts, mails]  # option: accounts

log = structlog.get_logger()


def run() -> None:
    """Run the program `app`."""
    # Without a handler, the first process of a container ignores SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main()


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, commands=COMMANDS)
def main() -> None:
    """Run and maintain the service."""


@main.command()
@click.option("--migrate", "migrate_first", is_flag=True, help="Run `app migrate` first.")
def serve(*, migrate_first: bool) -> None:
    """Serve until SIGTERM. It does not migrate the database unless --migrate is given."""
    with load_command_settings() as settings:
        if migrate_first:
            migrate_or_exit(settings)
        _serve(settings, reload=False)


@main.command()
@click.option("--reload/--no-reload", default=True, help="Restart when a source file changes.")
def dev(*, reload: bool) -> None:
    """Migrate and serve on this machine.

    The port is PORT, 8000 by default. PostgreSQL is embedded if DATABASE_URL is not set.
    """
    from app.db.libpq import direct_url, without_password

    with load_command_settings() as initial_settings:
        for name, value in (("host", "127.0.0.1"), ("drain_seconds", "0")):
            if name not in initial_settings.model_fields_set:
                os.environ[name.upper()] = value
        settings = load_settings()
        migrate_or_exit(settings)
        log.info("database", url=without_password(direct_url(settings)), psql="uv run app psql")
        caught = catch_mails(settings, settings.port)  # option: accounts
        click.get_current_context().with_resource(caught)  # option: accounts
        _serve(settings, reload=reload)


def _serve(settings: Settings, *, reload: bool) -> None:
    from app.metrics.shared import shared_metrics  # option: metrics
    from app.web.server import serve

    shared = shared_metrics(settings.web_concurrency)  # option: metrics
    click.get_current_context().with_resource(shared)  # option: metrics
    serve(APP, settings, reload=reload)


@main.command()
@click.argument("message")
def migration(message: str) -> None:
    """Migrate, then run `alembic revision --autogenerate -m MESSAGE`."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    if not any(character.isalnum() for character in message):
        raise click.UsageError('MESSAGE describes the change, for example "add notes"')
    with load_command_settings() as settings:
        migrate_or_exit(settings, accept_newer=False)
        try:
            command.revision(Config(toml_file="pyproject.toml"), message, autogenerate=True)
        except CommandError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            hint = "in a container, set HOST_UID and HOST_GID to your user"
            raise click.ClickException(f"the migration was not written: {error}: {hint}") from error


@main.command()
@click.argument("files", nargs=-1, required=True)
def renumber(files: tuple[str, ...]) -> None:
    """Give migrations the next numbers, so that they follow all others. FILES are in order."""
    from app.db.schema_version import MigrationError
    from app.migrations.renumber import renumber

    try:
        for renamed in renumber([Path(file).name for file in files]):
            click.echo(renamed.name)
    except MigrationError as error:
        raise click.ClickException(str(error)) from error


@main.command()
def check() -> None:
    """Report problems of settings, connections and schema. Exit code 1 if there is one."""
    from app.connection_budget import compare_connections
    from app.main import create_app

    async def run(settings: Settings) -> bool:
        app = create_app(settings)
        async with app.router.lifespan_context(app) as state:
            assert state is not None
            state["health"].extend_timeouts()
            components = await state["health"].components()
            is_reachable = components["database"].status == "ok"
            database = state["database"]
            budget = await compare_connections(settings, database) if is_reachable else None
        for name, component in components.items():
            _report(name, component.status, component.reason or f"{component.latency_ms} ms")
        if budget:
            _report("connections", "ok" if budget.is_within_limit else "failed", budget.detail)
        is_within_limit = budget is None or budget.is_within_limit
        return is_within_limit and all(
            component.status == "ok" for component in components.values()
        )

    with load_command_settings(logs=False) as settings:
        # The report has every problem, so warnings would repeat it.
        configure_logs(settings.model_copy(update={"log_level": "error"}))
        unknown = unknown_variables()
        for problem in unknown:
            _report("settings", "failed", problem)
        if not unknown:
            _report("settings", "ok", settings.environment)
        if not asyncio.run(run(settings)) or unknown:
            sys.exit(FAILED)


def _report(name: str, status: str, detail: str) -> None:
    click.echo(f"{name:<12}{status:<8}{detail}")


@main.command()
@click.option("--page", "form", flag_value="page", help="Print docs/settings.md instead.")
@click.option(
    "--production", "form", flag_value="production", help="Print .env.production.template instead."
)
@click.option("--write", "form", flag_value="write", help="Write the three files instead.")
def env(form: str | None) -> None:
    """Print every environment variable and its default."""
    from app.settings_docs import env_template, production_template, settings_page, write_files

    if form == "write":
        try:
            for name, changed in write_files(Path()):
                click.echo(f"{name:<26}{'changed' if changed else 'unchanged'}")
        except OSError as error:
            raise click.ClickException(f"{error}: run this in the folder of the project") from error
        return
    forms = {"page": settings_page, "production": production_template}
    click.echo(forms.get(form or "", env_template)(), nl=False)


@main.command()
def routes() -> None:
    """Print every route."""
    for path, operations in _openapi()["paths"].items():
        for method, operation in operations.items():
            click.echo(f"{method.upper():<8}{path:<32}{operation['operationId']}")


@main.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    import orjson

    click.echo(orjson.dumps(_openapi(), option=orjson.OPT_INDENT_2))


def _openapi() -> dict[str, Any]:
    from app.main import create_app

    return create_app(Settings.model_construct()).openapi()


if __name__ == "__main__":
    run()
