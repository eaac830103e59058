"""The environment that the service runs in. Packages derive their own settings from it."""

from typing import Literal

from pydantic import AliasChoices, BaseModel, Field

from app.settings_types import production

# Variables that name the commit. A platform that builds from Git overrides the image's value.
_COMMIT = ["commit_sha"]
_COMMIT.insert(0, "railway_git_commit_sha")  # option: railway
_COMMIT.insert(0, "render_git_commit")  # option: render


class EnvironmentSettings(BaseModel):
    environment: Literal["development", "test", "staging", "production"] = Field(
        "development",
        description="Where this runs. Outside development, insecure values are refused.",
        json_schema_extra=production("Write production, or staging.", required=True),
    )
    commit_sha: str = Field(
        "unknown",
        validation_alias=AliasChoices(*_COMMIT),
        description="Commit the running code was built from.",
        json_schema_extra=production("`make image` puts it into the image."),
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
