"""Serve a service with two more routes: one counts asyncio tasks, one raises an error."""

import asyncio

from app.main import create_served_app
from app.settings import load_settings
from app.web.server import serve
from fastapi import FastAPI


def create_app() -> FastAPI:
    app = create_served_app()

    @app.get("/soak/tasks")
    async def tasks() -> int:
        return len(asyncio.all_tasks())

    @app.get("/soak/error")
    async def error() -> None:
        raise RuntimeError("an error of the load")

    return app


if __name__ == "__main__":
    serve("counted:create_app", load_settings())
