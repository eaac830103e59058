"""Types that the settings of several packages share."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, SecretStr
from pydantic_settings import NoDecode

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


CommaSeparated = Annotated[list[str], NoDecode]
Token = Annotated[SecretStr, AfterValidator(_check_token)] | None


def split_commas(value: object) -> object:
    """Split a comma-separated text into lower-case items. Other values pass unchanged."""
    if isinstance(value, str):
        return [item.strip().lower() for item in value.split(",") if item.strip()]
    return value


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
