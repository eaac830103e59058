from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Response, WebSocket
from fastapi.routing import APIRoute
from httpx import ASGITransport, AsyncClient
from pydantic import BaseModel

from app.web.routing import include


class Thing(BaseModel):
    name: str
    size: int | None = None


class OwnRoute(APIRoute):
    pass


async def owner() -> str:
    return "the service"


def router() -> APIRouter:
    """One with something of everything that a route can be told."""
    made = APIRouter(
        prefix="/things",
        tags=["things"],
        route_class=OwnRoute,
        responses={404: {"description": "No such thing"}},
        dependencies=[Depends(owner)],
    )

    @made.get("/{thing_id}", response_model_exclude_none=True, summary="One thing")
    async def read(thing_id: int, name: Annotated[str, Depends(owner)]) -> Thing:
        """By its number."""
        return Thing(name=f"{name} {thing_id}")

    @made.delete("/{thing_id}", status_code=204, operation_id="forget", deprecated=True)
    async def forget(thing_id: int) -> None:
        del thing_id

    @made.get("/", include_in_schema=False, response_class=Response, name="nothing")
    async def nothing() -> None:
        return None

    return made


async def test_routes_are_what_include_router_makes_of_them() -> None:
    flat, nested = FastAPI(), FastAPI()
    include(flat, router())
    nested.include_router(router())
    assert flat.openapi() == nested.openapi()
    for app in (flat, nested):
        async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
            assert (await client.get("/things/7")).json() == {"name": "the service 7"}
            assert (await client.delete("/things/7")).status_code == 204
            assert (await client.put("/things/7")).status_code == 405
    added = [route for route in flat.routes if isinstance(route, OwnRoute)]
    assert len(added) == 3
    assert flat.url_path_for("nothing") == "/things/"


async def test_a_dependency_can_be_overridden_in_each_application() -> None:
    one, other, shared = FastAPI(), FastAPI(), router()
    include(one, shared)
    include(other, shared)
    one.dependency_overrides[owner] = lambda: "a test"
    async with AsyncClient(transport=ASGITransport(one), base_url="http://test") as client:
        assert (await client.get("/things/7")).json() == {"name": "a test 7"}
    async with AsyncClient(transport=ASGITransport(other), base_url="http://test") as client:
        assert (await client.get("/things/7")).json() == {"name": "the service 7"}


def test_a_router_with_more_than_plain_routes_is_left_to_fastapi() -> None:
    mixed = router()

    @mixed.websocket("/socket")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()

    app = FastAPI()
    include(app, mixed)
    assert not any(isinstance(route, OwnRoute) for route in app.routes)
    assert "/things/{thing_id}" in app.openapi()["paths"]
