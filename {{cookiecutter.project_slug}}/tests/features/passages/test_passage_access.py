import pytest
from httpx import AsyncClient

from conftest import is_problem

LOCATION = "/passages/00000000-0000-0000-0000-000000000007"


@pytest.mark.parametrize(("method", "path"), [("POST", "/passages"), ("DELETE", LOCATION)])
async def test_write_without_a_token_returns_401(
    service: AsyncClient, method: str, path: str
) -> None:
    response = await service.request(method, path)
    assert is_problem(response, 401, "token-required")


async def test_read_without_a_token_succeeds(service: AsyncClient) -> None:
    assert (await service.post("/passages/nearest", json={})).status_code == 422
    assert (await service.get(LOCATION)).status_code == 404
