"""The setting of the metrics endpoint."""

from pydantic import Field

from app.settings_base import RANDOM_COMMAND, EnvironmentSettings, Token, production_value

COMPOSE_VARIABLES = ["GRAFANA_PORT", "PROMETHEUS_PORT"]  # of compose.yaml; no setting reads them


class MetricsSettings(EnvironmentSettings):
    metrics_token: Token = Field(
        None,
        description="Bearer token that opens /metrics in production; at least 16 characters.",
        json_schema_extra=production_value(f"Make it with {RANDOM_COMMAND}"),
    )
