"""Settings of tracing."""

from typing import Annotated

from pydantic import Field, SecretStr

from app.settings_base import EnvironmentSettings, production_value, url_of


class TracingSettings(EnvironmentSettings):
    otel_exporter_otlp_endpoint: Annotated[SecretStr, url_of("https", "http")] | None = Field(
        None,
        description="OpenTelemetry collector that traces go to. Not set: no tracing.",
        json_schema_extra=production_value("The address of your collector."),
    )
    trace_ratio: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of requests that are traced, of those that come without a trace.",
    )
