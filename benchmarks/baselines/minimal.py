"""The least that FastAPI can do: one route, no middleware, nothing logged."""

from fastapi import FastAPI
from pydantic import BaseModel


class Live(BaseModel):
    status: str = "alive"


app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})


@app.get("/health/live")
async def live() -> Live:
    return Live()
