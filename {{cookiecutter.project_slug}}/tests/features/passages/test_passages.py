import math
import uuid
from typing import Any
from urllib.parse import urlsplit

import pytest
from httpx import AsyncClient
from sqlalchemy import text

from app.db.migrate import migrate
from app.db.schema_version import MigrationError
from app.db.session import open_database
from app.errors import ServiceError
from app.features.passages.errors import PassageNotFound, WrongDimensions
from app.features.passages.models import DIMENSIONS
from app.features.passages.schemas import MAX_NEAREST
from app.features.passages.service import NEAREST, DimensionsMismatch, check_column
from app.main import create_app
from app.settings import Settings
from conftest import is_problem, running, settings_for
from sql import fetch

PROBLEM = "application/problem+json"


def embedding_of(*first: float) -> list[float]:
    """Return an embedding of these numbers, padded with zeros."""
    return [*first, *[0.0] * (DIMENSIONS - len(first))]


async def store(client: AsyncClient, words: str, *first: float) -> dict[str, Any]:
    body = {"text": words, "embedding": embedding_of(*first)}
    response = await client.post("/passages", json=body)
    assert response.status_code == 201, response.text
    passage: dict[str, Any] = response.json()
    return passage


async def nearest(client: AsyncClient, *first: float, limit: int = 10) -> list[dict[str, Any]]:
    body = {"embedding": embedding_of(*first), "limit": limit}
    response = await client.post("/passages/nearest", json=body)
    assert response.status_code == 200, response.text
    items: list[dict[str, Any]] = response.json()["items"]
    return items


async def test_passage_is_created_read_and_deleted(client: AsyncClient) -> None:
    body = {"text": " Water boils. ", "embedding": embedding_of(1)}
    created = await client.post("/passages", json=body)
    assert created.status_code == 201
    assert created.json()["text"] == "Water boils."
    assert "embedding" not in created.json()
    location = created.headers["Location"]
    assert location == f"/passages/{created.json()['id']}"
    assert (await client.get(location)).json() == created.json()
    assert (await client.delete(location)).status_code == 204
    for response in (await client.get(location), await client.delete(location)):
        assert is_problem(response, 404, "passage-not-found")


async def test_nearest_passages_are_sorted_by_distance_up_to_the_limit(client: AsyncClient) -> None:
    for words, first in {
        "opposite": (-1, 0),
        "same": (7, 0),
        "near": (2, 1),
        "far": (0, 1),
    }.items():
        await store(client, words, *first)
    found = await nearest(client, 3, 0)
    assert [item["text"] for item in found] == ["same", "near", "far", "opposite"]
    expected = [0, 1 - 2 / math.sqrt(5), 1, 2]
    assert [item["distance"] for item in found] == pytest.approx(expected, abs=1e-6)
    assert [item["text"] for item in await nearest(client, 3, 0, limit=2)] == ["same", "near"]


async def test_nearest_without_passages_is_empty(client: AsyncClient) -> None:
    assert await nearest(client, 1) == []


