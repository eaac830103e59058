import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from app.settings import Settings, SettingsError, load_settings
from app.settings_base import EnvironmentSettings
from app.settings_docs import env_template, production_template, settings_page, write_files
from processes import ROOT

WRITE = "`uv run app env --write`"


class KeySettings(BaseModel):
    test_key: str = Field(description="A key.")
    test_names: list[str] = Field(default_factory=lambda: ["a", "b"], description="Names.")


class SettingsOfThisTest(KeySettings, EnvironmentSettings):
    pass


def fields_of_the_template() -> dict[str, FieldInfo]:
    """Return the settings of the infrastructure; in the template, those of the features, too."""
    found: dict[str, FieldInfo] = {}
    for owner in Settings.__bases__:
        is_infrastructure = not owner.__module__.startswith("app.features.")
        is_infrastructure = True  # in the template only
        if is_infrastructure and issubclass(owner, BaseModel):
            found |= owner.model_fields
    return found


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
    path = ROOT / file
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    marks = ("# opt", "# end", "<!-- ")  # in the template only
    lines = [line for line in lines if not line.startswith(marks)]  # in the template only
    assert "".join(lines) == expected(), f"{file} is not current: run `make docs`, or {WRITE}"


def test_write_files_in_a_project_writes_the_changed_ones_only(tmp_path: Path) -> None:
    names = [".env.example", ".env.production.template", "docs/settings.md"]
    with pytest.raises(FileNotFoundError, match=r"none of \.env\.example, "):
        list(write_files(tmp_path))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".env.example").write_text("# of an older version\n")
    assert list(write_files(tmp_path)) == [(name, True) for name in names]
    assert (tmp_path / ".env.example").read_bytes() == env_template().encode()
    assert (tmp_path / ".env.production.template").read_bytes() == production_template().encode()
    assert (tmp_path / "docs" / "settings.md").read_bytes() == settings_page().encode()

    before = {name: (tmp_path / name).stat().st_mtime_ns for name in names}
    (tmp_path / names[1]).write_text("")
    assert list(write_files(tmp_path)) == [(n, n == ".env.production.template") for n in names]
    assert (tmp_path / names[0]).stat().st_mtime_ns == before[names[0]]


def test_every_setting_has_a_description() -> None:
    fields = Settings.model_fields.items()
    assert [name for name, field in fields if not field.description] == []


def test_setting_without_default_is_required_in_every_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.settings_docs.Settings", SettingsOfThisTest)
    assert "# A key.\n# TEST_KEY=\n" in env_template()
    assert "# Names.\n# TEST_NAMES=a,b\n" in env_template()
    assert "# A key.\n# Every environment needs a value.\nTEST_KEY=\n" in production_template()
    assert "## TEST_KEY\n\nA key.\nRequired.\n" in settings_page()


def production(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def test_variables_without_default_name_their_source_in_production() -> None:
    for name, field in fields_of_the_template().items():
        if field.default in (None, []):
            assert production(field).get("production"), name


def test_production_template_lists_required_variables_first() -> None:
    required = [
        name.upper()
        for name, field in Settings.model_fields.items()
        if field.is_required() or production(field).get("required")
    ]
    names = re.findall(r"^(?:# )?([A-Z0-9_]+)=", production_template(), re.MULTILINE)
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
        n.upper() for n, f in fields_of_the_template().items() if production(f).get("required")
    }
    assert required - {"ENVIRONMENT"} <= set(refused)
    assert sorted(refused) == sorted(required - {"ENVIRONMENT"})  # in the template only
