"""Health checks: run together, bounded, and shared by concurrent probes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Literal

import structlog
from pydantic import BaseModel, Field

from app.errors import Unavailable

log = structlog.get_logger()

# Limit of a check that continues after its timeout: the first connection takes 16 round trips.
LATE_SECONDS = 10.0
SHARED_SECONDS = 1.0  # all probes within this time share one run of the checks
InfoReader = Callable[[], Awaitable[dict[str, float | None] | None]]  # option: worker


@dataclass(frozen=True)
class Check:
    """A check of one dependency.

    Args:
        name: shown to probes.
        run: returns if the dependency works, and raises any error if it does not.
        timeout_seconds: after which the check has failed.
        critical: False if the service works without the dependency, only slower.
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


class NotReady(Unavailable):
    """A critical check failed, or the process is about to stop."""


class Health:
    """The state of this process and of its dependencies.

    Attributes:
        is_started: this process was ready at least once.
        is_draining: this process received SIGTERM and will stop.
        uptime_seconds: seconds since the object was made.
        info: readers of values for operators, which readiness ignores.  # option: worker
    """

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self.info: dict[str, InfoReader] = {}  # option: worker
        self._lock = asyncio.Lock()  # of the result
        self._result: dict[str, Component] = {}
        self._result_expires_at = 0.0
        self._runs: dict[str, asyncio.Task[str | None]] = {}  # the last run of each check
        self._since = time.monotonic()
        self.is_started = False
        self.is_draining = False

    def add(self, check: Check) -> None:
        self._checks[check.name] = check

    @property
    def uptime_seconds(self) -> float:
        return time.monotonic() - self._since

    async def components(self) -> dict[str, Component]:
        """Run all checks concurrently. Concurrent and immediately following probes share a run."""
        async with self._lock:
            if time.monotonic() >= self._result_expires_at:
                results = await asyncio.gather(*map(self._run_check, self._checks.values()))
                self._result = dict(zip(self._checks, results, strict=True))
                self._result_expires_at = time.monotonic() + SHARED_SECONDS
                self.is_started = self.is_started or _critical_checks_pass(self._result)
            return self._result

    async def readiness(self) -> Readiness:
        """Return whether this replica should receive requests.

        Raises:
            NotReady: this replica is draining, or a critical check fails.
        """
        if self.is_draining:
            raise NotReady("This replica is draining.")
        components = await self.components()
        states = {name: component.status for name, component in components.items()}
        if not _critical_checks_pass(components):
            raise NotReady("A critical dependency fails.", components=states)
        return Readiness(
            status="degraded" if "failed" in states.values() else "ready", components=states
        )

    def extend_timeouts(self) -> None:
        """Set the timeout of every check to LATE_SECONDS. `app check` can wait for a slow link."""
        for check in self._checks.values():
            self.add(replace(check, timeout_seconds=LATE_SECONDS))

    async def close(self) -> None:
        """End running and late checks, before the connections that they use are closed."""
        for run in self._runs.values():
            run.cancel()
        if self._runs:
            await asyncio.wait(self._runs.values(), timeout=LATE_SECONDS)

    async def _run_check(self, check: Check) -> Component:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(check.timeout_seconds):
                if check.name in self._runs:
                    # It may be late. Its result would be old, so the check runs again after it.
                    await asyncio.wait({self._runs[check.name]})
                run = self._runs[check.name] = asyncio.create_task(_find_failure(check))
                reason = await asyncio.shield(run)  # it continues after the timeout
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


async def _find_failure(check: Check) -> str | None:
    """Run a check within LATE_SECONDS. Return the reason of its failure, or None."""
    try:
        async with asyncio.timeout(LATE_SECONDS):
            await check.run()
    except Exception as error:  # noqa: BLE001 - a check may raise any error
        return f"{type(error).__name__}: {error}".rstrip(": ")
    return None


def _critical_checks_pass(components: dict[str, Component]) -> bool:
    return not any(c.critical and c.status == "failed" for c in components.values())
