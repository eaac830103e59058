"""The manifests of Kubernetes, compared with the settings."""

import uuid
from math import ceil

import pytest
import yaml
from pydantic import SecretStr

from app.settings import Settings
from manifests import ENVIRONMENTS, TEMPLATE, load, names_in, values_of
from processes import ROOT

PASSWORD = uuid.uuid4().hex


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_config_map_and_secret_have_every_required_variable(environment: str) -> None:
    template = (ROOT / ".env.production.template").read_text(encoding="utf-8")
    given = set(values_of(environment)) | names_in(TEMPLATE.read_text(encoding="utf-8"))
    assert names_in(template) <= given, "add the variable to config.env, or to secret.env.template"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_config_map_is_accepted_by_the_settings_and_has_no_secret(
    environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = values_of(environment)
    fields = Settings.model_fields
    assert {name.lower() for name in values} <= set(fields), "no setting reads it"
    secrets = [name for name in values if "Secret" in str(fields[name.lower()].annotation)]
    assert secrets == []
    # Values of the Secret, in the form that production accepts.
    secret = {"DATABASE_URL": f"postgresql://app:{PASSWORD}@database/app"}
    secret |= {"AUTH_KEYS": "first:" + PASSWORD}  # option: accounts
    secret |= {"SMTP_USERNAME": "service", "SMTP_PASSWORD": PASSWORD}  # option: accounts
    for name, value in {**values, **secret}.items():
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None)
    assert settings.environment == environment
    assert isinstance(settings.database_url, SecretStr)


def test_replicas_of_the_config_map_are_those_of_the_autoscaler() -> None:
    largest = load("base/autoscaler.yaml")["spec"]["maxReplicas"]
    surge = load("base/deployment.yaml")["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
    share = int(surge.removesuffix("%")) / 100
    assert values_of("production")["MAX_REPLICAS"] == str(2 * largest + ceil(largest * share))
    staging = load("overlays/staging/kustomization.yaml")["patches"][-1]["patch"]
    (operation,) = yaml.safe_load(staging)
    largest = operation["value"]
    assert values_of("staging")["MAX_REPLICAS"] == str(2 * largest + ceil(largest * share))


def test_values_of_secrets_are_neither_in_git_nor_in_an_image() -> None:
    for name in (".gitignore", ".dockerignore"):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        assert "deploy/kubernetes/secrets/*.env" in lines, name
