"""The base class, types and validators of the settings of every package."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, BaseModel, Field, SecretStr

# Variables that name the commit. A platform that builds from Git overrides the image's value.
COMMIT_VARIABLES = ["commit_sha"]
COMMIT_VARIABLES.insert(0, "railway_git_commit_sha")  # option: railway
COMMIT_VARIABLES.insert(0, "render_git_commit")  # option: render
MIN_TOKEN_LENGTH = 16
# user:password@host:port/path. A "/" in a password would make libraries read the part before it as
# the port, and their error shows that part.
AFTER_SCHEME = r"(?=.)([^/?#[\]]*@)?([^\s/?#[\]@:]*|\[[0-9A-Fa-f:.]+\])(:\d{0,5})?([/?]\S*)?"
RANDOM_COMMAND = '`python3 -c "import secrets; print(secrets.token_urlsafe(32))"`'


def production_value(source: str, *, required: bool = False) -> dict[str, Any]:
    """Return a field's `json_schema_extra`: where its value in production comes from.

    Args:
        source: one sentence for `.env.production.template`.
        required: whether production needs a value.
    """
    return {"production": source, "required": required}


def _check_token(token: SecretStr) -> SecretStr:
    if len(token) < MIN_TOKEN_LENGTH:
        raise ValueError(f"it must have at least {MIN_TOKEN_LENGTH} characters")
    return token


Token = Annotated[SecretStr, AfterValidator(_check_token)] | None


def url_of(*schemes: str, rest: str = AFTER_SCHEME) -> AfterValidator:
    """Return a validator for URLs with one of these schemes, possibly with a driver after a `+`.

    Args:
        schemes: without `://`.
        rest: a pattern for the part after the scheme.
    """
    beginning = re.compile(rf"({'|'.join(schemes)})(\+\w+)?://")
    whole = re.compile(f"{beginning.pattern}{rest}", re.DOTALL)

    def check(url: SecretStr) -> SecretStr:
        text = url.get_secret_value().strip()
        if not beginning.match(text):
            raise ValueError(f"it must begin with {' or '.join(f'{s}://' for s in schemes)}")
        if not whole.fullmatch(text):
            raise ValueError("invalid URL after the scheme")
        return url

    return AfterValidator(check)


class EnvironmentSettings(BaseModel):
    """The environment that the service runs in. Packages derive their own settings from it."""

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

    def docs_origins(self) -> list[str]:  # option: oidc
        """Return the origins that the page /docs sends requests to."""  # option: oidc
        return []  # option: oidc

    def insecure_values(self) -> list[str]:
        """Return one sentence for each value that staging and production must not have.

        A package that has such values overrides this method and extends the list of `super()`.
        """
        return []
