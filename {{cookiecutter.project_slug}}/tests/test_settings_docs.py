from collections.abc import Callable
from pathlib import Path

import pytest

from app.settings import Settings, SettingsError, load_settings
from app.settings_docs import (
    REQUIRED,
    SOURCES,
    env_template,
    production_template,
    settings_page,
)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (".env.example", env_template),
        (".env.production.template", production_template),
        ("docs/settings.md", settings_page),
    ],
)
def test_the_pages_of_variables_are_what_the_settings_say(
    file: str, expected: Callable[[], str]
) -> None:
    path = Path(__file__).parent.parent / file
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    marks = ("# opt", "# end", "<!-- ")  # in the template only
    lines = [line for line in lines if not line.startswith(marks)]  # in the template only
    assert "".join(lines) == expected()


def test_every_variable_is_documented() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def test_the_template_for_production_says_where_each_value_comes_from() -> None:
    fields = {name.upper(): field for name, field in Settings.model_fields.items()}
    assert set(SOURCES) <= set(fields)
    without_default = {name for name, field in fields.items() if field.default in (None, [])}
    assert without_default <= set(SOURCES)


def test_what_the_template_for_production_leaves_empty_is_what_production_refuses_to_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(production_template(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENVIRONMENT", "production")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    refused = [problem.split()[0] for problem in caught.value.problems]
    assert refused == [name for name in REQUIRED if name != "ENVIRONMENT"]
