"""Baseline: FastAPI with one route, without middleware and logs."""

from fastapi import FastAPI
from pydantic import BaseModel


class Live(BaseModel):
    status: str = "alive"


app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})


@app.get("/health/live")
async def live() -> Live:
    return Live()
