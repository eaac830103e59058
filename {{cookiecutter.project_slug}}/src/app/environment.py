"""The environment that the service runs in. Packages derive their own settings from it."""

from typing import Literal

from pydantic import AliasChoices, BaseModel, Field

from app.settings_types import production_value

# Variables that name the commit. A platform that builds from Git overrides the image's value.
COMMIT_VARIABLES = ["commit_sha"]
COMMIT_VARIABLES.insert(0, "railway_git_commit_sha")  # option: railway
COMMIT_VARIABLES.insert(0, "render_git_commit")  # option: render


class EnvironmentSettings(BaseModel):
    environment: Literal["development", "test", "staging", "production"] = Field(
        "development",
        description="Where this runs. Outside development, insecure values are refused.",
        json_schema_extra=production_value("Write production, or staging.", required=True),
    )
    commit_sha: str = Field(
        "unknown",
        validation_alias=AliasChoices(*COMMIT_VARIABLES),
        description="Commit the running code was built from.",
        json_schema_extra=production_value("`make image` puts it into the image."),
    )

    @property
    def is_development(self) -> bool:
        return self.environment == "development"

    @property
    def is_deployed(self) -> bool:
        """Whether clients that this team does not control can reach the service."""
        return self.environment in {"staging", "production"}

    def insecure_values(self) -> list[str]:
        """Return one sentence for each value that staging and production must not have.

        A package that has such values overrides this method and extends the list of `super()`.
        """
        return []
