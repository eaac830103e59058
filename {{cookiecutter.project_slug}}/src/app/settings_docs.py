"""What people read about the settings, made from the class: `.env.example` and docs/settings.md."""

from collections.abc import Iterator

from app.settings import Settings


def env_template() -> str:
    """Every variable with its meaning and default, in the form of an `.env` file."""
    return "\n".join(f"# {text}\n# {name}={default}\n" for name, default, text in _variables())


def settings_page() -> str:
    """The same as a page for docs/."""
    head = "# Settings\n\nMade by `uv run app env --page`, from `src/app/settings.py`.\n"
    return head + "".join(
        f"\n## {name}\n\n{text}\n{f'Default: `{default}`.' if default else 'Not set by default.'}\n"
        for name, default, text in _variables()
    )


def _variables() -> Iterator[tuple[str, str, str]]:
    for name, field in Settings.model_fields.items():
        default = field.default
        value = ",".join(default) if isinstance(default, list) else default
        yield name.upper(), "" if value is None else str(value), field.description or ""
