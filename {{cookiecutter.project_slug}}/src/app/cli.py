"""The commands of the program `app`. `app --help` lists them.

Commands import modules when they run, so that each command starts fast.
"""

import asyncio
import os
import signal
import sys
from typing import Any

import click
import structlog

from app.command_settings import load_command_settings
from app.logging.setup import configure_logs
from app.settings import Settings, load_settings, unknown_variables
from app.worker_commands import scheduler, worker  # option: worker

FAILED = 1  # exit code
APP = "app.main:create_served_app"
COMMANDS: list[click.Command] = []  # of other modules
COMMANDS += [worker, scheduler]  # option: worker

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
            _migrate(settings)
        _serve(settings, reload=False)


@main.command()
@click.option("--reload/--no-reload", default=True, help="Restart when a source file changes.")
def dev(*, reload: bool) -> None:
    """Migrate and serve on this machine.

    The port is PORT, 8000 by default. PostgreSQL is embedded if DATABASE_URL is not set.
    """
    with load_command_settings() as initial_settings:
        for name, value in (("host", "127.0.0.1"), ("drain_seconds", "0")):
            if name not in initial_settings.model_fields_set:
                os.environ[name.upper()] = value
        settings = load_settings()
        _migrate(settings)
        _serve(settings, reload=reload)


def _serve(settings: Settings, *, reload: bool) -> None:
    from app.metrics.prometheus import shared_metrics  # option: metrics
    from app.web.server import serve

    shared = shared_metrics(settings.web_concurrency)  # option: metrics
    click.get_current_context().with_resource(shared)  # option: metrics
    serve(APP, settings, reload=reload)


@main.command()
def migrate() -> None:
    """Run `alembic upgrade head` under a lock. Several replicas may run this at once."""
    with load_command_settings() as settings:
        _migrate(settings)


def _migrate(settings: Settings, *, accept_newer: bool = True) -> None:
    from app.db.migrate import migrate
    from app.db.schema_version import MigrationError

    try:
        asyncio.run(migrate(settings, accept_newer=accept_newer))
    except MigrationError as error:
        log.critical("not migrated", reason=str(error))
        sys.exit(FAILED)


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
        _migrate(settings, accept_newer=False)
        try:
            command.revision(Config(toml_file="pyproject.toml"), message, autogenerate=True)
        except CommandError as error:
            raise click.ClickException(str(error)) from error


@main.command()
def seed() -> None:
    """Add the example data of every feature. Existing rows stay."""
    from app.db.session import open_database
    from app.discovery import find_modules

    async def run(settings: Settings) -> int:
        async with open_database(settings) as database:
            return sum([await module.seed(database) for module in find_modules("seed")])

    with load_command_settings() as settings:
        _migrate(settings)
        click.echo(f"{asyncio.run(run(settings))} rows added")


@main.command()
def check() -> None:
    """Report problems of settings, connections and schema. Exit code 1 if there is one."""
    from app.main import create_app

    async def run(settings: Settings) -> bool:
        app = create_app(settings)
        async with app.router.lifespan_context(app) as state:
            assert state is not None
            state["health"].extend_timeouts()
            components = await state["health"].components()
        for name, component in components.items():
            _report(name, component.status, component.reason or f"{component.latency_ms} ms")
        return all(component.status == "ok" for component in components.values())

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
def env(form: str | None) -> None:
    """Print every environment variable and its default."""
    from app.settings_docs import env_template, production_template, settings_page

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
