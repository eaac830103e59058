"""Calls to other services: bounded in time, and carrying the request id along."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from app.logging.context import current_request_id


@asynccontextmanager
async def open_http_client(*, timeout_seconds: float = 5.0) -> AsyncIterator[httpx.AsyncClient]:
    """A client to keep for as long as the service runs: open it in the lifespan of `main.py`.

    Args:
        timeout_seconds: for each of connecting, sending, waiting for bytes and for a connection.
    """
    async with httpx.AsyncClient(
        timeout=timeout_seconds, event_hooks={"request": [_pass_request_id]}
    ) as client:
        yield client


async def _pass_request_id(request: httpx.Request) -> None:
    request_id = current_request_id()
    if request_id:
        request.headers["X-Request-Id"] = request_id
