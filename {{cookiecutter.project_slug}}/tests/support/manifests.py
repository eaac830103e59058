"""The manifests of Kubernetes, read without kubectl."""

from typing import Any

import yaml

from processes import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
TEMPLATE = KUBERNETES / "secrets" / "secret.env.template"
ENVIRONMENTS = ["production", "staging"]


def names_in(text: str) -> set[str]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {line.partition("=")[0] for line in lines}


def values_of(environment: str) -> dict[str, str]:
    """Return the variables of the ConfigMap of an environment. Later files have precedence."""
    paths = [KUBERNETES / "base", *sorted((KUBERNETES / "components").glob("worker*"))]
    values: dict[str, str] = {}
    for folder in [*paths, KUBERNETES / "overlays" / environment]:
        for line in (folder / "config.env").read_text(encoding="utf-8").splitlines():
            name, is_variable, value = line.partition("=")
            if is_variable and not line.startswith("#"):
                values[name] = value
    return values


def load(path: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((KUBERNETES / path).read_text(encoding="utf-8"))
    return document
