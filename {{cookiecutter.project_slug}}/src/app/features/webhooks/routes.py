"""The routes of webhooks."""

import hmac
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import structlog
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, Field, SecretStr
from starlette.requests import ClientDisconnect

from app.db.session import Database
from app.errors import NotFound
from app.features.webhooks import background, service
from app.features.webhooks.jobs import open_worker_processor  # option: worker
from app.features.webhooks.kinds import KINDS, NewEvent, SignatureHeaders
from app.features.webhooks.settings import Source, WebhookSettings, parse_secrets
from app.web.dependencies import Session, from_state
from app.web.middleware import ContentTooLarge
from app.web.problems import Problem, responses

log = structlog.get_logger()

TAG = {"name": "webhooks", "description": "Signed deliveries of other services."}
router = APIRouter(prefix="/webhooks", tags=[TAG["name"]])

OpenProcessor = Callable[[Database], AbstractAsyncContextManager[background.ProcessOnCommit]]
open_processor: OpenProcessor = background.open_background_processor
open_processor = open_worker_processor  # option: worker


class UnknownWebhookSource(NotFound):
    """The settings have no such source."""


class InvalidWebhookSignature(Problem):
    status = 401

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Webhook-Signature"})


class WebhookChallengeRefused(Problem):
    status = 403


class Receipt(BaseModel):
    status: Literal["stored", "repeated"] = Field(
        description="repeated: it was stored before and is not processed again."
    )


@dataclass(frozen=True)
class Inbox:
    """The sources by name, and the function that starts the processing of deliveries."""

    sources: dict[str, Source]
    verify_token: SecretStr | None
    process_on_commit: background.ProcessOnCommit


@asynccontextmanager
async def open_inbox(settings: WebhookSettings, state: Mapping[str, Any]) -> AsyncIterator[Inbox]:
    """Accept deliveries and process them.

    Args:
        settings: the sources and their secrets.
        state: the objects of the lifespan that are open already.
    """
    secrets = settings.webhook_secrets
    sources = parse_secrets(secrets.get_secret_value()) if secrets else {}
    async with open_processor(state["database"]) as process_on_commit:
        yield Inbox(sources, settings.webhook_verify_token, process_on_commit)


InboxDep = Annotated[Inbox, from_state("inbox")]


async def find_source(source: str, inbox: InboxDep) -> Source:
    if source not in inbox.sources:
        raise UnknownWebhookSource
    return inbox.sources[source]


KnownSource = Annotated[Source, Depends(find_source)]


async def verify(
    request: Request,
    response: Response,
    source: KnownSource,
    headers: Annotated[SignatureHeaders, Header()],
) -> list[NewEvent]:
    """Verify the signature of a delivery, and its age where the kind has a timestamp.

    Returns:
        The events of the delivery.

    Raises:
        InvalidWebhookSignature: a header is missing, the timestamp is too old or too new, or no
            signature matches.
    """
    kind = KINDS[source.kind]
    if detail := kind.refusal(headers, time.time()):
        raise InvalidWebhookSignature(detail)
    try:
        body = await request.body()
    except ClientDisconnect as error:
        raise InvalidWebhookSignature("The body did not arrive.") from error
    if not kind.is_signed(source.keys, headers, body):
        raise InvalidWebhookSignature("No signature matches.")
    response.status_code = kind.success_status
    return kind.events(headers, body)


# Declared before the session: a request without the secret takes no connection.
VerifiedEvents = Annotated[list[NewEvent], Depends(verify)]
BODY = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}


@router.post(
    "/{source}",
    status_code=202,
    responses={
        200: {"model": Receipt, "description": "Sent to Meta instead of 202."},
        **responses(UnknownWebhookSource, InvalidWebhookSignature, ContentTooLarge),
    },
    openapi_extra={"requestBody": BODY},
)
async def receive_webhook(
    source: str, events: VerifiedEvents, session: Session, inbox: InboxDep
) -> Receipt:
    """Store a delivery, which is processed soon after. A repeated one is only acknowledged."""
    new_ids = await service.store(session, source, events)
    for event_id in new_ids:
        # This line has the request id. Lines about the processing have none.
        log.info("webhook stored", source=source, id=event_id)
    if new_ids:
        await inbox.process_on_commit(session, f"{source}:{new_ids[0]}")
    return Receipt(status="stored" if new_ids else "repeated")


@router.get(
    "/{source}",
    response_class=PlainTextResponse,
    responses=responses(UnknownWebhookSource, WebhookChallengeRefused),
    dependencies=[Depends(find_source)],
)
async def answer_challenge(
    inbox: InboxDep,
    _mode: Annotated[Literal["subscribe"], Query(alias="hub.mode")],
    # echoed in the response, so only one line of plain text is allowed
    challenge: Annotated[str, Query(alias="hub.challenge", pattern=r"^[ -~]{1,200}$")],
    token: Annotated[str, Query(alias="hub.verify_token", max_length=200)],
) -> str:
    """Respond to the challenge with which a sender verifies this address."""
    expected = inbox.verify_token
    if expected is None or not hmac.compare_digest(
        token.encode(), expected.get_secret_value().encode()
    ):
        raise WebhookChallengeRefused
    return challenge