@pytest.mark.parametrize("size", [1e-320, 1e-30, 1e30, 3e38])
async def test_embedding_of_extreme_numbers_keeps_its_direction(
    client: AsyncClient, size: float
) -> None:
    await store(client, "a", size, size)
    (found,) = await nearest(client, size, size)
    assert found["distance"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("count", [1, DIMENSIONS - 1, DIMENSIONS + 1])
@pytest.mark.parametrize("path", ["/passages", "/passages/nearest"])
async def test_embedding_with_wrong_dimensions_returns_422_with_both_sizes(
    client: AsyncClient, path: str, count: int
) -> None:
    body = {"embedding": [1.0] * count} | ({"text": "a"} if path == "/passages" else {})
    response = await client.post(path, json=body)
    assert is_problem(response, 422, "wrong-dimensions")
    assert response.json()["detail"] == (
        f"An embedding has {DIMENSIONS} numbers here, and this one has {count}."
    )


@pytest.mark.parametrize(
    "body",
    [
        '{"text": "a"}',
        '{"text": "a", "embedding": []}',
        '{"text": "a", "embedding": [0, 0, 0]}',
        '{"text": "a", "embedding": [NaN]}',
        '{"text": "a", "embedding": [Infinity]}',
        '{"text": "a", "embedding": [1e39]}',
        '{"text": "a", "embedding": [1' + "0" * 400 + "]}",
        '{"text": "a", "embedding": ["a"]}',
        '{"text": " ", "embedding": [1]}',
        '{"text": "nul \\u0000", "embedding": [1]}',
        '{"text": "a", "embedding": [1], "colour": "red"}',
    ],
)
async def test_invalid_passage_returns_422(client: AsyncClient, body: str) -> None:
    headers = {"Content-Type": "application/json"}
    response = await client.post("/passages", content=body, headers=headers)
    assert response.status_code == 422
    assert response.headers["Content-Type"] == PROBLEM
    assert response.json()["type"] == "about:blank"


@pytest.mark.parametrize("limit", [0, MAX_NEAREST + 1])
async def test_nearest_with_a_limit_out_of_range_returns_422(
    client: AsyncClient, limit: int
) -> None:
    body = {"embedding": embedding_of(1), "limit": limit}
    assert (await client.post("/passages/nearest", json=body)).status_code == 422


async def test_unknown_passage_returns_404(client: AsyncClient) -> None:
    assert (await client.get(f"/passages/{uuid.uuid4()}")).status_code == 404


async def test_nearest_with_the_index_finds_the_maximum(
    client: AsyncClient, settings: Settings
) -> None:
    """Sequential scans are disabled: PostgreSQL prefers them for a small table."""
    async with open_database(settings) as database, database.session() as session:
        # Rows that other tests deleted stay in the index, and a search counts them.
        await session.execute(text("TRUNCATE passages"))
    for number in range(MAX_NEAREST + 10):
        await store(client, str(number), 1, number)
    values = {"embedding": embedding_of(1), "limit": MAX_NEAREST}
    async with open_database(settings) as database, database.session() as session:
        connection = await session.connection()
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        explain = f"EXPLAIN {NEAREST.compile(dialect=connection.dialect)}"
        plan = await connection.exec_driver_sql(explain, (str(embedding_of(1)), MAX_NEAREST))
        assert "Index Scan using ix_passages_embedding" in "\n".join(plan.scalars())
        assert len(await fetch(session, NEAREST, values)) == MAX_NEAREST


async def test_column_with_other_dimensions_than_the_setting_is_not_ready(
    database_url: str,
) -> None:
    settings = settings_for(database_url, embedding_dimensions=3)
    async with running(create_app(settings)) as client:
        ready = await client.get("/health/ready")
    assert ready.status_code == 503
    assert ready.json()["components"]["embeddings"] == "failed"
    async with open_database(settings) as database:
        with pytest.raises(
            DimensionsMismatch,
            match=r"^EMBEDDING_DIMENSIONS is 3, but the column \S+ has 1536 dimensions: see",
        ):
            await check_column(database, 3)


async def test_check_without_the_table_fails(empty_database: str) -> None:
    async with open_database(settings_for(empty_database)) as database:
        with pytest.raises(DimensionsMismatch, match="does not exist"):
            await check_column(database, DIMENSIONS)


def test_dimensions_of_zero_are_refused(database_url: str) -> None:
    with pytest.raises(ValueError, match="embedding_dimensions"):
        settings_for(database_url, embedding_dimensions=0)


async def test_migration_without_the_extension_fails_with_one_line(empty_database: str) -> None:
    async with open_database(settings_for(empty_database)) as database:
        name = urlsplit(empty_database).path.removeprefix("/")
        async with database.probe() as connection:
            statement = f"ALTER DATABASE \"{name}\" SET extension_control_path = '/nowhere'"
            await connection.execute(text(statement))
    with pytest.raises(MigrationError) as caught:
        await migrate(settings_for(empty_database))
    assert 'extension "vector" is not available' in str(caught.value)
    assert "\n" not in str(caught.value)


def test_types_and_titles_of_errors_are_stable() -> None:
    kinds: list[type[ServiceError]] = [PassageNotFound, WrongDimensions]
    assert {kind.type: kind.title for kind in kinds} == {
        "urn:problem:passage-not-found": "Passage Not Found",
        "urn:problem:wrong-dimensions": "Wrong Dimensions",
    }
