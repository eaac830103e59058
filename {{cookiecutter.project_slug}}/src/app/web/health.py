"""Health: a registry of checks, and the five routes that report them.

`/health/live` looks at nothing but this process, so that no orchestrator restarts a good
process because its database is away. `/health/ready` takes a replica out of the rotation.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from app.errors import NotFound, Unavailable
from app.settings import SERVICE_NAME, Settings
from app.web.operator_token import SentToken, TokenRequired, require_token
from app.web.problems import responses

log = structlog.get_logger()

SHARED_SECONDS = 1.0  # one round of checks answers every probe of a second: probes cannot flood
# A late check goes on for so long. The first connection takes 16 round trips to the database.
LATE_SECONDS = 10.0


@dataclass(frozen=True)
class Check:
    """One thing this service depends on.

    Args:
        name: as it is shown to probes.
        run: returns when all is well, raises anything when it is not.
        timeout_seconds: after which it counts as failed. It then goes on in the background, so
            that the connection that it opens is there for the next round.
        critical: whether the service is useless without it; otherwise it is only slower.
    """

    name: str
    run: Callable[[], Awaitable[object]]
    timeout_seconds: float = 2.0
    critical: bool = True


class Component(BaseModel):
    status: Literal["ok", "failed"]
    critical: bool
    latency_ms: float
    reason: str | None = Field(None, exclude=True)  # for logs and `app check`, never for clients


class Readiness(BaseModel):
    status: Literal["ready", "degraded"]
    components: dict[str, Literal["ok", "failed"]]


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


class NotReady(Unavailable):
    type = "urn:problem:not-ready"
    title = "Not Ready"


class Health:
    """The state of this process, and of what it depends on."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._version = settings.version
        self._checks: dict[str, Check] = {}
        self._round: asyncio.Task[dict[str, Component]] | None = None
        self._round_ends = 0.0
        self._runs: dict[str, asyncio.Task[object]] = {}  # the last run of each check
        self._since = time.monotonic()
        self.is_started = False
        self.is_draining = False

    def add(self, check: Check) -> None:
        self._checks[check.name] = check

    def summary(self) -> Summary:
        return Summary(
            status="draining" if self.is_draining else "ok",
            service=SERVICE_NAME,
            version=self._version,
            commit=self.settings.commit_sha,
            uptime_seconds=round(time.monotonic() - self._since, 1),
        )

    async def components(self) -> dict[str, Component]:
        """Run all checks at once, or share the round that is running or just ended."""
        if self._round is None or (self._round.done() and time.monotonic() >= self._round_ends):
            self._round = asyncio.create_task(self._run_checks())
        return await asyncio.shield(self._round)

    async def readiness(self) -> Readiness:
        """Whether this replica should get requests.

        Raises:
            NotReady: draining, or a critical check fails.
        """
        if self.is_draining:
            raise NotReady("This replica is draining.")
        components = await self.components()
        states = {name: component.status for name, component in components.items()}
        if not _is_well(components):
            raise NotReady("A critical dependency fails.", components=states)
        return Readiness(
            status="degraded" if "failed" in states.values() else "ready", components=states
        )

    def allow_late_checks(self) -> None:
        """Let checks answer late: for people, who can wait for a slow link."""
        for check in self._checks.values():
            self.add(replace(check, timeout_seconds=LATE_SECONDS))

    async def finish(self) -> None:
        """End running and late checks, before the connections that they use are closed."""
        seconds = sum(check.timeout_seconds for check in self._checks.values())
        if self._round is not None:
            await asyncio.wait({self._round}, timeout=seconds)
        late = [run for run in self._runs.values() if not run.done()]
        for run in late:
            run.cancel()
        if late:
            await asyncio.wait(late, timeout=seconds)

    async def _run_checks(self) -> dict[str, Component]:
        results = await asyncio.gather(*map(self._run_check, self._checks.values()))
        self._round_ends = time.monotonic() + SHARED_SECONDS
        components = dict(zip(self._checks, results, strict=True))
        self.is_started = self.is_started or _is_well(components)
        return components

    async def _run_check(self, check: Check) -> Component:
        started = time.perf_counter()
        reason = None
        try:
            async with asyncio.timeout(check.timeout_seconds):
                if check.name in self._runs:
                    # It may be late. Its result would be old, so the check runs again after it.
                    await asyncio.wait({self._runs[check.name]})
                run = self._runs[check.name] = asyncio.create_task(_run_to_the_end(check))
                run.add_done_callback(_retrieve_error)
                await asyncio.wait({run})  # leaves the run alone when the time is over
            if error := run.exception():
                reason = f"{type(error).__name__}: {error}".rstrip(": ")
        except TimeoutError:
            reason = f"no answer within {check.timeout_seconds:g} s"
        if reason:
            log.warning("health check failed", check=check.name, reason=reason)
        return Component(
            status="failed" if reason else "ok",
            critical=check.critical,
            latency_ms=round((time.perf_counter() - started) * 1000, 1),
            reason=reason,
        )


async def _run_to_the_end(check: Check) -> object:
    async with asyncio.timeout(LATE_SECONDS):
        return await check.run()


def _retrieve_error(run: asyncio.Task[object]) -> None:
    """Keep asyncio from logging the error of a late check: the next round reports it."""
    if not run.cancelled():
        run.exception()


def _is_well(components: dict[str, Component]) -> bool:
    return not any(c.critical and c.status == "failed" for c in components.values())


async def get_health(request: Request) -> Health:
    health: Health = request.app.state.health
    return health


HealthDep = Annotated[Health, Depends(get_health)]
TAG = {"name": "health", "description": "Probes of load balancers and orchestrators."}
router = APIRouter(prefix="/health", tags=[TAG["name"]])


@router.get("")
async def read_health(health: HealthDep) -> Summary:
    """Return the name and version of the service; `draining` precedes its end.

    Checks no dependencies.
    """
    return health.summary()


@router.get("/live")
async def check_liveness() -> Live:
    """Restart the process if this fails. Checks no dependencies."""
    return Live()


@router.get("/ready", responses=responses(NotReady))
async def check_readiness(health: HealthDep) -> Readiness:
    """Send requests here only while this succeeds."""
    return await health.readiness()


@router.get("/startup", responses=responses(NotReady))
async def check_startup(health: HealthDep) -> Started:
    """Succeed for good once this replica has been ready."""
    if not health.is_started:
        await health.readiness()
    return Started()


@router.get("/detailed", responses=responses(TokenRequired, NotFound))
async def read_health_details(health: HealthDep, token: SentToken) -> Details:
    """Return the state of every component; closed in production unless HEALTH_TOKEN is set."""
    require_token(health.settings, health.settings.health_token, token)
    return Details(
        **health.summary().model_dump(),
        environment=health.settings.environment,
        components=await health.components(),
    )
