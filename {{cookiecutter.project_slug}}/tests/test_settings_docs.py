from collections.abc import Callable
from pathlib import Path

import pytest

from app.settings import Settings
from app.settings_docs import env_template, settings_page


@pytest.mark.parametrize(
    ("file", "expected"), [(".env.example", env_template), ("docs/settings.md", settings_page)]
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
