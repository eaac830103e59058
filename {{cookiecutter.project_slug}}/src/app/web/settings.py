"""Settings of the HTTP server, of the middleware and of the health endpoints."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator
from pydantic_settings import NoDecode

from app.settings_base import RANDOM_COMMAND, EnvironmentSettings, Token, production_value


def _split_commas(value: object) -> object:
    """Split a comma-separated text into lower-case items. Other values pass unchanged."""
    if isinstance(value, str):
        return [item.strip().lower() for item in value.split(",") if item.strip()]
    return value


Names = Annotated[list[str], NoDecode, BeforeValidator(_split_commas)]


class WebSettings(EnvironmentSettings):
    host: str = Field(
        "",
        description="Address to listen on; empty is every IPv4 and IPv6 address.",
        json_schema_extra=production_value("Leave it out: every address is right in a container."),
    )
    port: int = Field(
        8000,
        ge=0,
        le=65535,
        description="TCP port to listen on; 0 is any free one.",
        json_schema_extra=production_value("Leave it out: the platform sets it, or it is 8000."),
    )
    web_concurrency: int = Field(
        1, ge=1, le=64, description="Server processes. One per container is best: scale containers."
    )
    max_replicas: int | None = Field(
        None,
        ge=1,
        description="Most replicas that run at once, also during a deployment. With it, `app "
        "check` compares the connections of all replicas with PostgreSQL's max_connections.",
        json_schema_extra=production_value(
            "The largest number that the platform may start, with those of a deployment."
        ),
    )
    allowed_hosts: Names = Field(
        ["*"],
        description="Host names served, comma-separated; *.example.com matches subdomains. "
        "Probes answer to every name.",
        json_schema_extra=production_value(
            "The names that clients use: api.example.com", required=True
        ),
    )
    cors_origins: Names = Field(
        [],
        description="Browser origins that may call, comma-separated: https://app.example.com.",
        json_schema_extra=production_value(
            "The origins of your front ends. Without one, leave it out."
        ),
    )
    forwarded_allow_ips: str = Field(
        "127.0.0.1,::1",
        description="Proxies whose X-Forwarded-* headers are trusted, comma-separated.",
        json_schema_extra=production_value(
            "The network of the platform's proxies; its documentation names it."
        ),
    )
    max_body_bytes: int = Field(1_048_576, ge=0, description="Largest request body, in bytes.")
    request_body_timeout_seconds: float = Field(
        60, gt=0, le=3600, description="Longest wait for a request's body, then 408."
    )
    api_docs: bool | None = Field(
        None,
        description="Serve /docs and /openapi.json; by default everywhere but in production.",
        json_schema_extra=production_value("Write true to publish the documentation of the API."),
    )
    health_token: Token = Field(
        None,
        description="Bearer token that opens /health/detailed in production; at least 16 "
        "characters.",
        json_schema_extra=production_value(f"Make it with {RANDOM_COMMAND}"),
    )
    drain_seconds: float = Field(
        5,
        ge=0,
        le=300,
        description="After SIGTERM: time for the load balancer to see that /health/ready fails.",
    )
    graceful_timeout_seconds: int = Field(
        20, ge=1, le=900, description="After the drain: longest wait for requests in flight."
    )

    @field_validator("cors_origins")
    @classmethod
    def check_origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s@?#]+", origin):
                raise ValueError("an origin is scheme://host[:port], without a path or final slash")
        return origins

    @property
    def serves_docs(self) -> bool:
        return self.environment != "production" if self.api_docs is None else self.api_docs

    def insecure_values(self) -> list[str]:
        found = super().insecure_values()
        if "*" in self.allowed_hosts:
            found.append("ALLOWED_HOSTS must name the hosts served, for example api.example.com")
        return found
