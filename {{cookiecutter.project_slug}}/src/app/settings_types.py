"""What several settings have in common."""

import re
from typing import Annotated

from pydantic import AfterValidator, AliasChoices, SecretStr
from pydantic_settings import NoDecode

SHORTEST_TOKEN = 16
# user:password@host:port/path. With a / in a password, libraries take what comes before it for the
# port, and say so in an error that shows it.
PLACE = r"(?=.)([^/?#[\]]*@)?([^\s/?#[\]@:]*|\[[0-9A-Fa-f:.]+\])(:\d{0,5})?([/?]\S*)?"


def _check_token(token: SecretStr) -> SecretStr:
    if len(token) < SHORTEST_TOKEN:
        raise ValueError(f"it must have {SHORTEST_TOKEN} characters at least")
    return token


CommaSeparated = Annotated[list[str], NoDecode]
Token = Annotated[SecretStr, AfterValidator(_check_token)] | None

# Variables that name the commit. A platform that builds from Git knows it better than the image.
_COMMIT = ["commit_sha"]
_COMMIT.insert(0, "railway_git_commit_sha")  # option: railway
_COMMIT.insert(0, "render_git_commit")  # option: render
COMMIT = AliasChoices(*_COMMIT)


def url_of(*schemes: str, rest: str = PLACE) -> AfterValidator:
    """A URL must have one of these schemes, possibly with a driver behind a +.

    Args:
        schemes: without ://
        rest: a pattern for what follows.
    """
    beginning = re.compile(rf"({'|'.join(schemes)})(\+\w+)?://")
    whole = re.compile(f"{beginning.pattern}{rest}", re.DOTALL)

    def check(url: SecretStr) -> SecretStr:
        text = url.get_secret_value().strip()
        if not beginning.match(text):
            raise ValueError(f"it must begin with {' or '.join(f'{s}://' for s in schemes)}")
        if not whole.fullmatch(text):
            raise ValueError("something is missing or mistyped behind ://")
        return url

    return AfterValidator(check)
