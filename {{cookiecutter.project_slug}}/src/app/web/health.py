"""The five health endpoints.

Liveness checks no dependencies, so no orchestrator restarts a good process during an outage of its
database. A replica whose readiness fails receives no requests.
"""

from functools import partial
from typing import Literal

from fastapi import FastAPI
from pydantic import BaseModel

from app.errors import NotFound
from app.service_info import SERVICE_NAME, service_version
from app.web.checks import Component, Health, NotReady, Readiness
from app.web.operator_token import SentToken, TokenRequired, require_token
from app.web.problems import responses
from app.web.settings import WebSettings

TAG = {"name": "health", "description": "Probes of load balancers and orchestrators."}
VERSION = service_version()


class Live(BaseModel):
    status: Literal["alive"] = "alive"


class Started(BaseModel):
    status: Literal["started"] = "started"


class Summary(BaseModel):
    status: Literal["ok", "draining"]
    service: str
    version: str
    commit: str
    uptime_seconds: float


class Details(Summary):
    environment: str
    components: dict[str, Component]
    info: dict[str, dict[str, float | None] | None]  # option: worker


def add_health_routes(app: FastAPI, settings: WebSettings, health: Health) -> None:
    """Add the routes to the application itself: an included router costs 15 µs a request."""
    get = partial(app.get, tags=[TAG["name"]])

    @get("/health")
    async def read_health() -> Summary:
        """Return the name, version and commit of the service, without a check of its dependencies.

        The status is `draining` from SIGTERM until the process ends.
        """
        return Summary(
            status="draining" if health.is_draining else "ok",
            service=SERVICE_NAME,
            version=VERSION,
            commit=settings.commit_sha,
            uptime_seconds=round(health.uptime_seconds, 1),
        )

    @get("/health/live")
    async def check_liveness() -> Live:
        """Restart the process if this fails. No dependency is checked."""
        return Live()

    @get("/health/ready", responses=responses(NotReady))
    async def check_readiness() -> Readiness:
        """Send requests to this replica only while this succeeds."""
        return await health.readiness()

    @get("/health/startup", responses=responses(NotReady))
    async def check_startup() -> Started:
        """Succeed as soon as this replica was ready once."""
        if not health.is_started:
            await health.readiness()
        return Started()

    @get("/health/detailed", responses=responses(TokenRequired, NotFound))
    async def read_health_details(token: SentToken) -> Details:
        """Return every component. Production requires HEALTH_TOKEN."""
        require_token(settings, settings.health_token, token)
        summary = await read_health()
        return Details(
            **summary.model_dump(),
            environment=settings.environment,
            components=await health.components(),
            info={name: await read() for name, read in health.info.items()},  # option: worker
        )
