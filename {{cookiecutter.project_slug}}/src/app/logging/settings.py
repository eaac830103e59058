"""Settings of the logs."""

from typing import Literal

from pydantic import Field

from app.settings_base import EnvironmentSettings, production_value


class LogSettings(EnvironmentSettings):
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log line that is written."
    )
    log_format: Literal["json", "console"] | None = Field(
        None,
        description="json or console; by default console in development, else json.",
        json_schema_extra=production_value("Leave it out: json is right."),
    )

    @property
    def logs_are_json(self) -> bool:
        return (self.log_format or ("console" if self.is_development else "json")) == "json"
