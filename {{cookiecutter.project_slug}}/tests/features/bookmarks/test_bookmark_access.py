import pytest
from httpx import AsyncClient

PLACE = "/bookmarks/00000000-0000-0000-0000-000000000007"


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/bookmarks"), ("PUT", PLACE), ("DELETE", PLACE)]
)
async def test_writing_needs_a_token(service: AsyncClient, method: str, path: str) -> None:
    new = {"url": "https://a.example/x", "title": "A"}
    response = await service.request(
        method, path, json=new if method != "DELETE" else None, headers={"If-Match": '"1"'}
    )
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.json()["type"] == "urn:problem:token-required"


async def test_reading_needs_none(service: AsyncClient) -> None:
    assert (await service.get("/bookmarks")).status_code == 200
    assert (await service.get(PLACE)).status_code == 404
