"""What the environment says about tracing."""

from typing import Annotated

from pydantic import Field, SecretStr

from app.settings_types import url_of

Collector = Annotated[
    Annotated[SecretStr, url_of("https", "http")] | None,
    Field(description="OpenTelemetry collector that traces go to. Not set: no tracing."),
]
TraceRatio = Annotated[
    float,
    Field(
        ge=0,
        le=1,
        description="Share of requests that are traced, of those that come without a trace.",
    ),
]
