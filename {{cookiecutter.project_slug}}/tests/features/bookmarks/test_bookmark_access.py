import pytest
from httpx import AsyncClient

from conftest import is_problem

LOCATION = "/bookmarks/00000000-0000-0000-0000-000000000007"


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/bookmarks"), ("PUT", LOCATION), ("DELETE", LOCATION)]
)
async def test_write_without_a_token_returns_401(
    service: AsyncClient, method: str, path: str
) -> None:
    new = {"url": "https://a.example/x", "title": "A"}
    response = await service.request(
        method, path, json=new if method != "DELETE" else None, headers={"If-Match": '"1"'}
    )
    assert is_problem(response, 401, "token-required")
    assert response.headers["WWW-Authenticate"] == "Bearer"


async def test_read_without_a_token_succeeds(service: AsyncClient) -> None:
    assert (await service.get("/bookmarks")).status_code == 200
    assert (await service.get(LOCATION)).status_code == 404
