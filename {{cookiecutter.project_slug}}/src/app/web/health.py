"""The five health endpoints.

Liveness checks no dependencies, so no orchestrator restarts a good process during an outage of its
database. A replica whose readiness fails receives no requests.
"""

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel

from app.errors import NotFound
from app.service_info import SERVICE_NAME, service_version
from app.web.checks import Component, Health, NotReady, Readiness
from app.web.dependencies import from_state
from app.web.operator_token import SentToken, TokenRequired, require_token
from app.web.problems import responses
from app.web.settings import WebSettings

TAG = {"name": "health", "description": "Probes of load balancers and orchestrators."}
router = APIRouter(prefix="/health", tags=[TAG["name"]])
HealthDep = Annotated[Health, from_state("health")]
SettingsDep = Annotated[WebSettings, from_state("settings")]
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


def _summarize(health: Health, settings: WebSettings) -> Summary:
    return Summary(
        status="draining" if health.is_draining else "ok",
        service=SERVICE_NAME,
        version=VERSION,
        commit=settings.commit_sha,
        uptime_seconds=round(health.uptime_seconds, 1),
    )


@router.get("")
async def read_health(health: HealthDep, settings: SettingsDep) -> Summary:
    """Return the name and version of the service. `draining` precedes its end.

    It checks no dependencies.
    """
    return _summarize(health, settings)


@router.get("/live")
async def check_liveness() -> Live:
    """Restart the process if this fails. It checks no dependencies."""
    return Live()


@router.get("/ready", responses=responses(NotReady))
async def check_readiness(health: HealthDep) -> Readiness:
    """Send requests to this replica only while this succeeds."""
    return await health.readiness()


@router.get("/startup", responses=responses(NotReady))
async def check_startup(health: HealthDep) -> Started:
    """Succeed as soon as this replica was ready once."""
    if not health.is_started:
        await health.readiness()
    return Started()


@router.get("/detailed", responses=responses(TokenRequired, NotFound))
async def read_health_details(
    health: HealthDep, settings: SettingsDep, token: SentToken
) -> Details:
    """Return every component. Production requires HEALTH_TOKEN."""
    require_token(settings, settings.health_token, token)
    return Details(
        **_summarize(health, settings).model_dump(),
        environment=settings.environment,
        components=await health.components(),
    )
