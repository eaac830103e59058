import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from app.settings import Settings, SettingsError, load_settings
from app.settings_docs import env_template, production_template, settings_page


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (".env.example", env_template),
        (".env.production.template", production_template),
        ("docs/settings.md", settings_page),
    ],
)
def test_generated_file_compared_with_settings_is_current(
    file: str, expected: Callable[[], str]
) -> None:
    path = Path(__file__).parent.parent / file
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    marks = ("# opt", "# end", "<!-- ")  # in the template only
    lines = [line for line in lines if not line.startswith(marks)]  # in the template only
    assert "".join(lines) == expected()


def test_every_setting_has_a_description() -> None:
    assert all(field.description for field in Settings.model_fields.values())


def production(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def test_variables_without_default_name_their_source_in_production() -> None:
    for name, field in Settings.model_fields.items():
        if field.default in (None, []):
            assert production(field).get("production"), name


def test_production_template_lists_required_variables_first() -> None:
    required = [
        n.upper() for n, f in Settings.model_fields.items() if production(f).get("required")
    ]
    names = re.findall(r"^(?:# )?([A-Z_]+)=", production_template(), re.MULTILINE)
    assert set(names[: len(required)]) == set(required)
    assert {name.upper() for name in Settings.model_fields} == set(names)


def test_empty_variables_of_the_production_template_are_refused_in_production(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(production_template(), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENVIRONMENT", "production")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    refused = [problem.split()[0] for problem in caught.value.problems]
    required = {
        n.upper() for n, f in Settings.model_fields.items() if production(f).get("required")
    }
    assert set(refused) == required - {"ENVIRONMENT"}
    assert len(refused) == len(set(refused))
