import pytest
from httpx import AsyncClient

PLACE = "/passages/00000000-0000-0000-0000-000000000007"


@pytest.mark.parametrize(("method", "path"), [("POST", "/passages"), ("DELETE", PLACE)])
async def test_writing_needs_a_token(service: AsyncClient, method: str, path: str) -> None:
    response = await service.request(method, path)
    assert response.status_code == 401
    assert response.json()["type"] == "urn:problem:token-required"


async def test_reading_needs_none(service: AsyncClient) -> None:
    assert (await service.post("/passages/nearest", json={})).status_code == 422
    assert (await service.get(PLACE)).status_code == 404
