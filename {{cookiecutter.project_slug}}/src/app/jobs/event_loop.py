"""The event loop of processes that run jobs: the one that uvicorn selects for the service."""

import asyncio

import uvicorn


def create_runner() -> asyncio.Runner:
    """Create a runner, with uvloop where it is installed."""
    config = uvicorn.Config("", log_config=None)
    return asyncio.Runner(loop_factory=config.get_loop_factory())
