"""Check the SQL of migrations with Squawk, a development dependency."""

import io
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import Script

from app.db.schema_version import explain

PROJECT = Path(__file__).parents[3]  # has .squawk.toml


def unsafe_statements(script: Script) -> list[str]:
    """Return the advice of Squawk on a migration: a line for each unsafe statement.

    Raises:
        OSError: Squawk is not installed.
        ValueError: the migration reads rows, so that its SQL cannot be written without a
            database, or Squawk does not understand its configuration.
    """
    if script.is_merge_point:
        return []  # a merge has no statements
    assert isinstance(script.down_revision, str | None)
    config = Config(output_buffer=(sql := io.StringIO()))
    config.set_main_option("script_location", str(Path(script.path).parents[1]))
    log = logging.getLogger("alembic.runtime.migration")
    level = log.level
    log.setLevel(logging.WARNING)  # its lines would say that the migration runs
    try:
        command.upgrade(config, f"{script.down_revision or 'base'}:{script.revision}", sql=True)
    except Exception as error:  # a migration is code, which may raise any error
        raise ValueError(
            f"Squawk cannot check a migration that reads rows ({explain(error)}): "
            "write `if not op.get_context().as_sql:` above the statements that read"
        ) from error
    finally:
        log.setLevel(level)
    return check(sql.getvalue(), Path(script.path).name)


def check(sql: str, name: str) -> list[str]:
    """Return the advice of Squawk on SQL, each line with the name of its file.

    Raises:
        OSError: Squawk is not installed.
        ValueError: Squawk does not understand its configuration.
    """
    program = shutil.which("squawk", path=Path(sys.executable).parent)
    if program is None:
        raise FileNotFoundError("squawk is not installed: run `uv sync`")
    result = subprocess.run(
        [program, "--reporter", "json", "--stdin-filepath", name],
        input=sql, cwd=PROJECT, capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip
    if not result.stdout:
        raise ValueError(f"squawk failed: {result.stderr.strip()}")
    return [
        " ".join([f"{name}:", found["message"], found["help"] or "", f"({found['rule_name']})"])
        for found in json.loads(result.stdout)
    ]
