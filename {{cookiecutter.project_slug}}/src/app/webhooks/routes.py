"""The routes, and what they need for as long as the service runs."""

import hmac
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, Field, SecretStr
from starlette.requests import ClientDisconnect

from app.database import Database
from app.dependencies import WriteTransaction
from app.errors import NotFound, Problem
from app.middleware import ContentTooLarge
from app.problems import responses
from app.settings import Settings
from app.webhooks import service, signatures
from app.webhooks.jobs import open_worker_processor  # option: worker

log = structlog.get_logger()

TAG = {"name": "webhooks", "description": "Signed deliveries of other services."}
router = APIRouter(prefix="/webhooks", tags=[TAG["name"]])


class UnknownSource(NotFound):
    type = "urn:problem:unknown-webhook-source"
    title = "Unknown Webhook Source"


class InvalidSignature(Problem):
    status = 401
    type = "urn:problem:invalid-webhook-signature"
    title = "Invalid Webhook Signature"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Webhook-Signature"})


class ChallengeRefused(Problem):
    status = 403
    type = "urn:problem:webhook-challenge-refused"
    title = "Webhook Challenge Refused"


class Receipt(BaseModel):
    status: Literal["stored", "repeated"] = Field(
        description="repeated: it was stored before, and is not processed again."
    )


@dataclass(frozen=True)
class Inbox:
    """Who may send, and who processes it."""

    keys: dict[str, list[bytes]]
    verify_token: SecretStr | None
    processor: service.Processor


@asynccontextmanager
async def open_inbox(settings: Settings, database: Database) -> AsyncIterator[Inbox]:
    """Take what is sent, and process it, for as long as this is open."""
    secrets = settings.webhook_secrets
    keys = signatures.parse_secrets(secrets.get_secret_value()) if secrets else {}
    async with AsyncExitStack() as stack:
        opened: AbstractAsyncContextManager[service.Processor]
        opened = service.open_background_processor(database)
        if settings.redis_url is not None:  # option: worker
            opened = open_worker_processor(settings)  # option: worker
        processor: service.Processor = await stack.enter_async_context(opened)
        yield Inbox(keys, settings.webhook_verify_token, processor)


async def get_inbox(request: Request) -> Inbox:
    inbox: Inbox = request.state.inbox
    return inbox


InboxOfService = Annotated[Inbox, Depends(get_inbox)]


async def find_keys(source: str, inbox: InboxOfService) -> list[bytes]:
    if source not in inbox.keys:
        raise UnknownSource
    return inbox.keys[source]


KeysOfSource = Annotated[list[bytes], Depends(find_keys)]


@dataclass(frozen=True)
class Delivery:
    source: str
    id: str
    body: bytes


async def verify(
    request: Request,
    source: str,
    keys: KeysOfSource,
    webhook_id: Annotated[str, Header(description="The same when a delivery is repeated.")] = "",
    webhook_timestamp: Annotated[str, Header(description="Seconds since 1970.")] = "",
    webhook_signature: Annotated[str, Header(description="v1, and base64; or several.")] = "",
) -> Delivery:
    """Let in only what somebody who has the secret sent just now.

    Raises:
        InvalidSignature: without a word about which part of the signed content is wrong.
    """
    if not signatures.is_well_formed(webhook_id, webhook_timestamp):
        raise InvalidSignature("Send webhook-id, webhook-timestamp and webhook-signature.")
    if not signatures.is_fresh(webhook_timestamp, time.time()):
        raise InvalidSignature("The timestamp is over five minutes away from this clock.")
    try:
        body = await request.body()
    except ClientDisconnect as error:
        raise InvalidSignature("The body did not arrive.") from error
    if not signatures.is_signed(keys, webhook_id, webhook_timestamp, body, webhook_signature):
        raise InvalidSignature("No signature fits.")
    return Delivery(source, webhook_id, body)


# Asked for before the transaction: nobody without the secret holds a connection.
VerifiedDelivery = Annotated[Delivery, Depends(verify)]
BODY = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}


@router.post(
    "/{source}",
    status_code=202,
    responses=responses(UnknownSource, InvalidSignature, ContentTooLarge),
    openapi_extra={"requestBody": BODY},
)
async def receive_webhook(
    delivery: VerifiedDelivery, transaction: WriteTransaction, inbox: InboxOfService
) -> Receipt:
    """Keep a delivery, to be processed in a moment; a repeated one is acknowledged, no more."""
    is_new = await service.store(transaction, delivery.source, delivery.id, delivery.body)
    if is_new:
        # with the request's id; what is logged about it later has none
        log.info("webhook stored", source=delivery.source, id=delivery.id)
        inbox.processor.process_after(transaction, f"{delivery.source}:{delivery.id}")
    return Receipt(status="stored" if is_new else "repeated")


@router.get(
    "/{source}",
    response_class=PlainTextResponse,
    responses=responses(UnknownSource, ChallengeRefused),
    dependencies=[Depends(find_keys)],
)
async def answer_challenge(
    inbox: InboxOfService,
    _mode: Annotated[Literal["subscribe"], Query(alias="hub.mode")],
    # echoed, so nothing but plain text of one line
    challenge: Annotated[str, Query(alias="hub.challenge", pattern=r"^[ -~]{1,200}$")],
    token: Annotated[str, Query(alias="hub.verify_token", max_length=200)],
) -> str:
    """Prove to a sender that this address is ours."""
    expected = inbox.verify_token
    if expected is None or not hmac.compare_digest(
        token.encode(), expected.get_secret_value().encode()
    ):
        raise ChallengeRefused
    return challenge
