"""What the environment says about webhooks."""

from typing import Annotated

from pydantic import Field, Secret

from app.settings_types import Token

# A source, and 24 to 64 bytes in base64, as Standard Webhooks has it.
_SENDER = r"[a-z0-9-]+:whsec_([A-Za-z0-9+/]{4}){8,21}([A-Za-z0-9+/]{2,3}={0,2})?"

WebhookSecrets = Annotated[
    Secret[Annotated[str, Field(pattern=f"^({_SENDER}(,|$))+$")]] | None,
    Field(
        description="Senders and their secrets, comma-separated: shop:whsec_... ; a sender has two "
        "while one replaces the other."
    ),
]
VerifyToken = Annotated[
    Token, Field(description="What hub.verify_token must be in a challenge; 16 characters up.")
]
