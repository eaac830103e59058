from pathlib import Path

import pytest

from app.settings import Settings, SettingsError, load_settings

PRODUCTION = {
    "ENVIRONMENT": "production",
    "DATABASE_URL": "postgresql://app:f8Zk2q@db/app",
    "ALLOWED_HOSTS": "api.example.com",
    "AUTH_KEYS": "2026-11:Zq7wN1cT0pVxK4mB8sRj2LdYhU6gEaFo",  # option: auth
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without an `.env` file."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[str]:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    return caught.value.problems


def test_development_needs_no_variable() -> None:
    assert load_settings().is_development


def test_every_problem_is_one_readable_line(monkeypatch: pytest.MonkeyPatch) -> None:
    found = problems(monkeypatch, PORT="http", LOG_LEVEL="loud", DATABASE_URL="mysql://x/y")
    assert [line.partition(":")[0] for line in found] == ["PORT", "LOG_LEVEL", "DATABASE_URL"]
    assert all("\n" not in line for line in found)
    assert "valid integer" in found[0]
    assert "postgresql://" in found[2]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"DATABASE_URL": ""}, "DATABASE_URL is missing"),
        ({"DATABASE_URL": "postgresql://app:changeme@db/app"}, "placeholder"),
        ({"ALLOWED_HOSTS": "*"}, "ALLOWED_HOSTS must name"),
        ({"HEALTH_TOKEN": "short"}, "HEALTH_TOKEN: it must have at least 16 characters"),
        ({"WEBHOOK_SECRETS": "x"}, "WEBHOOK_SECRETS: it must be source:"),  # option: webhooks
        ({"AUTH_KEYS": ""}, "AUTH_KEYS is missing"),  # option: auth
        ({"AUTH_KEYS": f"new:{'change-me' * 4}"}, "AUTH_KEYS has a placeholder"),  # option: auth
        ({"AUTH_KEYS": "new:short"}, "AUTH_KEYS: a secret must have 32"),  # option: auth
        ({"REDIS_URL": "redis://:hunter2/pw@cache/0"}, "REDIS_URL: something is"),  # option: redis
        ({"CORS_ORIGINS": "https://app.example.com/"}, "without a path or final slash"),
    ],
)
def test_insecure_or_malformed_values_are_refused_in_production(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    found = problems(monkeypatch, **{**PRODUCTION, **variables})
    assert len(found) == 1
    assert expected in found[0]


def test_a_sound_production_environment_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.allowed_hosts == ["api.example.com"]
    assert settings.logs_are_json
    assert not settings.serves_docs


def test_secrets_are_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    assert "f8Zk2q" not in repr(load_settings())
    found = problems(monkeypatch, DATABASE_URL="mysql://app:f8Zk2q@db/app")
    assert "f8Zk2q" not in "".join(found)


def test_a_dot_env_file_is_read_and_the_environment_wins(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / ".env").write_text("PORT=1234\nLOG_LEVEL=debug\n")
    monkeypatch.setenv("PORT", "4321")
    settings = load_settings()
    assert (settings.port, settings.log_level) == (4321, "debug")


def test_an_unreadable_dot_env_file_is_a_problem_not_a_traceback(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / ".env").write_bytes(b"PORT=\xff\xfe")
    assert ".env cannot be read" in problems(monkeypatch)[0]


@pytest.mark.parametrize(
    "platform",
    [
        "COMMIT_SHA",
        "RAILWAY_GIT_COMMIT_SHA",  # option: railway
        "RENDER_GIT_COMMIT",  # option: render
    ],
)
def test_the_commit_is_the_one_that_the_platform_names_before_that_of_the_image(
    monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    assert load_settings().commit_sha == "unknown"
    monkeypatch.setenv("COMMIT_SHA", "unknown")
    monkeypatch.setenv(platform, "c0ffee")
    assert load_settings().commit_sha == "c0ffee"
    assert Settings(commit_sha="beef").commit_sha == "beef"
