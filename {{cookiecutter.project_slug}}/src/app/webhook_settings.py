"""What the environment says about webhooks."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from app.settings_types import Token

# A source, and 24 to 64 bytes in base64, as Standard Webhooks has it.
_SENDER = r"[a-z0-9-]+:whsec_([A-Za-z0-9+/]{4}){8,21}([A-Za-z0-9+/]{2,3}={0,2})?"


def _check(secrets: SecretStr) -> SecretStr:
    if not re.fullmatch(f"({_SENDER}(,|$))+", secrets.get_secret_value()):
        raise ValueError(
            "it must be source:whsec_..., several with commas between; "
            "docs/webhooks.md says how to make a secret"
        )
    return secrets


WebhookSecrets = Annotated[
    Annotated[SecretStr, AfterValidator(_check)] | None,
    Field(
        description="Senders and their secrets, comma-separated: shop:whsec_... ; a sender has two "
        "while one replaces the other."
    ),
]
VerifyToken = Annotated[
    Token, Field(description="What hub.verify_token must be in a challenge; 16 characters up.")
]
