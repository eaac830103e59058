"""The command line: `app serve`, `app dev`, `app check` and the others of `app --help`.

Commands import what they need when they run, so that each starts fast.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, NoReturn

import click
import structlog

from app.logging.setup import configure_logs
from app.settings import Settings, SettingsError, load_settings
from app.worker_commands import scheduler, worker  # option: worker

FAILED, BAD_CONFIGURATION = 1, 2
APP = "app.main:create_served_app"
COMMANDS: list[click.Command] = []  # those that live with their feature
COMMANDS += [worker, scheduler]  # option: worker

log = structlog.get_logger()


class Failure(click.ClickException):
    """One clear sentence, and exit code 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"error: {self.message}", file=file, err=True)


@contextmanager
def ready_settings() -> Iterator[Settings]:
    """Settings to work with, and logs set up; wrong settings end the program.

    In development, embedded servers stand in where no URL is given.
    """
    try:
        settings = load_settings()
    except SettingsError as error:
        _refuse(error.problems)
    configure_logs(settings)
    if settings.database_url is None:
        with _embedded() as variables:
            for name, url in variables.items():
                if getattr(settings, name.lower()) is None:
                    os.environ[name] = url
            yield load_settings()
    else:
        _refuse_bad_urls(settings)
        yield settings


@contextmanager
def _embedded() -> Iterator[dict[str, str]]:
    try:
        from app.dev.services import DataFolderError, embedded_services
    except ImportError:
        _refuse(["DATABASE_URL is missing, and the embedded PostgreSQL is not installed"])
    except OSError as error:
        raise Failure(f"PostgreSQL cannot be embedded: {error}") from error
    try:
        with embedded_services() as variables:
            yield variables
    except DataFolderError as error:
        raise Failure(str(error)) from error


def _refuse_bad_urls(settings: Settings) -> None:
    from app.db.url import parse_postgres_url

    for name in ("database_url", "database_unpooled_url"):
        url = getattr(settings, name)
        try:
            if url is not None:
                parse_postgres_url(url.get_secret_value(), variable=name.upper())
        except ValueError as error:
            _refuse([str(error)])


def _refuse(problems: list[str]) -> NoReturn:
    for problem in problems:
        click.echo(f"settings: {problem}", err=True)
    sys.exit(BAD_CONFIGURATION)


def run() -> None:
    """The program `app`."""
    # Without a handler, the first process of a container ignores SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    main()


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, commands=COMMANDS)
@click.pass_context
def main(context: click.Context) -> None:
    """Run and look after the service."""
    context.obj = ready_settings  # for COMMANDS


@main.command()
@click.option("--migrate", "migrates", is_flag=True, help="Migrate first, as `app migrate` does.")
def serve(*, migrates: bool) -> None:
    """Serve until SIGTERM. The database must be migrated already, unless told to migrate it."""
    with ready_settings() as settings:
        if migrates:
            _migrate(settings)
        _serve(settings, reload=False)


@main.command()
@click.option("--reload/--no-reload", default=True, help="Restart when a source file changes.")
def dev(*, reload: bool) -> None:
    """Migrate and serve on this machine.

    PORT says where, 8000 by default. PostgreSQL is embedded if DATABASE_URL is not set.
    """
    with ready_settings() as given:
        for name, value in (("host", "127.0.0.1"), ("drain_seconds", "0")):
            if name not in given.model_fields_set:
                os.environ[name.upper()] = value
        settings = load_settings()
        _migrate(settings)
        _serve(settings, reload=reload)


def _serve(settings: Settings, *, reload: bool) -> None:
    from app.web.server import ListenError, serve

    try:
        serve(APP, settings, reload=reload)
    except ListenError as error:
        raise Failure(str(error)) from error


@main.command()
def migrate() -> None:
    """Bring the database to the last migration. Many replicas may do so at once."""
    with ready_settings() as settings:
        _migrate(settings)


def _migrate(settings: Settings) -> None:
    from app.db.migrate import migrate
    from app.db.schema_version import MigrationError

    try:
        asyncio.run(migrate(settings))
    except MigrationError as error:
        log.critical("not migrated", reason=str(error))
        sys.exit(FAILED)


@main.command()
@click.argument("message")
def migration(message: str) -> None:
    """Write a migration from the models. MESSAGE says what it does, as in "add tags"."""
    from app.db.new_migration import write_migration
    from app.db.schema_version import MigrationError

    if not any(character.isalnum() for character in message):
        raise click.UsageError('say what it does, as in "add tags"')
    with ready_settings() as settings:
        _migrate(settings)
        try:
            new = asyncio.run(write_migration(settings, message))
        except MigrationError as error:
            raise Failure(str(error)) from error
        click.echo(new.path)
        if new.is_empty:
            note = "the models and the database agree, so it is empty: fill it in, or delete it"
            click.echo(f"note: {note}", err=True)


@main.command()
def seed() -> None:
    """Add every feature's example data; what is there already stays."""
    from app.db.session import open_database
    from app.discovery import find_modules

    async def run(settings: Settings) -> int:
        async with open_database(settings) as database:
            return sum([await module.seed(database) for module in find_modules("seed")])

    with ready_settings() as settings:
        _migrate(settings)
        click.echo(f"{asyncio.run(run(settings))} rows added")


@main.command()
def check() -> None:
    """Say what is wrong with settings, connections or schema. Exit code 1 if anything is."""
    from app.main import create_app

    async def run(settings: Settings) -> bool:
        app = create_app(settings)
        async with app.router.lifespan_context(app) as state:
            assert state is not None
            state["health"].allow_late_checks()
            components = await state["health"].components()
        for name, component in components.items():
            note = component.reason or f"{component.latency_ms} ms"
            click.echo(f"{name:<12}{component.status:<8}{note}")
        return all(component.status == "ok" for component in components.values())

    with ready_settings() as settings:
        configure_logs(settings.model_copy(update={"log_level": "error"}))  # the report says it all
        click.echo(f"{'settings':<12}{'ok':<8}{settings.environment}")
        if not asyncio.run(run(settings)):
            sys.exit(FAILED)


@main.command()
@click.option("--page", "form", flag_value="page", help="As docs/settings.md.")
@click.option("--production", "form", flag_value="production", help="And where each comes from.")
def env(form: str | None) -> None:
    """Print every environment variable, as a template for `.env`."""
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
