import re
from pathlib import Path

import pytest

from app.settings import (
    Settings,
    SettingsError,
    compose_variables,
    load_settings,
    unknown_variables,
)
from conftest import MAIL_OF_PRODUCTION  # option: accounts
from processes import ROOT

PRODUCTION = {
    "ENVIRONMENT": "production",
    "DATABASE_URL": "postgresql://app:f8Zk2q@db/app",
    "ALLOWED_HOSTS": "api.example.com",
    "AUTH_KEYS": "2026-11:Zq7wN1cT0pVxK4mB8sRj2LdYhU6gEaFo",  # option: accounts
    "OIDC_ISSUER": "https://login.example.com",  # option: oidc
    "OIDC_AUDIENCE": "https://api.example.com",  # option: oidc
}
PRODUCTION |= {k.upper(): v for k, v in MAIL_OF_PRODUCTION.items()}  # option: accounts


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


def test_settings_in_development_need_no_variable() -> None:
    assert load_settings().is_development


def test_settings_with_several_problems_report_one_line_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = problems(monkeypatch, PORT="http", LOG_LEVEL="loud", DATABASE_URL="mysql://x/y")
    assert [line.partition(":")[0] for line in found] == ["LOG_LEVEL", "PORT", "DATABASE_URL"]
    assert all("\n" not in line for line in found)
    assert "valid integer" in found[1]
    assert "postgresql://" in found[2]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"DATABASE_URL": ""}, "DATABASE_URL is missing"),
        ({"DATABASE_URL": "postgresql://app:changeme@db/app"}, "placeholder"),
        ({"DATABASE_URL": "postgresql://u:p@db/app?colour=red"}, "DATABASE_URL: this service"),
        ({"DATABASE_UNPOOLED_URL": "db"}, "DATABASE_UNPOOLED_URL: it is not of the form"),
        ({"ALLOWED_HOSTS": "*"}, "ALLOWED_HOSTS must name"),
        ({"HEALTH_TOKEN": "short"}, "HEALTH_TOKEN: it must have at least 16 characters"),
        ({"WEBHOOK_SECRETS": "x"}, "WEBHOOK_SECRETS: entry 1 is invalid"),  # option: webhooks
        ({"AUTH_KEYS": ""}, "AUTH_KEYS is missing"),  # option: accounts
        ({"AUTH_KEYS": f"new:{'change-me' * 4}"}, "has a placeholder"),  # option: accounts
        ({"SMTP_TLS": "none"}, "SMTP_TLS is none"),  # option: accounts
        ({"AUTH_KEYS": "new:short"}, "must have at least 32 characters"),  # option: accounts
        ({"OIDC_ISSUER": ""}, "OIDC_ISSUER is missing"),  # option: oidc
        ({"OIDC_ISSUER": "http://login.example.com"}, "must begin with https://"),  # option: oidc
        ({"OIDC_AUDIENCE": " , "}, "OIDC_AUDIENCE is missing"),  # option: oidc
        ({"OIDC_PERMISSIONS": "editor"}, "OIDC_PERMISSIONS: 'editor' is invalid"),  # option: oidc
        ({"REDIS_URL": "redis://:hunter2/pw@cache/0"}, "REDIS_URL: invalid"),  # option: redis
        ({"CORS_ORIGINS": "https://app.example.com/"}, "without a path or final slash"),
    ],
)
def test_settings_with_an_insecure_or_malformed_value_are_refused_in_production(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    found = problems(monkeypatch, **{**PRODUCTION, **variables})
    assert len(found) == 1
    assert expected in found[0]


def test_settings_of_a_sound_production_environment_are_accepted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.allowed_hosts == ["api.example.com"]
    assert settings.logs_are_json
    assert not settings.serves_docs


def test_secrets_in_settings_and_errors_are_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PRODUCTION.items():
        monkeypatch.setenv(name, value)
    assert "f8Zk2q" not in repr(load_settings())
    found = problems(monkeypatch, DATABASE_URL="mysql://app:f8Zk2q@db/app")
    assert "f8Zk2q" not in "".join(found)


def test_env_file_is_read_and_the_environment_takes_precedence(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / ".env").write_text("PORT=1234\nLOG_LEVEL=debug\n")
    monkeypatch.setenv("PORT", "4321")
    settings = load_settings()
    assert (settings.port, settings.log_level) == (4321, "debug")


def test_env_file_that_is_unreadable_is_a_problem_without_traceback(
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
def test_commit_of_the_platform_takes_precedence_over_that_of_the_image(
    monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    assert load_settings().commit_sha == "unknown"
    monkeypatch.setenv("COMMIT_SHA", "unknown")
    monkeypatch.setenv(platform, "c0ffee")
    assert load_settings().commit_sha == "c0ffee"
    assert Settings(commit_sha="beef").commit_sha == "beef"


def test_unknown_variables_are_reported_with_the_nearest_name(elsewhere: Path) -> None:
    (elsewhere / ".env").write_text(
        "DATABSE_URL=x\nport=1\n_TEST=x\nCOMPOSE_PROJECT_NAME=x\nCOMMIT_SHA=x\n# COMMENT=x\n"
    )
    assert unknown_variables() == [
        ".env has DATABSE_URL, which no setting reads: did you mean DATABASE_URL?",
        ".env has _TEST, which no setting reads",
    ]


def test_unknown_variables_without_env_file_are_none() -> None:
    assert unknown_variables() == []


@pytest.mark.skipif(
    not (ROOT / "compose.yaml").exists(), reason="the image does not contain compose.yaml"
)
def test_compose_variables_are_those_of_compose_files_that_no_setting_reads(
    elsewhere: Path,
) -> None:
    compose = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("compose*.yaml"))
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", compose))
    assert used - {name.upper() for name in Settings.model_fields} == compose_variables()
    (elsewhere / ".env").write_text("".join(f"{name}=1\n" for name in used))
    assert unknown_variables() == []
